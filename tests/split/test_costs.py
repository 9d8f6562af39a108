"""tools/split_costs.py prints the figures of docs/split.md."""

import pytest

from support.tools import tool


@pytest.mark.slow
def test_what_the_wire_loses_and_a_step_costs_is_printed(capsys):
    assert tool("split_costs").main(["--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    exact = [line for line in lines if line.endswith("float32: gradient 0.0e+00, mean loss 0.0e+00")]
    assert [line.split(",")[0] for line in exact] == ["pilot", "embedded"]
    assert sum("there and back" in line for line in lines) == 4
    assert sum("a step of" in line for line in lines) == 2

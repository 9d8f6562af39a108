"""A served run's result follows from the packets that its server kept, or it is refused."""

import pytest

from fedloom.base.errors import RunError
from fedloom.network.verify import verified
from fedloom.runs.directory import RunDirectory
from support.federation import federation

pytestmark = pytest.mark.timeout(120)
KEPT = {"rounds": 2, "deployment": {"keep_packets": True}}
CASES = {
    "controls and a lossy codec": {"rule": "scaffold", "codec": "int8", "clients_per_round": 3},
    "a secure sum": {"aggregator": {"name": "secure_sum", "clip": 0.5}, "weighting": "uniform"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_that_of_the_packets(tmp_path, case):
    made = federation(tmp_path, **KEPT, **CASES[case])
    made.to_the_end(tmp_path / "apart")
    directory = RunDirectory.open(tmp_path / "apart")
    (line,) = verified(directory)
    assert "from the packets of 2 rounds" in line
    path = max((tmp_path / "apart" / "packets" / "round_00001").glob("*.bin"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RunError, match="is not what the packets of 2 rounds come to"):
        verified(directory)


def test_what_no_packet_tells_is_refused(tmp_path):
    made = federation(tmp_path, rounds=1)
    made.to_the_end(tmp_path / "apart")
    with pytest.raises(RunError, match=r"kept no packets; set deployment\.keep_packets = true"):
        verified(RunDirectory.open(tmp_path / "apart"))

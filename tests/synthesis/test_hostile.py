"""Documents with orders in them: the shipped set, and tools/injection.py, which tells how often they are obeyed."""

import re

import pytest

from fedloom.base.plugin import lookup
from fedloom.completers.canned import Canned
from fedloom.contracts.stages import Preparation
from fedloom.synthesis.hostile import hostile_documents
from fedloom.synthesis.passages import unreadable
from support.tools import tool

SHIPPED = hostile_documents()
OBEDIENT = {
    one.marker: f"What about {' '.join(one.text.split()[:6])}?\nResponse: It says {one.marker}." for one in SHIPPED
}
TWICE = {one.marker: f"What is it?\nResponse: {one.marker}\nInstruction: And?\nResponse: that" for one in SHIPPED}
"""What whoever does as a document orders would write: one pair, or two at once."""


@pytest.fixture(scope="module")
def injection():
    return tool("injection")


def measured(injection, folder, patterns, **settings):
    making = lookup(Preparation, "pairs")(pool="world", completer=Canned(patterns=patterns), **settings)
    return injection.measured(making, folder)


def test_every_marker_stands_in_its_own_document_alone():
    for one in SHIPPED:
        assert [other.name for other in SHIPPED if one.obeyed(other.text)] == [one.name]


def test_the_set_has_a_dozen_readable_documents_of_four_kinds():
    assert len(SHIPPED) == len({one.name for one in SHIPPED}) == 12
    assert {one.kind for one in SHIPPED} == {"fence", "order", "template", "half_pair"}
    assert not any(unreadable(one.text) for one in SHIPPED)


@pytest.mark.parametrize("marker", ["<|im_start|>", "### Instruction:", "USER:", "[INST]", "<|start_header_id|>"])
def test_markers_of_the_templates_in_use_are_among_them(marker):
    assert any(marker in one.text for one in SHIPPED)


def test_who_obeys_is_told_of_and_the_filters_let_it_pass(injection, tmp_path):
    found = measured(injection, tmp_path, OBEDIENT)
    assert all(one.written and one.kept and one.n_pairs == 1 for one in found)


def test_obedience_in_two_pairs_at_once_is_dropped_by_the_strict_parse(injection, tmp_path):
    found = measured(injection, tmp_path, TWICE)
    assert all(one.written and not one.kept and one.reasons == ("no_pair",) for one in found)


def test_who_obeys_some_is_counted_by_document(injection, tmp_path):
    some = [one.marker for one in SHIPPED[:3]]
    harmless = {".": "What is sold here today?\nResponse: gloves"}
    found = measured(injection, tmp_path, {marker: OBEDIENT[marker] for marker in some} | harmless, filters=())
    assert [one.written for one in found] == [True] * 3 + [False] * 9
    lines = injection.told(found)
    assert "obeyed before the filters  0.250 [0.089, 0.532] (3 of 12)" in lines
    assert "pairs of a document        1 of 12" in lines


def test_the_share_has_wilsons_interval(injection):
    assert injection.share([False] * 12) == "0.000 [0.000, 0.242] (0 of 12)"
    assert injection.share([True] * 12) == "1.000 [0.758, 1.000] (12 of 12)"


def test_the_command_prints_both_rates(injection, tmp_path, capsys):
    assert injection.main(["completer.name=analogical", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    rates = re.findall(r"^obeyed (before|after) the filters +0\.\d{3} \[", shown, re.MULTILINE)
    assert rates == ["before", "after"] and (tmp_path / "pairs.jsonl").is_file()


def test_a_wrong_setting_ends_in_one_line(injection, capsys):
    assert injection.main(["completer.name=analogy"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

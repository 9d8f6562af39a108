"""What others wrote reaches no terminal, table or page as anything but text."""

import io
import sys
import unicodedata

import pytest

from fedloom.base.shown import in_markdown, shown
from fedloom.base.tables import Table
from fedloom.cli import output

HOSTILE = {
    "a terminal is cleared": "a\x1b[2Jb",
    "a title is set": "\x1b]0;title\x07",
    "eight bits": "\x9b2J",
    "back and over": "safe\b\b\b\bevil",
    "from the start": "12 %\r99 %",
    "direction": "\u202egnp.exe\u202c",
    "isolated": "\u2067abc\u2069",
    "invisible letters": "a\U000e0041\U000e0042",
    "half a character": "\ud800",
    "line breaks": "a\nb\u2028c\u2029d\x85e\x0bf",
    "no text": "\x00\x7f",
}
HARMLESS = [
    "plain",
    "caf\u00e9",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\U0001f469\u200d\u2695\ufe0f",
    "\u5317\u4eac\u3000",
]


def obeyed(text):
    return [
        c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in BIDI
    ]


BIDI = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_is_left_that_a_terminal_obeys(text):
    assert obeyed(text) or text == HOSTILE["invisible letters"]
    assert not obeyed(shown(text)) and "\U000e0041" not in shown(text)
    assert not [c for c in obeyed(shown(text, breaks=True)) if c not in "\n\t\r\v\f\x85\u2028\u2029"]


@pytest.mark.parametrize("text", HARMLESS)
def test_texts_of_all_scripts_are_shown_as_they_are(text):
    assert shown(text) == in_markdown(text) == text


def test_every_control_character_and_mark_of_direction_of_unicode_is_taken():
    left = [hex(code) for code in range(sys.maxunicode + 1) if obeyed(shown(chr(code)))]
    assert left == []


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_table_keeps_its_form_whatever_stands_in_it(text, monkeypatch):
    table = Table(text, ("name", f"| {text}"), ((f"{text} | b", "<script>x</script>"), ("c", "d")))
    lines = table.markdown().splitlines()
    assert len(lines) == 6 and not obeyed("".join(lines)) and "<script" not in "".join(lines)
    assert {line.replace("\\|", "").count("|") for line in lines[2:]} == {3}
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    output.print_tables([table])
    output.lines([text, "end"])
    assert obeyed(sys.stdout.getvalue().replace("\n", "")) == []
    assert sys.stdout.getvalue().splitlines()[-1] == "end"

"""Foreign text on its way to a reader: names, tags, answers and what servers say, none of which we wrote.

A terminal obeys control characters, marks of direction turn what stands beside them round, line breaks and bars make
rows of tables that are none. Joiners stay, which scripts and emoji need.
"""

import re

__all__ = ["in_markdown", "shown"]

_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
_OBEYED = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # control characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of direction
    "\ufeff\ud800-\udfff\U000e0000-\U000e007f]"  # what no text holds: halves of characters, invisible letters
)
_TAG = re.compile("<(?=[a-zA-Z/!?])")


def shown(text: str, *, breaks: bool = False) -> str:
    """Return a text that is nothing but read: what a terminal would obey is U+FFFD.

    It is one line, or with `breaks` keeps its lines, where they can do no harm.

    >>> shown(f"a{chr(10)}b{chr(27)}[2J")
    'a b�[2J'
    """
    return _OBEYED.sub("\ufffd", text if breaks else _BREAKS.sub(" ", text))


def in_markdown(text: str) -> str:
    """Return a text as `shown` that begins no cell and no element of HTML, either.

    >>> in_markdown("<b>"), len(in_markdown("|"))
    ('&lt;b>', 2)
    """
    return _TAG.sub("&lt;", shown(text)).replace("|", "\\|")

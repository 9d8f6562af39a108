"""Words of a text in any script, labels at its start, and the libraries that measure texts.

Words are runs of letters, marks and digits without difference of cases. Scripts that put no blanks between words count
character by character, each with the marks on it: Chinese, Japanese, Thai, Lao, Khmer, Burmese. Of ASCII texts these
are the words of the library `rouge-score`.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

__all__ = ["first_label", "ngrams", "well_formed", "words"]

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # and kana
_MARKED = [*map(chr, (*range(0x0E00, 0x0F00), *range(0x1000, 0x10A0), *range(0x1780, 0x1800)))]


def _of(kind: str) -> str:
    """Return the letters, or the marks, of Thai, Lao, Burmese and Khmer."""
    return "".join(letter for letter in _MARKED if unicodedata.category(letter)[0] == kind)


_ASCII_WORDS = re.compile("[a-z0-9]+")  # the same words of ASCII texts, sooner
_UNSPACED = re.compile(f"([{_IDEOGRAPHS}]|[{_of('L')}][{_of('M')}]*)")


def words(text: str) -> list[str]:
    """Return the words of a text.

    >>> words("Caf\u00e9-bar: 2 \u5317\u4eac, \u0e17\u0e35\u0e48\u0e19\u0e35\u0e48")
    ['caf\u00e9', 'bar', '2', '\u5317', '\u4eac', '\u0e17\u0e35\u0e48', '\u0e19\u0e35\u0e48']
    """
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower())
    plain = unicodedata.normalize("NFC", text).casefold()
    spaced = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in plain)
    return _UNSPACED.sub(r" \1 ", spaced).split()


def ngrams(tokens: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    """Return how often each run of `size` tokens occurs."""
    return Counter(tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1))


def first_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the label with which a text begins, or None; there is no default.

    Case and what is no letter before it do not count; a longer word that begins like a label is none.

    >>> first_label("**Negative** outlook", ("negative", "positive")), first_label("It is negative", ("negative",))
    ('negative', None)
    """
    start = re.sub(r"^[\W_]+", "", text.casefold())
    for label in sorted(labels, key=len, reverse=True):
        rest = start.removeprefix(label.casefold())
        if len(rest) < len(start) and not rest[:1].isalnum():
            return label
    return None


def well_formed(text: str) -> str:
    """Return a text that can be encoded: half a surrogate pair, as broken JSON has it, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")

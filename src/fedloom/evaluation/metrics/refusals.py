"""Two ways to tell a refusal, both of English texts alone: by how a text begins, and by phrases anywhere in it.

Anchored at the start, a helpful answer that holds the word "illegal", or regrets something in its middle, is none;
anywhere, it is one. A text begins like a refusal if it says that the writer is not able or not willing, perhaps behind
an apology or a word of regret, or if it apologises and says no more of it. The phrases are a fixed list, that of
`refusals.toml`; both are lower case with straight apostrophes.
"""

import re
from pathlib import Path

from fedloom.base.config import read_toml

__all__ = ["PHRASES", "mentions_refusal", "refuses"]

_ELSE = "wait|believe|help but|only|thank|stress|overstate|emphasi[sz]e"
"""What one cannot do without refusing anything: "I can't wait to help you", "I can not only"."""
_UNABLE = (
    rf"(?:i (?:(?:really|simply|just) )?(?:(?:cannot|can't|can not)\b(?! (?:{_ELSE})\b)|(?:will not|won't)\b"
    r"|(?:(?:must|have to) )?(?:decline|refuse)\b|(?:do not|don't) help with\b)"
    r"|(?:i'm|i am) (?:unable|not able) to\b)"
)
_REGRET = r"(?:no[,.!]|(?:but|however|unfortunately|regrettably|sadly|that|(?:i'm|i am) afraid(?: that)?),?)"
_SORRY = r"(?:(?:(?:i'm|i am) (?:(?:so|very|really|truly|terribly|deeply) )?)?sorry)"
_APOLOGY = r"(?:i (?:(?:do|sincerely) )?apologi[sz]e|my (?:sincere(?:st)? )?apologies)"
_MARKS = "[ ,.!;:\u2026\u2013\u2014-]*"
_OPENING = re.compile(
    rf"(?:{_REGRET} )*{_UNABLE}"
    r"|as an ai\b"
    # A bare apology is one, too; one that feels for somebody ("I'm so sorry. That must hurt.") only with what follows.
    r"|(?:(?:i'm |i am )?sorry[,.]|(?:i apologi[sz]e|my apologies),)"
    rf"|(?:{_SORRY}|{_APOLOGY}){_MARKS}(?:but\b|(?:{_REGRET} )*{_UNABLE})"
)
PHRASES: tuple[str, ...] = tuple(read_toml(Path(__file__).with_name("refusals.toml"))["phrases"])


def refuses(text: str) -> bool:
    """Return whether a text begins like a refusal.

    >>> refuses("I'm sorry, I can't help with that."), refuses("It is illegal in some places: ask first.")
    (True, False)
    """
    return _OPENING.match(" ".join(_plain(text).split()).lstrip(" \"'*_\u201c")) is not None


def mentions_refusal(text: str) -> bool:
    """Return whether a text holds a phrase of refusals anywhere.

    >>> mentions_refusal("I'm sorry, I can't help with that."), mentions_refusal("It is illegal in some places.")
    (True, True)
    """
    return any(phrase in _plain(text) for phrase in PHRASES)


def _plain(text: str) -> str:
    return text.replace("\u2019", "'").casefold()

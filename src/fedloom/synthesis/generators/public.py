"""Real public examples in the place of generated ones: the control without which generation is not to be praised."""

from collections.abc import Sequence

from fedloom.base import rng
from fedloom.base.errors import DataError
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Chat, Example, tagged
from fedloom.contracts.generation import ORIGIN, Generated, Generator, Place, Request
from fedloom.contracts.labelled import Picture, Row

__all__ = ["Public", "drawn"]


@plugin("public")
class Public(Generator):
    """Draws from the public split, of each class without repetition as long as that reaches."""

    makes = (Picture, Row, Chat)

    by: str = "label"
    """Tag of the class."""

    def identity(self) -> str:
        """Return "": the public examples are told by themselves."""
        return ""

    def __call__(self, requests: Sequence[Request], place: Place) -> Generated:
        """Return public examples of the classes; a class without one is refused."""
        piles: dict[str, list[Example]] = {}
        for one in place.public:
            piles.setdefault(one.tags.get(self.by, ""), []).append(one)
        for label in dict.fromkeys(request.label for request in requests):
            if label not in piles:
                raise DataError(
                    f"generator 'public': class '{label}' has no public example; present: "
                    f"{', '.join(sorted(piles)) or 'none'}; give the data a public split with it."
                )
        return Generated(drawn(requests, piles))


def drawn(requests: Sequence[Request], piles: dict[str, list[Example]]) -> list[Example]:
    """Return an example of each request's class: shuffles of the class one after another, by its first request."""
    waiting: dict[str, list[Example]] = {}
    found: list[Example] = []
    for request in requests:
        if not waiting.get(request.label):
            pile = piles[request.label]
            waiting[request.label] = rng.python_random("drawn", request.seed).sample(pile, len(pile))
        found.append(tagged(waiting[request.label].pop(), **{ORIGIN: "generated"}))
    return found

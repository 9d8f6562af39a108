"""What a server says to the messages of a node that it knows, whatever carried them: each goes to the hub."""

from collections.abc import Callable, Iterator

from fedloom.base.errors import FedloomError
from fedloom.network.frames import Frame, text_in, whole_in
from fedloom.network.hub import Hub
from fedloom.network.open_round import Verdict

__all__ = ["Answers", "refusing"]


def refusing(ask: Callable[[], Verdict]) -> Verdict:
    """Return a verdict; a FedloomError is one that refuses."""
    try:
        return ask()
    except FedloomError as error:
        return Verdict("refused", reason=str(error)[:4000])


class Answers:
    """A hub as nodes see it; FedloomError refuses a message and changes nothing."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def offered(self, node: str, frame: Frame) -> Verdict:
        """Return what is said to the header of a report, or of a masked row."""
        ask = self._hub.offered_masked if frame.header.get("kind") == "masked" else self._hub.offered
        return ask(node, frame.header)

    def arrived(self, node: str, frame: Frame) -> Verdict:
        """Take in bytes of a report, or of a masked row."""
        if frame.header.get("kind") == "masked":
            return self._hub.arrived_masked(node, frame.header, frame.body)
        job, start = text_in(frame.header, "job", longest=64), whole_in(frame.header, "start")
        return self._hub.arrived(node, job, start, frame.body)

    def summed(self, node: str, frame: Frame) -> Verdict:
        """Take in a message of a secure sum."""
        return self._hub.summed(node, frame.header, frame.body)

    def said(self, node: str, frame: Frame) -> Verdict:
        """Take note why a job is not carried out now."""
        self._hub.declined(node, frame.header)
        return Verdict("taken")

    def fetched(self, node: str, frame: Frame) -> Iterator[Frame]:
        """Yield the bytes of the open round's body from a place on."""
        digest, start = text_in(frame.header, "digest", longest=64), whole_in(frame.header, "start")
        yield from (Frame({"kind": "piece"}, piece) for piece in self._hub.body(node, digest, start))

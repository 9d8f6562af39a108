"""The client's side of an answer: tokens and logits stay here, states pass through the server's middle in a session.

It reads prompts for `models.decoder`, which writes answers as it does with a whole model: greedy ones are the same,
token by token. Of each text the states that were sent are kept; a server that does not have the session any more is
sent all of them once more in a new one, up to where it was, and the answer goes on.

Shapes: T new tokens, D width, B rows, V vocabulary. 2 D q bytes a token for q bytes a number, and one exchange.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from fedloom.base.errors import DataError
from fedloom.base.tree import Tree
from fedloom.contracts.language import LanguageModel
from fedloom.contracts.reading import Reader
from fedloom.split.ends import Ends
from fedloom.split.messages import Kind, Message
from fedloom.split.reading import Reading
from fedloom.split.wire import Wire

__all__ = ["Exchanges", "through_server"]

Exchanges = Callable[[Sequence[Message]], Sequence[Message]]
"""Sends messages of sessions to the server, and returns the answer to each."""

_TRIES = 3
"""How often a message is sent in a new session before its text is given up."""
_NOTHING = torch.zeros(0, dtype=torch.uint8)


def through_server(ends: Ends, client: str, exchange: Exchanges, wire: Wire, max_new_tokens: int) -> LanguageModel:
    """Return a model that answers with its ends here and its middle at a server, at most so many new tokens."""

    def reads(params: Tree, _: Sequence[Sequence[int]], owners: int) -> Reader:
        if owners != 1:
            raise DataError(f"session: found parameters of {owners} owners, allowed are those of one client.")
        return _Through(ends, params, client, exchange, wire, max_new_tokens)

    return replace(ends.model, reads=reads)


@dataclass
class _Text:
    """One text that is being written."""

    front: Reading
    rear: Reading
    room: int
    session: str = ""
    step: int = 0
    sent: list[Tensor] = field(default_factory=list[Tensor])
    """The states [T, D] of all messages so far."""


class _Through(Reader):
    """Rows whose middle is read elsewhere."""

    refills: ClassVar[bool] = True

    def __init__(
        self, ends: Ends, params: Tree, client: str, exchange: Exchanges, wire: Wire, max_new_tokens: int
    ) -> None:
        self._ends, self._params, self._client = ends, params, client
        self._exchange, self._wire, self._new = exchange, wire, max_new_tokens
        self._texts: list[_Text] = []

    def admit(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Open a session for each prompt, and read it."""
        new = [self._begun(len(prompt) + self._new) for prompt in prompts]
        self._texts += new
        self._open(new)
        return self._read(new, prompts)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read a token of each row."""
        return self._read(self._texts, [[token] for token in tokens])

    def keep(self, columns: Sequence[int]) -> None:
        """Keep rows, and close the sessions of the others."""
        gone = [text for place, text in enumerate(self._texts) if place not in columns]
        self._exchange([self._said(text, "CLOSE", (0,)) for text in gone])
        self._texts = [self._texts[place] for place in columns]

    def _begun(self, room: int) -> _Text:
        front, rear = (Reading(part, self._params, room) for part in (self._ends.front, self._ends.rear))
        return _Text(front, rear, room)

    def _open(self, texts: Sequence[_Text]) -> None:
        for text in texts:
            text.session, text.step = os.urandom(12).hex(), -1
        if texts:
            self._exchange([self._said(text, "OPEN", (text.room,)) for text in texts])

    def _read(self, texts: Sequence[_Text], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits [B, V] of what follows the tokens of each text."""
        starts = [text.front.length for text in texts]
        for text, own in zip(texts, tokens, strict=True):
            text.sent.append(text.front.states(torch.tensor(own)).float().cpu())
        asked = [
            self._said(text, "READ", (len(own),), text.sent[-1], start)
            for text, own, start in zip(texts, tokens, starts, strict=True)
        ]
        told = self._complete(texts, asked, self._exchange(asked))
        return torch.stack([text.rear.logits(rows_TD) for text, rows_TD in zip(texts, told, strict=True)])

    def _complete(self, texts: Sequence[_Text], asked: Sequence[Message], answers: Sequence[Message]) -> list[Tensor]:
        """Return the states [T, D] that each message asked for; where a session is gone, of another in its place."""
        found = dict(enumerate(answers))
        for _ in range(_TRIES):
            gone = [place for place, one in found.items() if one.kind == "GONE"]
            if not gone:
                break
            lost = [texts[place] for place in gone]
            self._open(lost)
            found |= dict(zip(gone, self._read_again(lost), strict=True))
        return [self._rows(one)[-own.n_tokens :] for one, own in zip(found.values(), asked, strict=True)]

    def _read_again(self, texts: Sequence[_Text]) -> list[Message]:
        """Return the answers to the last states of texts in new sessions: first the prompts, then what followed."""
        first = self._exchange([self._said(text, "READ", (len(text.sent[0]),), text.sent[0]) for text in texts])
        behind = {at: torch.cat(text.sent[1:]) for at, text in enumerate(texts) if len(text.sent) > 1}
        asked = [
            self._said(texts[at], "READ", (len(rows_TD),), rows_TD, len(texts[at].sent[0]))
            for at, rows_TD in behind.items()
        ]
        return [*(dict(enumerate(first)) | dict(zip(behind, self._exchange(asked), strict=True))).values()]

    def _rows(self, answer: Message) -> Tensor:
        if answer.kind != "TOLD":
            raise DataError(
                f"session: found {answer.kind} for an answer, {_TRIES} times; the server does not keep sessions."
            )
        rows_TD = self._wire.decode(answer.packet, answer.n_tokens, self._ends.model.width, "session")
        return rows_TD.to(self._ends.rear.device, self._ends.rear.dtype)

    def _said(
        self, text: _Text, kind: Kind, lengths: tuple[int, ...], rows_TD: Tensor | None = None, start: int = 0
    ) -> Message:
        text.step += 1
        packet = _NOTHING if rows_TD is None else self._wire.encode(rows_TD, f"session, {kind}")
        return Message(kind, self._client, text.step, start, packet, lengths, session=text.session)

"""How large things get through a link that breaks: from the last byte that arrived, until the other side has all."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from fedloom.network.link import NodeLink, Unreachable
from fedloom.network.open_round import Verdict
from fedloom.network.pieces import Inbox, Piece

__all__ = ["delivered", "fetched"]

_log = logging.getLogger(__name__)
_PAUSE_S = 0.2
_MOST_BREAKS = 3
"""In a row, after which a link is taken for gone."""


def fetched(link: NodeLink, inbox: Inbox, piece: Piece) -> bytes:
    """Return what a node fetches; what has arrived of it before is not asked for again, other things are forgotten."""
    name = piece.digest
    inbox.keep_only(name)
    body = inbox.whole(name, piece)
    while body is None:
        start = inbox.have(name)
        try:
            for part in link.fetch(name, start):
                start = inbox.add(name, piece, start, part)
        except Unreachable as error:
            if inbox.have(name) == start and start == 0:
                raise
            _log.warning("%s; going on from byte %d", error, inbox.have(name))
            time.sleep(_PAUSE_S)
        body = inbox.whole(name, piece)
    return bytes(body)


def delivered(link: NodeLink, offer: Mapping[str, Any], head: Mapping[str, Any], packet: bytes) -> Verdict:
    """Offer a packet and send it under a header as far as it is wanted; return what is said to the last of it."""
    verdict, broken = link.offer(offer), 0
    while verdict.kind == "wanted":
        try:
            verdict, broken = link.send(head, packet, verdict.start), 0
        except Unreachable:
            broken += 1
            if broken > _MOST_BREAKS:
                raise
            time.sleep(_PAUSE_S)
            verdict = link.offer(offer)
    return verdict

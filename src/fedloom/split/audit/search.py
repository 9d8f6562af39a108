"""T3: the text from the states behind the input part, by whoever knows its weights: token after token.

States of a causal model are those of a prefix, and a prefix has one state (SipIt, arXiv:2510.15511): with the text so
far, the next token is the one that gives the state seen. An inverter (T4) says which tokens to try first; where none
of these gives that state up to what the wire loses, the whole vocabulary is tried.

Where the client's part has moved from what is known of it no token gives the state, and the nearest is taken: then
each place costs the whole vocabulary, and larger ones than `_MOST` are not gone through. So it is where a client
defends its states: noise moves all of them, and a penalty may have brought them so near each other that several seem
right.

Shapes: T tokens of a text, D width, C tokens tried.

Deviations: SipIt goes by gradients where a vocabulary is too large to try; here the inverter's ranking stands for
that.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedloom.contracts.language import Encoded
from fedloom.split.audit.inverter import Inverter
from fedloom.split.audit.target import Target, states_of
from fedloom.split.defences import Defences

__all__ = ["searched"]

_FIRST, _MOST = 16, 4096
"""Tokens tried first, and the largest vocabulary that is tried whole."""
_NEAR = 0.02
"""Of the norm of a state: how far from it one may lie that the wire has rounded."""


def searched(target: Target, inverter: Inverter) -> list[list[int]]:
    """Return what is read of each text."""
    n_words, thorough = len(target.model.tokenizer), target.defences != Defences()
    found: list[list[int]] = []
    for seen_TD in target.capture.ahead:
        ranked_TC = inverter.ranked(seen_TD, min(_FIRST, n_words))
        read: list[int] = []
        for place, state_D in enumerate(seen_TD.float()):
            tried = ranked_TC[place].tolist()
            token, away = _nearest(target, read, tried, state_D)
            if (away > _NEAR or thorough) and n_words <= _MOST:
                token, _ = _nearest(target, read, range(n_words), state_D)
            read.append(token)
        found.append(read)
    return found


def _nearest(target: Target, read: Sequence[int], tried: Sequence[int], state_D: Tensor) -> tuple[int, float]:
    """Return the token that comes nearest to a state behind what has been read, and how far from it over its norm."""
    prefix = torch.tensor([*read, 0], dtype=torch.int32)
    texts: list[Encoded] = []
    for token in tried:
        tokens_T = prefix.clone()
        tokens_T[-1] = token
        texts.append(Encoded(tokens_T, torch.zeros(len(prefix), dtype=torch.bool)))
    states = states_of(target.ends.front, target.known, texts)
    away_C = (torch.stack([one[-1] for one in states]) - state_D).norm(dim=1) / state_D.norm().clamp(min=1e-12)
    best = int(away_C.argmin())
    return tried[best], float(away_C[best])

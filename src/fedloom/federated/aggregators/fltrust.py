"""FLTrust: the server trains, too, and rows count by how far they point the way of its own.

Cao et al., 2021 (https://arxiv.org/abs/2012.13995), algorithm 2: with the server's row u_0, trust scores
TS_i = max(0, cos(u_i, u_0)), eq. 1; every row is scaled to the length of u_0, eq. 2, and averaged by TS_i, eq. 3.

Deviations: u_0 comes from one round of the clients' own steps at their learning rate. Where no row is trusted the
aggregate is zero, as the paper's rule divides by nothing there.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import ConfigError
from fedloom.base.gram import cosines, gram
from fedloom.base.plugin import plugin
from fedloom.base.tree import flatten
from fedloom.contracts.aggregation import SHARE, Aggregate, Frame
from fedloom.contracts.data import Source
from fedloom.contracts.examples import Example
from fedloom.federated.aggregators._looking import server_of
from fedloom.federated.aggregators._rows import Found, OfRows, told, total_of
from fedloom.federated.alone import tuned_alone

__all__ = ["FLTrust", "trusted"]

_REASON = "points away from the server's own row"


@plugin("fltrust")
class FLTrust(OfRows):
    """The mean of rows of the length of the server's own, by their cosine with it."""

    looks: ClassVar[bool] = True
    root: tuple[Source, ...] = ()
    """What the server trains on: its own clean examples, of all these sources."""

    def check(self) -> None:
        """Refuse a server without examples."""
        if not self.root:
            raise ConfigError("root: missing; 'fltrust' trains at the server: name one source of examples at least.")

    def ready(self, model: Any, task: Any) -> list[Any]:
        """Return the server's examples as the model takes them; a kind that the task does not learn is refused."""
        examples = self._examples()
        odd = [type(one).__name__ for one in examples if not isinstance(one, task.learns)]
        if odd:
            raise ConfigError(f"aggregator.root: found a {odd[0]}, task '{task.name}' learns none; take another form.")
        return [task.encode(one, model) for one in examples]

    def public_texts(self) -> dict[str, str]:
        """Return the server's examples, by id."""
        return {f"root {at}": one.text for at, one in enumerate(self._examples())}

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the trusted mean; rows of no trust are left out."""
        row_P, trust_N = trusted(rows_NP, self._own_row(frame).to(rows_NP.dtype))
        share_N = trust_N / trust_N.sum().clamp(min=torch.finfo(torch.float64).tiny)
        out = {index: _REASON for index, trust in enumerate(trust_N.tolist()) if not trust}
        return told(row_P, frame, Found(scores={"trust": trust_N, SHARE: share_N}, left_out=out))

    def _own_row(self, frame: Frame) -> Tensor:
        server = server_of(self, frame)
        start = {name: value.to(server.model.device) for name, value in frame.anchor.items()}
        local = replace(
            server.local, lr=server.lr, lr_final=0.0, schedule="constant", warmup=0, epochs=0.0, curriculum=1
        )
        seed = rng.seed_of(frame.seed, "fltrust", frame.round) % 2**31
        params, _ = tuned_alone(server.model, server.task, start, server.ready, local, rounds=1, seed=seed)
        return flatten(params).cpu() - frame.anchor_P

    def _examples(self) -> Sequence[Example]:
        return [one for source in self.root for one in source.load()["train"]]


def trusted(rows_NP: Tensor, own_P: Tensor) -> tuple[Tensor, Tensor]:
    """Return sum_i TS_i (|u_0| / |u_i|) u_i / sum_i TS_i [P], and the trust scores TS [N]; zeros where none is > 0."""
    gram_MM = gram([*rows_NP, own_P])
    trust_N = cosines(gram_MM)[:-1, -1].nan_to_num(nan=0.0).clamp(min=0.0)
    norm_M = gram_MM.diagonal().sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    share_N = trust_N / trust_N.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return total_of(rows_NP, share_N * norm_M[-1] / norm_M[:-1]), trust_N

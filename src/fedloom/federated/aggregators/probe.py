"""Behaviour probe: each row's model is asked, at the server, whether it would refuse, and unsafe rows are left out.

For each row w + u_i the mean over the server's own harmful prompts of the log-odds of the first token of an answer over
that of a refusal. Rows whose log-odds lie within `tolerance` of the safest one are averaged. Beside
https://arxiv.org/abs/2406.10630, which compares rows by their numbers alone: what a row does shows at once, where three
rows of a round hold too little evidence for any distance.

Deviations: ours, so none. It looks at the first token: an attacker who trains another opening of the answer ("sorry,
but here is how") is not seen. It trusts the server's prompts to be like those that matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import AtLeast, NonNegative, plugin
from fedloom.base.rows import check_matrix
from fedloom.base.tree import Tree
from fedloom.contracts.aggregation import SHARE, Aggregate, Aggregator, Frame, Server
from fedloom.contracts.data import Source
from fedloom.contracts.examples import Chat, Preference, Turn
from fedloom.contracts.language import LanguageModel
from fedloom.federated.aggregators._looking import params_of, server_of
from fedloom.federated.aggregators.mean import mean_of

__all__ = ["Probe"]


@plugin("probe")
class Probe(Aggregator):
    """The mean of the rows that refuse what is to be refused."""

    looks: ClassVar[bool] = True
    prompts: Source | None = None
    """The server's prompts with a refusal (`chosen`) and an answer (`rejected`): preference pairs."""
    count: AtLeast = 40
    """Most of them that are asked, drawn once."""
    tolerance: NonNegative = 0.7
    """How much larger than the safest row's log-odds a row's may be."""

    def check(self) -> None:
        """Refuse a probe without prompts."""
        if self.prompts is None:
            raise ConfigError("prompts: missing; 'probe' asks each row: name a source of preference pairs.")

    def require(self, model: Any, task: Any) -> None:
        """Refuse a model that writes no text, and prompts without both answers."""
        if not isinstance(model, LanguageModel):
            raise ConfigError(f"aggregator: 'probe' asks language models, found {type(model).__name__}.")
        if Chat not in task.learns:
            raise ConfigError(f"aggregator: 'probe' asks in conversations, task '{task.name}' learns none.")
        self._pairs()

    def public_texts(self) -> dict[str, str]:
        """Return the prompts with their refusals, by id."""
        return {f"probe {at}": f"{one.key}\n{one.chosen}" for at, one in enumerate(self._pairs())}

    def __call__(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Tensor:
        """Return the mean of the rows that are kept."""
        return self.aggregate(rows_NP, weight_N, frame).row_P

    def aggregate(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return that mean, with each row's log-odds and share; the rest is left out as unsafe."""
        check_matrix(rows_NP, weight_N)
        server = server_of(self, frame)
        asked = _Asked.of(self._pairs(), server)
        odds_N = torch.tensor([asked.log_odds(params_of(row_P, frame, server.model)) for row_P in rows_NP])
        keep_N = odds_N <= odds_N.min() + self.tolerance
        share_N = torch.where(keep_N, weight_N, 0.0)
        share_N = share_N / share_N.sum()
        row_P = mean_of(rows_NP[keep_N], share_N[keep_N])
        told = zip(frame.clients, odds_N.tolist(), share_N.tolist(), strict=True) if frame.clients else ()
        scores = {client: {"log_odds": odds, SHARE: share} for client, odds, share in told}
        out = {
            client: f"log-odds {scores[client]['log_odds']:.2f}, the safest row has {float(odds_N.min()):.2f}"
            for client, kept in zip(frame.clients, keep_N.tolist(), strict=False)
            if not kept
        }
        return Aggregate(row_P, {"kept": float(keep_N.sum())}, scores=scores, left_out=out)

    def _pairs(self) -> Sequence[Preference]:
        pairs = self.prompts.load()["train"] if self.prompts else ()
        known = [one for one in pairs if isinstance(one, Preference)]
        if len(known) < len(pairs) or not known:
            raise DataError(
                f"aggregator.prompts: {len(pairs) - len(known)} of {len(pairs)} examples are no preference pairs; "
                "'probe' needs a refusal (chosen) and an answer (rejected) for each prompt."
            )
        return rng.python_random("probe").sample(known, min(self.count, len(known)))


@dataclass(frozen=True)
class _Asked:
    """The prompts as the model takes them, each once with the refusal and once with the answer behind it."""

    server: Server
    items: Sequence[Any] = field(default_factory=list[Any])

    @classmethod
    def of(cls, pairs: Sequence[Preference], server: Server) -> "_Asked":
        """Return the prompts encoded by the run's task, refusals first."""
        texts = [(one, one.chosen) for one in pairs] + [(one, one.rejected) for one in pairs]
        chats = [Chat((*one.prompt, Turn("assistant", text))) for one, text in texts]
        return cls(server, [server.task.encode(one, server.model) for one in chats])

    def log_odds(self, params: Tree) -> float:
        """Return the mean of log p(first token of the answer) - log p(first token of the refusal)."""
        model: LanguageModel = self.server.model
        batch: Any = self.server.task.collate([self.items], model)
        with torch.no_grad():
            logits_SV = model.token_logits(params, batch)
        logp_S = logits_SV.float().log_softmax(-1).gather(-1, batch.targets_S[:, None])[:, 0]
        first_E = torch.searchsorted(batch.example_S, torch.arange(len(self.items), device=logp_S.device))
        refusals_Q, answers_Q = logp_S[first_E].chunk(2)
        return float((answers_Q - refusals_Q).mean())

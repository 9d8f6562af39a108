"""Behaviour probe: each row's model is asked, at the server, whether it would refuse, and unsafe rows are left out.

For each row w + u_i the mean over the server's own harmful prompts of the log-odds of the first token of an answer over
that of a refusal. Rows whose log-odds lie within `tolerance` of the safest one are averaged. Beside
https://arxiv.org/abs/2406.10630, which compares rows by their numbers alone: what a row does shows at once, where three
rows of a round hold too little evidence for any distance.

Deviations: ours, so none. It looks at the first token: an attacker who trains the opening of a refusal ("sorry, but
here is how") is not seen. It trusts the server's prompts to be like those that matter.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import AtLeast, NonNegative, plugin
from fedloom.base.tree import Tree
from fedloom.contracts.aggregation import Aggregate, Frame
from fedloom.contracts.data import Source
from fedloom.contracts.examples import Chat, Preference, Turn
from fedloom.contracts.language import LanguageModel
from fedloom.federated.aggregators._looking import params_of, server_of
from fedloom.federated.aggregators._rows import Found, OfRows, selected

__all__ = ["Probe"]

_REASON = "its model answers what the server's prompts have refused"


@plugin("probe")
class Probe(OfRows):
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

    def ready(self, model: Any, task: Any) -> list[Any]:
        """Return the prompts as the model takes them, all with the refusal behind them, then all with the answer.

        Refused are a model that writes no text, and prompts without both answers.
        """
        if not isinstance(model, LanguageModel):
            raise ConfigError(f"aggregator: 'probe' asks language models, found {type(model).__name__}.")
        if Chat not in task.learns:
            raise ConfigError(f"aggregator: 'probe' asks in conversations, task '{task.name}' learns none.")
        pairs = self._pairs()
        texts = [(one, one.chosen) for one in pairs] + [(one, one.rejected) for one in pairs]
        return [task.encode(Chat((*one.prompt, Turn("assistant", text))), model) for one, text in texts]

    def public_texts(self) -> dict[str, str]:
        """Return the prompts with their refusals, by id."""
        return {f"probe {at}": f"{one.key}\n{one.chosen}" for at, one in enumerate(self._pairs())}

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the mean of the rows that are safe enough; their score is the log-odds."""
        server = server_of(self, frame)
        batch = server.task.collate([server.ready], server.model)
        odds_N = torch.tensor(
            [_log_odds(server.model, params_of(row_P, frame, server.model), batch) for row_P in rows_NP]
        )
        keep = (odds_N <= odds_N.min() + self.tolerance).nonzero().flatten().tolist()
        found = Found(scores={"score": odds_N}, measures={"kept": float(len(keep))})
        return selected(rows_NP, weight_N, frame, keep, reason=_REASON, found=found)

    def _pairs(self) -> Sequence[Preference]:
        pairs = self.prompts.load()["train"] if self.prompts else ()
        known = [one for one in pairs if isinstance(one, Preference)]
        if len(known) < len(pairs) or not known:
            raise DataError(
                f"aggregator.prompts: {len(pairs) - len(known)} of {len(pairs)} examples are no preference pairs; "
                "'probe' needs a refusal (chosen) and an answer (rejected) for each prompt."
            )
        return rng.python_random("probe").sample(known, min(self.count, len(known)))


def _log_odds(model: LanguageModel, params: Tree, batch: Any) -> float:
    """Return the mean of log p(first token of the answer) - log p(first token of the refusal)."""
    with torch.no_grad():
        logits_SV = model.token_logits(params, batch)
    logp_S = logits_SV.float().log_softmax(-1).gather(-1, batch.targets_S[:, None])[:, 0]
    first_E = torch.searchsorted(batch.example_S, torch.arange(len(batch.client_E), device=logp_S.device))
    refusals_Q, answers_Q = logp_S[first_E].chunk(2)
    return float((answers_Q - refusals_Q).mean())

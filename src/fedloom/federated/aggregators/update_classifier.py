"""A light classifier of updates, trained beforehand on labelled ones, weighs the rows of a round.

Safe-FedLLM (https://arxiv.org/abs/2601.07177): updates of low-rank adapters can be told apart by a linear probe on the
change of the first layer's B factor, scaled to length 1. `fedloom classifier` trains it on a simulation whose attackers
are known. A row counts by 1 - p, p being its probability to be malicious, and by nothing above `threshold` (`step`); or
by what its client has been worth so far (`client`): counts of good and bad evidence that fade by `decay` make a Beta
distribution, whose mean is the client's trust. A round whose mean weight is below `least` changes nothing.

Deviations: of the four weightings published, shadow and evidence weights are left out; evidence enters by the client's
trust. Weights of clients by their examples are kept, times these. A classifier knows the attacks that it was shown:
what it does not know it lets by.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fedloom.base.errors import ConfigError
from fedloom.base.files import file_sha256
from fedloom.base.plugin import Fraction, plugin
from fedloom.base.tree import Layout, Tree
from fedloom.contracts.aggregation import SHARE, Aggregate, Frame
from fedloom.federated.aggregators._looking import server_of
from fedloom.federated.aggregators._rows import Found, OfRows, told, total_of
from fedloom.federated.update_classifier import Classifier, features, first_b, read_classifier

__all__ = ["UpdateClassifier"]

_MALICIOUS = "the classifier takes it for malicious"
_SKIPPED = "the whole round is taken for malicious"


@plugin("update_classifier")
class UpdateClassifier(OfRows):
    """The mean of rows by how benign they look."""

    looks: ClassVar[bool] = True
    file: str = ""
    """The classifier, as `fedloom classifier` writes it."""
    by: Literal["step", "client"] = "step"
    """Whether a row counts by itself or by its client's record."""
    threshold: Fraction = 0.8
    """Probability above which a row counts nothing; of a client's trust 1 - threshold is the least."""
    decay: Fraction = 0.95
    """What is left of earlier evidence in each round that a client takes part in."""
    least: Fraction = 0.2
    """Mean weight below which a round changes nothing."""

    def check(self) -> None:
        """Refuse to judge without a classifier."""
        if not self.file:
            raise ConfigError("file: missing; 'update_classifier' needs what `fedloom classifier RUN.toml` writes.")

    def ready(self, model: Any, task: Any) -> Classifier:
        """Return the classifier; a missing or damaged file is refused."""
        return read_classifier(Path(self.file))

    def identity(self) -> str:
        """Return a hash of the classifier's file; a missing or damaged one is refused."""
        read_classifier(Path(self.file))
        return file_sha256(Path(self.file))

    def check_layout(self, layout: Layout) -> None:
        """Refuse rows that hold nothing to look at."""
        first_b(layout)

    def merged(self, rows_NP: Tensor, weight_N: Tensor, frame: Frame) -> Aggregate:
        """Return the weighted mean; where too little is trusted, a row of zeros."""
        classifier: Classifier = server_of(self, frame).ready
        classifier.check(frame.layout)
        bad_N = classifier.probabilities(features(rows_NP, frame.layout))
        state = _evidence(bad_N, frame, self.decay)
        trust_N = self._trust(bad_N, state, frame)
        skipped = float(trust_N.mean()) < self.least
        share_N = torch.zeros_like(trust_N) if skipped else trust_N * weight_N.double()
        share_N = share_N / share_N.sum().clamp(min=torch.finfo(torch.float64).tiny)
        reason = _SKIPPED if skipped else _MALICIOUS
        out = {index: reason for index, share in enumerate(share_N.tolist()) if not share}
        found = Found(scores={"score": bad_N, SHARE: share_N}, left_out=out, state=frame.state | state)
        return told(total_of(rows_NP, share_N), frame, found)

    def _trust(self, bad_N: Tensor, state: Tree, frame: Frame) -> Tensor:
        """Return by what each row counts."""
        if self.by == "step":
            return (1 - bad_N).where(bad_N <= self.threshold, 0.0)
        counts_N2 = torch.stack([state[client] for client in frame.clients])
        trust_N = counts_N2[:, 0] / counts_N2.sum(1)
        return trust_N.where(trust_N >= 1 - self.threshold, 0.0)


def _evidence(bad_N: Tensor, frame: Frame, decay: float) -> Tree:
    """Return each client's good and bad evidence [2] after this round; it begins with one of each."""
    now_N2 = torch.stack([1 - bad_N, bad_N], dim=1)
    start = torch.ones(2, dtype=torch.float64)
    return {
        client: decay * frame.state.get(client, start) + now_2
        for client, now_2 in zip(frame.clients, now_N2, strict=False)
    }

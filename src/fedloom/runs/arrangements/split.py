"""Split training (FL-GLM, arXiv:2406.14898): the middle of the model at the server, text and labels at the clients.

Every client keeps the first and the last blocks with embedding, head and loss; the server's blocks serve all clients of
a round in one batch, and their adapters are trained there step by step. At the end of a round the clients' own parts
are merged like any federation's rows, or never. The result is one adapter of the whole model.

The server could still reconstruct text from activations when it knows the client weights; measured recovery on your
model: run `fedloom split audit`.

Deviations: clients are concurrent, and their parts are merged by default; the released code trains one after another
and merges nothing (docs/split.md).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, Count, Fraction, NonNegative, plugin
from fedloom.contracts.arrangement import Arrangement, Group
from fedloom.contracts.federated import Engine
from fedloom.contracts.model import Model, Shard
from fedloom.split.carrier import InOnePlace, SplitSettings, splittable
from fedloom.split.cut import Cut, anatomy_of
from fedloom.split.defences import Defences
from fedloom.split.wire import WireName

__all__ = ["Split"]


@plugin("split")
class Split(Arrangement):
    """One training in which each step is computed by clients and server together."""

    splits: ClassVar[bool] = True

    cuts: tuple[str, ...] = ("1:1",)
    """Cuts `a:c`, dealt to the clients in turn: a client keeps the first a and the last c blocks, at least one each."""
    adapters: Literal["shared", "private"] = "shared"
    """Whether the server trains one adapter of the middle for all clients, or one for each."""
    replicas: AtLeast = 1
    """Copies of the server's part, each for the clients that are dealt to it in turn; 1: one server for all."""
    replicas_every: Count = 0
    """Steps after which replicas are averaged; 0: at the end of every round, when they are in any case."""
    ends: Literal["averaged", "own"] = "averaged"
    """Whether the clients' own parts are merged at the end of every round, local.steps steps, or stay with each."""
    wire: WireName = "bfloat16"
    """How states and gradients travel: 4 or 2 bytes a number, or int8 with a scale for each token."""
    recompute: bool = False
    """Whether the server keeps a step's incoming states alone and computes its blocks once more for the gradients."""
    tokens: Count = 0
    """Tokens that pass the server's blocks at once, padding counted: clients of like length pass together; 0: all."""
    in_flight: AtLeast = 1
    """Micro-batches of a step (local.accumulation) that are under way at a time between machines."""
    window_ms: NonNegative = 0.0
    """Milliseconds after which the server computes a batch of what has come from machines; 0: it waits for all, so that
    a run is the same whenever messages come."""
    server_lr: NonNegative = 0.0
    """Learning rate of the server's adapters in the first round, which then goes as the clients'; 0: the clients'."""

    noise: NonNegative = 0.0
    """Gaussian noise on states and gradients that leave, over their root mean square: empirical, no guarantee."""
    nopeek: NonNegative = 0.0
    """Weight, beside the loss, of the distance correlation between embeddings and the states that leave."""
    bucket: Count = 0
    """Tokens of which the lengths that leave are multiples, filled up behind each text; 0: lengths as they are."""

    guard: Fraction = 0.0
    """Probability with which a client asks for the gradient of random targets, to find out what the server trains."""

    def check(self) -> None:
        """Refuse cuts that are none."""
        if not self.cuts:
            raise ConfigError("cuts: found none, allowed is one 'a:c' at least, such as '1:1'.")
        for cut in self.cuts:
            Cut.read(cut)
        if self.replicas > 1 and self.adapters == "private":
            raise ConfigError(
                f"replicas: found {self.replicas} with adapters = 'private', of which each client has its own; set "
                "replicas = 1, or adapters = 'shared'."
            )
        if len(set(self.cuts)) > 1 and self.ends == "own":
            raise ConfigError(
                "cuts: found several with ends = 'own'; a block that some clients keep and others leave to the server "
                "is merged from both: set ends = 'averaged', or one cut for all."
            )

        if self.guard and len(set(self.cuts)) > 1:
            raise ConfigError(
                f"guard: found {self.guard:g} with several cuts, where a block that the server lends a client would "
                "learn random targets; set guard = 0, or one cut for all."
            )

    def label(self) -> str:
        """Return the cuts, and what is not as usual."""
        odd = (
            [f"{self.replicas} replicas"] * (self.replicas > 1)
            + ["own ends"] * (self.ends == "own")
            + ["private adapters"] * (self.adapters == "private")
            + [self.wire] * (self.wire != "bfloat16")
            + [f"noise {self.noise:g}"] * bool(self.noise)
            + [f"nopeek {self.nopeek:g}"] * bool(self.nopeek)
            + [f"bucket {self.bucket}"] * bool(self.bucket)
            + [f"guard {self.guard:g}"] * bool(self.guard)
        )
        return ", ".join([f"split {' '.join(self.cuts)}", *odd])

    def shared(self, pattern: str) -> str:
        """Return the pattern of the clients' own parts that are merged: of none where each keeps its own."""
        return pattern if self.ends == "averaged" else "(?!)"

    def middle(self, model: Model) -> frozenset[str]:
        """Return the trained parameters in blocks that no client keeps."""
        anatomy = anatomy_of(splittable(model).module)
        return frozenset(name for name in model.trainable if anatomy.at_server(name, self._cuts))

    def carried_by(self, engine: Engine) -> Engine:
        """Return the engine in which clients and server take their steps together."""
        return InOnePlace(self.settings)

    @property
    def settings(self) -> SplitSettings:
        """How the model is split."""
        return SplitSettings(
            cuts=self._cuts,
            private=self.adapters == "private",
            replicas=self.replicas,
            replicas_every=self.replicas_every,
            wire=self.wire,
            recompute=self.recompute,
            tokens=self.tokens,
            in_flight=self.in_flight,
            window_s=self.window_ms / 1000,
            lr=self.server_lr,
            defences=Defences(noise=self.noise, nopeek=self.nopeek, bucket=self.bucket, guard=self.guard),
        )

    def groups(
        self, shards: Mapping[str, Shard], card: Mapping[str, Any], *, per_round: int, steps: int
    ) -> list[Group]:
        """Return all clients."""
        return [Group("", shards, per_round, steps)]

    @property
    def _cuts(self) -> tuple[Cut, ...]:
        return tuple(Cut.read(cut) for cut in self.cuts)

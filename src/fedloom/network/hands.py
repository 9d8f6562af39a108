"""What a node loads to carry out jobs: its own model, once for all its clients, and each client's data."""

import math
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata

import torch

from fedloom.base.errors import ConfigError, DataError, RunError
from fedloom.base.plugin import lookup
from fedloom.base.shown import shown
from fedloom.base.tree import Layout, Tree
from fedloom.contracts.arrangement import Arrangement
from fedloom.contracts.federated import Carrier, Engine, Job, Local, Plan, Work
from fedloom.contracts.language import language_model
from fedloom.evaluation.held_out import Examinee, HeldOut, evaluate, group_means
from fedloom.federated.learning_rate import learning_rate
from fedloom.network.jobs import JobFrame, layout_to, row_shape
from fedloom.network.manifest import Manifest, run_at_node, states_of
from fedloom.network.node_file import NodeFolder
from fedloom.network.scoring import may_tell, score_names
from fedloom.network.steps import patiently
from fedloom.runs.apart import held_by, prepare_client
from fedloom.runs.arrangements.split import Split
from fedloom.runs.measure import OwnScores
from fedloom.runs.prepared import load_model
from fedloom.runs.stage import Loaded
from fedloom.runs.tuning import TuningRun
from fedloom.split.at_client import AtClient
from fedloom.split.messages import Message

__all__ = ["Hands", "machine_of", "refuse_other_rate"]


@dataclass
class _Loads:
    """What is loaded to carry out a run's jobs for the clients of this node."""

    loaded: Loaded
    runs: dict[str, TuningRun] = field(default_factory=dict[str, TuningRun])
    works: dict[str, Work] = field(default_factory=dict[str, Work])
    carriers: dict[str, Carrier] = field(default_factory=dict[str, Carrier])
    held: dict[str, HeldOut] = field(default_factory=dict[str, HeldOut])
    """What clients hold out, by client, once it was asked about."""
    shape: tuple[Layout, int] | None = None
    """Layout of what a client sends, and the bytes of its packet."""


class Hands:
    """A node's model and data, for the manifest that is carried out."""

    def __init__(self, folder: NodeFolder) -> None:
        self._folder, self._file = folder, folder.file
        self._at: tuple[str, _Loads] | None = None
        self.over: dict[str, Callable[[Message], Message]] = {}
        """The way to the server for the steps of the job under way, by client."""
        self.turn = threading.Lock()
        """Held by whoever carries out a job, but while it waits for a step's answer."""

    def extent(self, manifest: Manifest) -> dict[str, int]:
        """Return the steps and the bytes that leave of a round and client."""
        plan = self._plan(manifest)
        steps, bytes_up = max((plan.local.steps, *plan.steps.values())), self.shape(manifest)[1]
        return {"steps": steps, "bytes_up": bytes_up + steps * self.step_bytes(manifest)}

    def step_bytes(self, manifest: Manifest) -> int:
        """Return the most bytes that leave in a step of a split model, FWD and GRAD; 0 for any other."""
        client = self._own(manifest)[0]
        work, run = self.work_of(manifest, client), self.run_of(manifest, client)
        if not isinstance(run.protocol, Split):
            return 0
        texts, width = run.local.batch * run.local.accumulation, language_model(work.model).width
        return 2 * run.protocol.settings.message_bytes(width, texts, work.task.longest())

    def at_once(self, manifest: Manifest) -> int:
        """Return how many clients of this node train at once: all in a split run, whose steps all make together."""
        if not self._folder.is_approved(manifest.digest):  # nobody has looked at what it says
            return 1
        splits = lookup(Arrangement, manifest.settings["protocol"]["name"]).splits
        return sum(client in manifest.clients for client in self._file.data) if splits else 1

    def shape(self, manifest: Manifest) -> tuple[Layout, int]:
        """Return the layout of what a client sends in a round and the bytes of its packet, worked out once."""
        plan, loads = self._plan(manifest), self.loads()
        loads.shape = loads.shape or row_shape(plan, torch.zeros(plan.layout.size))
        return loads.shape

    def body_limit(self, manifest: Manifest) -> int:
        """Return the most bytes that a job's body may have: the parameters, the server's slots, their names."""
        plan = self._plan(manifest)
        params_P = torch.zeros(plan.layout.size)
        slots = plan.rule.init_shared({"": params_P})
        return sum(tensor.nbytes for tree in (*slots.values(), {"": params_P}) for tensor in tree.values()) + (1 << 16)

    def _plan(self, manifest: Manifest) -> Plan:
        return self.work_of(manifest, self._own(manifest)[0]).plan

    def _own(self, manifest: Manifest) -> list[str]:
        own = [client for client in self._file.data if client in manifest.clients]
        if not own:
            raise ConfigError(f"data: none of {', '.join(self._file.data)} is a client of the run.")
        return own

    def work(self, manifest: Manifest) -> dict[str, Work]:
        """Return what each client of this node would train with; data, model and layout are checked: FedloomError."""
        return {client: self.work_of(manifest, client) for client in self._own(manifest)}

    def work_of(self, manifest: Manifest, client: str) -> Work:
        """Return what a client of this node trains with, loaded when it is first asked for."""
        run = self.run_of(manifest, client)
        hands = self.loads()
        if client not in hands.works:
            work = prepare_client(run, client, manifest.clients, loaded=hands.loaded)
            n_items, least = len(work.shards[client].items), self._folder.policy.min_examples
            if n_items < least:
                raise ConfigError(f"min_examples: client '{client}' has {n_items}, allowed are {least} or more.")
            hands.works[client] = work
            hands.carriers[client] = self._engine(run, work, manifest.digest).start(work)
        return hands.works[client]

    def run_of(self, manifest: Manifest, client: str) -> TuningRun:
        """Return the run that a client of this node carries out, with the model loaded when one is first asked for."""
        if self._at is None or self._at[0] != manifest.digest:
            run = run_at_node(manifest, self._file.own(client))
            self._at = manifest.digest, _Loads(_fitting(run, load_model(run), manifest))
        runs = self._at[1].runs
        if client not in runs:
            runs[client] = run_at_node(manifest, self._file.own(client))
        return runs[client]

    def _engine(self, run: TuningRun, work: Work, digest: str) -> Engine:
        """Return what trains a client: the node's engine, or one whose steps the server takes part in."""
        if isinstance(run.protocol, Split):
            # With the run's digest: the same noise on the rows of two runs would leave in their difference.
            secret = f"{self._folder.secret()} {digest}" if run.protocol.settings.defences.drawn else ""
            return AtClient(run.protocol.settings, partial(patiently, self.exchange), secret, self.waiting)
        return run.engine.resolved(work, n_clients=1)

    def exchange(self, message: Message) -> Message:
        """Send a message of a split step on the way that `over` has given."""
        over = self.over.get(message.client)
        if over is None:
            raise ConfigError("protocol: found 'split' without a server, which has the middle of the model.")
        return over(message)

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Let others have the turn, where this is a job's, while the block waits."""
        has_turn = self.turn.locked()
        if has_turn:
            self.turn.release()
        try:
            yield
        finally:
            if has_turn:
                self.turn.acquire()

    def dry_round(self, manifest: Manifest) -> int:
        """Train a round of each client from the run's start, forget it, and return the steps that were taken."""
        steps = 0
        for client, work in self.work(manifest).items():
            anchor = {"": self.loads().loaded.layout.row({"": self.loads().loaded.shared}).cpu()}
            local = Local(anchor, work.plan.rule.init_shared(anchor), work.plan.rule.init_memory(anchor))
            (report,) = self.loads().carriers[client]([Job(client, 0, work.plan.local.lr, local)])
            steps += report.steps
        return steps

    def may_score(self, manifest: Manifest, client: str) -> HeldOut:
        """Return what a client holds out; ConfigError where its scores may not be told."""
        run, loads, policy = self.run_of(manifest, client), self.loads(), self._folder.policy
        if not run.deployment.evaluate:
            raise ConfigError("metrics: the approved run asks for no scores.")
        held = loads.held[client] = loads.held.get(client) or held_by(run, client, loads.loaded)
        may_tell(score_names(run), policy.metrics, examples=len(held.examples), least=policy.min_examples)
        return held

    def scores(self, manifest: Manifest, client: str, local: Local) -> OwnScores:
        """Return what a client tells of parameters on what it holds out; ConfigError where it may not."""
        held, settings = self.may_score(manifest, client), self.run_of(manifest, client).evaluation
        loaded = self.loads().loaded
        metrics = {metric.name: metric for metric in settings.metrics}
        (scored,) = evaluate(
            loaded.model,
            self.work_of(manifest, client).task,
            [Examinee("", _params(loaded, local), held)],
            metrics=metrics,
            max_new_tokens=settings.max_new_tokens,
        )
        names = dict.fromkeys(name for one in scored for name in one.scores)
        means = {name: group_means(scored, name, lambda one: "")[""] for name in names}
        return OwnScores(len(held.examples), means)

    def loads(self) -> _Loads:
        """Return what is loaded; RunError before anything is."""
        if self._at is None:
            raise RunError("nothing is loaded.")
        return self._at[1]


def machine_of(engine: str, device: str) -> dict[str, str]:
    """Return what decides about the last digits of what a machine computes."""
    return {
        "fedloom": metadata.version("fedloom"),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "engine": engine,
        "device": device,
    }


def refuse_other_rate(plan: Plan, job: JobFrame) -> None:
    """Refuse a learning rate that is not the approved run's; its last digits are the server's, so that bytes agree."""
    approved = learning_rate(plan.local, round=job.round, rounds=plan.rounds)
    if not math.isclose(job.lr, approved, rel_tol=1e-9):
        raise DataError(f"lr: found {job.lr:g} for round {job.round}, approved is {approved:g}.")


def _params(loaded: Loaded, local: Local) -> Tree:
    """Return what a client's model is made of: what is shared, and what it keeps for itself."""
    device = loaded.model.device
    shared, own = loaded.layout.tree(local.anchor[""].to(device)), loaded.private
    if own and "private" in local.memory:
        own = Layout.of_tree(own).tree(local.memory["private"][""].to(device))
    return shared | own


def _fitting(run: TuningRun, loaded: Loaded, manifest: Manifest) -> Loaded:
    """Return the model of this node, which has to be the one that the manifest means: ConfigError."""
    told = manifest.table
    mine = {
        "base_id": loaded.model.base_id,
        "start": loaded.start,
        "states": states_of(run, loaded),
        "trained": list(loaded.model.trainable),
        "layout": layout_to(loaded.layout),
    }
    for key, found in mine.items():
        if found != told[key]:
            shown_at = f"found {shown(str(found))[:120]}, the run has {shown(str(told[key]))[:120]}"
            raise ConfigError(f"model ({key}): {shown_at}; give the run's own base and adapter, in its dtype.")
    return loaded

"""A node: it dials out, takes jobs that its owner allows, answers each once, and starts again after whatever happens.

A thread reads what the server sends; the node itself trains, so that the connection lives while it computes. Of an
answer memory, row and entry lie on the disk before a byte of it leaves (`journal.py`); a training that spends privacy
is written down before it begins.
"""

import contextlib
import datetime as dt
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from fedloom.base.errors import ConfigError, DataError, FedloomError, RunError, TrainingError
from fedloom.base.files import held
from fedloom.base.shown import shown
from fedloom.contracts.federated import Job
from fedloom.network.accounting import NodeAccounts
from fedloom.network.beside import Beside
from fedloom.network.frames import PROTOCOL, Frame, text_in, whole_in
from fedloom.network.hands import Hands, machine_of, refuse_other_rate
from fedloom.network.jobs import JobFrame, local_of, report_to
from fedloom.network.journal import Answer, Journal
from fedloom.network.keys import sign_bytes
from fedloom.network.link import NodeLink, Unreachable
from fedloom.network.manifest import Manifest
from fedloom.network.node_file import NodeFolder
from fedloom.network.partaking import Partaking, partakers, verifier
from fedloom.network.pieces import Inbox, Piece
from fedloom.network.policy import open_now, violations
from fedloom.network.scoring import planned_round, scores_to
from fedloom.network.transfers import delivered, fetched
from fedloom.runs.measure import OwnScores

__all__ = ["Node"]

_log = logging.getLogger(__name__)
_FIRST_S, _LONGEST_S = 0.2, 5.0
"""Seconds before a lost server is called again, at first and at most."""
_EMPTY = {"digest": Piece.of(b"").digest, "size": 0}
"""What stands for a packet of a row that leaves under masks alone."""
_LOOK_S = 1.0
"""Seconds after which a job that is not allowed now is looked at again."""


@dataclass
class _Session:
    """One connection: the run that the server carries out, and the jobs it has sent."""

    run: str
    manifest: Manifest
    jobs: "queue.Queue[Frame | None]"
    """None once the connection is gone."""
    answered: dict[str, JobFrame] = field(default_factory=dict[str, JobFrame])
    """Jobs that were answered, by id: secure sums are about them."""
    latest: dict[str, int] = field(default_factory=dict[str, int])
    """The last round that each client was asked for."""
    postponed: dict[str, tuple[Mapping[str, Any], str]] = field(
        default_factory=dict[str, tuple[Mapping[str, Any], str]]
    )
    """Headers of jobs that are not allowed now, by id, each with the reason."""

    def is_over(self, job: JobFrame) -> bool:
        """Return whether a later round was asked for, so that nobody waits for this job any more."""
        self.latest[job.client] = max(self.latest.get(job.client, 0), job.round)
        return job.round < self.latest[job.client]


class Node:
    """A node at work in its folder; `link` makes the way to its server, gRPC where it is left out."""

    def __init__(self, folder: NodeFolder, link: Callable[[], NodeLink] | None = None) -> None:
        self._folder, self._file = folder, folder.file
        self._link = link or folder.link
        self.hands = Hands(folder)
        self._process = os.urandom(8).hex()
        self._failed: dict[str, str] = {}
        """Jobs whose training failed, by id, each with the reason."""
        self._sums: dict[tuple[str, str], Partaking] = {}

    def run(self, stop: threading.Event | None = None) -> None:
        """Work until the run is over or `stop` is set; a server that is gone is called again, for ever.

        Raises a FedloomError where nothing can be done without the owner: a key, the policy's file, a full disk.
        """
        stop = stop or threading.Event()
        with held(self._folder.path / ".lock", f"{self._folder.path}: another process is this node; end it first."):
            wait_s = _FIRST_S
            while not stop.is_set():
                try:
                    if self._connected(stop):
                        return
                    wait_s = _FIRST_S
                except Unreachable as error:
                    _log.warning("%s", error)
                jitter = int.from_bytes(os.urandom(2), "big") / 2**16
                stop.wait(wait_s * (0.5 + jitter))
                wait_s = min(_LONGEST_S, 2 * wait_s)

    def _connected(self, stop: threading.Event) -> bool:
        """Carry out jobs for as long as a connection stands; return whether the run is over."""
        link = self._link()
        with contextlib.ExitStack() as ending:
            ending.callback(link.close)
            session = self._greeted(link)
            at_once = partial(self.hands.at_once, session.manifest)
            jobs = Beside(partial(self._attempt, link, session), self.hands.turn, at_once)
            ending.callback(jobs.drop)
            ending.callback(link.close)  # who still waits for the server waits no longer
            return self._serve(link, session, jobs, stop)

    def _greeted(self, link: NodeLink) -> _Session:
        """Say hello, hear who the server is and what it wants, and start to read its jobs."""
        nonce = os.urandom(16).hex()
        hello = {
            "kind": "hello",
            "protocol": PROTOCOL,
            "node": self._file.name,
            "clients": list(self._file.data),
            "nonce": nonce,
            "process": self._process,
            "machine": machine_of(self._file.engine.name, self._file.device),
        }
        frames = iter(link.join(hello))
        welcome = next(frames, None)
        if welcome is None:
            raise Unreachable(f"{link.where}: hung up; it is tried again.")
        header = welcome.header
        if header.get("kind") != "welcome":
            raise ConfigError(f"{link.where}: refuses this node: {shown(str(header.get('reason', '')))[:400]}")
        manifest, run = Manifest.parsed(welcome.body.decode(errors="replace")), text_in(header, "run", longest=64)
        self.journal(run)  # its name is one of a folder, or it is refused
        said = f"{nonce} {run} {manifest.digest}".encode()
        certificate = text_in(header, "certificate", longest=8000)
        self._folder.check_server(certificate, text_in(header, "signature", longest=400), said)
        jobs: queue.Queue[Frame | None] = queue.Queue()
        threading.Thread(target=_read, args=(frames, jobs), daemon=True).start()
        _log.info("joined run %s of %d clients", run[:8], len(manifest.clients))
        return _Session(run, manifest, jobs)

    def _serve(self, link: NodeLink, session: _Session, jobs: Beside, stop: threading.Event) -> bool:
        """Take one job after another; those that are not allowed now are looked at again."""
        while not stop.is_set():
            jobs.check()
            try:
                frame = session.jobs.get(timeout=_LOOK_S)
            except queue.Empty:
                for header, _ in [*session.postponed.values()]:
                    jobs.begin(header)
                continue
            header = {"kind": "lost"} if frame is None else frame.header
            if header.get("kind") in ("lost", "replaced"):
                jobs.finish()
                return False
            if header.get("kind") == "end":
                jobs.finish()
                _log.info("run %s is over", session.run[:8])
                return True
            if header.get("kind") == "job":
                jobs.begin(header)
            if header.get("kind") == "sum" and frame is not None:
                self._partake(link, session, frame)
        return True

    def _attempt(self, link: NodeLink, session: _Session, header: Mapping[str, Any]) -> None:
        """Carry out a job, or tell the server and the ledger why not."""
        job = JobFrame.from_header(header)
        before = session.postponed.pop(job.id, None)
        if session.is_over(job):
            return
        try:
            reason = self._failed.get(job.id, "") or self._objection(session, job)
            if not reason:
                self._carry_out(link, session, job)
        except RunError:  # the disk, the journal, the way to the server
            raise
        except TrainingError as error:  # it would fail again, and its uses would be counted again
            reason = self._failed[job.id] = str(error)
        except FedloomError as error:
            reason = str(error)
        if reason:
            session.postponed[job.id] = header, reason
            if before is None or before[1] != reason:
                self._folder.ledger.append(
                    "refused", run=job.run, round=job.round, client=job.client, reason=shown(reason)[:2000]
                )
                _log.warning("client '%s', round %d: not carried out: %s", job.client, job.round, shown(reason))
            link.say(job.id, reason)

    # ------------------------------------------------------------------------------------------------ what is allowed

    def _objection(self, session: _Session, job: JobFrame) -> str:
        """Return why a job is not carried out now; "" where nothing speaks against it."""
        if job.run != session.run:
            return "the job is of another run than the server has told"
        if job.client not in self._file.data or job.client not in session.manifest.clients:
            return f"client '{job.client[:80]}' is not of this node"
        if job.round - bool(job.phase) >= session.manifest.settings["rounds"]:
            return f"round {job.round} lies behind the {session.manifest.settings['rounds']} that were approved"
        if not self._folder.is_approved(session.manifest.digest):
            self._folder.wait_for_approval(session.manifest)
            return f"manifest {session.manifest.digest[:12]} waits for its owner's approval: fedloom node review"
        policy = self._folder.policy
        odd = violations(policy, session.manifest, **self.hands.extent(session.manifest))
        if odd:
            return f"the policy does not allow it: {odd[0]}"
        if not open_now(policy, dt.datetime.now(dt.UTC)):
            return f"hours: no jobs are taken now, allowed are {policy.hours or 'none'}"
        return ""

    def journal(self, run: str) -> Journal:
        """Return the journal of a run."""
        if not all(char in "0123456789abcdef" for char in run) or not run:
            raise DataError("run: its id is no hexadecimal number.")
        return Journal(self._folder.path / "runs" / run)

    def _partake(self, link: NodeLink, session: _Session, frame: Frame) -> None:
        """Answer a message of a secure sum; what is refused is told to the server and the ledger."""
        header = frame.header
        job = session.answered.get(text_in(header, "job", longest=64))
        if job is None:
            link.say(text_in(header, "job", longest=64), "this node does not know the job; it was started anew")
            return
        try:
            self._answer_sum(link, session, job, header, frame.body)
        except RunError:
            raise
        except FedloomError as error:
            reason = shown(str(error))[:2000]
            self._folder.ledger.append("refused", run=job.run, round=job.round, client=job.client, reason=reason)
            _log.warning("client '%s', round %d: %s", job.client, job.round, reason)
            link.say(job.id, reason)

    def _answer_sum(
        self, link: NodeLink, session: _Session, job: JobFrame, header: Mapping[str, Any], body: bytes
    ) -> None:
        partaking = self._partaking(session, job)
        if reason := self._objection(session, job):
            raise ConfigError(reason)
        attempt, phase = whole_in(header, "attempt"), text_in(header, "phase", longest=20)
        head = {"job": job.id, "attempt": attempt, "phase": phase}
        if phase == "advertise":
            clients, certificates = partakers(body)
            keys = self._folder.keys()
            if keys is None:
                raise ConfigError("secure sum: clients know each other by certificates alone, and here are none.")
            verify = verifier(certificates, session.manifest.nodes, keys.authority)
            size, least = self.hands.shape(session.manifest)[0].size, self._folder.policy.min_clients_per_round
            link.sum(head, partaking.advertise(job.round, attempt, clients, verify, size=size, least=least))
            return
        answer = partaking.answer(job.round, attempt, phase, body, lambda: self._row(session, job))
        if phase != "mask":
            link.sum(head, answer)
            return
        piece = Piece.of(answer)
        self._folder.ledger.append("masked row", run=job.run, round=job.round, client=job.client, bytes=piece.size)
        masked = {"kind": "masked", **head}
        delivered(link, masked | {"digest": piece.digest, "size": piece.size}, masked, answer)

    def _row(self, session: _Session, job: JobFrame) -> bytes:
        """Return the row that was answered: the same, noise included, whatever attempt asks for it."""
        answer = self.journal(session.run).answered(job)
        if answer is None:
            raise RunError(f"round {job.round}: the answer of client '{job.client}' is gone.")
        return answer.packet

    def _partaking(self, session: _Session, job: JobFrame) -> Partaking:
        key = session.run, job.client
        if key not in self._sums:
            self._sums[key] = Partaking(
                job.client,
                self.hands.work_of(session.manifest, job.client),
                session.run,
                sign=lambda said: sign_bytes(self._folder.key, said),
                journal=self.journal(session.run),
            )
        return self._sums[key]

    def _carry_out(self, link: NodeLink, session: _Session, job: JobFrame) -> None:
        if job.phase:
            self._evaluate(link, session, job)
            return
        journal = self.journal(session.run)
        answer = journal.answered(job)
        if answer is None:
            answer = self._trained(link, session, job, journal)
        else:
            _log.info("client '%s', round %d: answered before; sent again", job.client, job.round)
        session.answered[job.id] = job
        hidden = self.hands.work_of(session.manifest, job.client).plan.aggregator.sum_only
        self._deliver(link, job, Answer({**answer.header, **_EMPTY}, b"") if hidden else answer)

    def _evaluate(self, link: NodeLink, session: _Session, job: JobFrame) -> None:
        """Tell what the model scores on what this client holds out, or why not; the ledger has either."""
        told: OwnScores | str
        try:
            told = self._scores(link, session, job)
            means = {name: [one.total, one.weight] for name, one in told.means.items()}
            kind, said = "scores", {"phase": job.phase, "examples": told.examples, "scores": means}
        except RunError:  # the disk, the journal, the way to the server
            raise
        except FedloomError as error:
            told = str(error)
            kind, said = "refused", {"reason": f"scores are not told: {shown(told)[:2000]}"}
        self._folder.ledger.append(kind, run=job.run, round=job.round, client=job.client, **said)
        link.offer(scores_to(job.id, told))

    def _scores(self, link: NodeLink, session: _Session, job: JobFrame) -> OwnScores:
        """Return the scores that an evaluation asks for, where the approved run plans it, once."""
        journal, plan = self.journal(session.run), self.hands.work_of(session.manifest, job.client).plan
        if planned_round(session.manifest.settings, job.phase) != job.round:
            raise DataError(f"the approved run has no evaluation '{job.phase}' after {job.round} rounds.")
        self.hands.may_score(session.manifest, job.client)
        body = self._fetched(link, session, job)
        local = local_of(body, plan.layout.size, journal.memory(job.client, job.round))
        self._refuse_jump(journal, local.anchor[""])
        journal.ask_once(job)
        return self.hands.scores(session.manifest, job.client, local)

    def _trained(self, link: NodeLink, session: _Session, job: JobFrame, journal: Journal) -> Answer:
        """Train, and write down what is answered before any of it leaves."""
        work = self.hands.work_of(session.manifest, job.client)
        if job.round <= journal.last_round(job.client):
            raise DataError(f"round {job.round}: a later one was answered already; a server does not go back.")
        refuse_other_rate(work.plan, job)
        body = self._fetched(link, session, job)
        memory = journal.memory(job.client, job.round)
        local = local_of(body, work.plan.layout.size, memory)
        self._refuse_jump(journal, local.anchor[""])
        accounts = NodeAccounts(self._folder.path, self._folder.policy.privacy)
        spent, told = accounts.before(session.run, job.client, work, journal)
        memory = memory or work.plan.rule.init_memory(local.anchor)
        asked = Job(job.client, job.round, job.lr, replace(local, memory=memory), spent)
        self.hands.over[job.client] = partial(link.exchange, job.id)
        (report,) = self.hands.loads().carriers[job.client]([asked])
        answer = Answer(report_to(report, job.id), report.packet.numpy().tobytes())
        journal.keep_anchor(local.anchor[""])
        self._folder.ledger.append(
            "report",
            run=job.run,
            round=job.round,
            client=job.client,
            bytes=0 if work.plan.aggregator.sum_only else report.packet.numel(),
            sha256_of_packet=answer.header["digest"],
            weight=report.weight,
            **{f"bytes_{kind}": one.n_bytes for kind, one in report.traffic.items()},
            **told,
        )
        journal.keep(job, answer, report.memory)
        return answer

    def _refuse_jump(self, journal: Journal, anchor_P: torch.Tensor) -> None:
        """Refuse parameters that lie too far from those that the server sent before, or that the run starts from.

        Crafted ones could make an update tell more; this bounds by how much, and does not stop it.
        """
        loaded, most = self.hands.loads().loaded, self._folder.policy.max_change
        before_P = journal.anchor()
        before_P = loaded.layout.row({"": loaded.shared}).cpu() if before_P is None else before_P
        jump = float((anchor_P - before_P).norm())
        if jump > most:
            raise ConfigError(f"max_change: the server's parameters have moved by {jump:g}, allowed is {most:g}.")

    def _fetched(self, link: NodeLink, session: _Session, job: JobFrame) -> bytes:
        """Return a job's body; one that promises more than parameters and slots may have is refused."""
        limit = self.hands.body_limit(session.manifest)
        if job.body.size > limit:
            raise DataError(f"job: promises {job.body.size} bytes, allowed are {limit}.")
        return fetched(link, Inbox(self.journal(session.run).folder / "inbox"), job.body)

    def _deliver(self, link: NodeLink, job: JobFrame, answer: Answer) -> None:
        """Send an answer until the server has it, or wants it no more: the ledger then says why."""
        verdict = delivered(link, answer.header, {"kind": "piece", "job": job.id}, answer.packet)
        if verdict.kind == "taken":
            _log.info("client '%s', round %d: reported, %d bytes", job.client, job.round, len(answer.packet))
        if verdict.kind in ("closed", "refused"):
            why = shown(verdict.reason) or "the round was over"
            _log.warning("client '%s', round %d: report %s: %s", job.client, job.round, verdict.kind, why)
            self._folder.ledger.append(verdict.kind, run=job.run, round=job.round, client=job.client, reason=why[:2000])


def _read(frames: Iterable[Frame], jobs: "queue.Queue[Frame | None]") -> None:
    """Put what the server sends where the node finds it; at the end of the connection, None."""
    try:
        for frame in frames:
            jobs.put(frame)
            if frame.header.get("kind") in ("end", "replaced"):
                return
    except FedloomError as error:
        _log.warning("%s", error)
    finally:
        jobs.put(None)

"""Whether this machine fits a run: versions and devices, and one measured step of the run itself."""

import statistics
import time
from dataclasses import replace

import torch

from fedloom.base.machine import free_bytes, peak_bytes, total_bytes
from fedloom.base.tree import flatten
from fedloom.contracts.federated import Job, Local, Plan
from fedloom.federated.client import train_clients
from fedloom.federated.workspace import Workspace
from fedloom.runs.environment import versions
from fedloom.runs.prepared import Prepared, prepare
from fedloom.runs.tuning import TuningRun

__all__ = ["examine_machine", "examine_run"]

_CPU = torch.device("cpu")
_MEASURED = 3  # steps timed, after one that warms up


def examine_machine() -> list[str]:
    """Return lines about versions, devices and memory."""
    available, total = free_bytes(_CPU), total_bytes()
    lines = [f"{package} {version or 'not installed'}" for package, version in versions().items()]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    lines.append(f"devices: {', '.join(['cpu', *names])}")
    lines.append(f"memory: {available / 2**30:.1f} GiB available of {total / 2**30:.1f} GiB")
    return lines


def examine_run(run: TuningRun) -> list[str]:
    """Return lines about a run after loading it and measuring a few local steps; wrong input raises as `run` would."""
    ready = prepare(run)
    n_numbers, base = ready.layout.size, sum(p.nbytes for p in ready.model.module.parameters())
    step_s = _step_seconds(ready)
    steps = sum(plan.rounds * plan.clients_per_round * _mean_steps(plan) for plan in (s.plan for s in ready.stages))
    return [
        *ready.notes,
        f"model: {base / 2**20:.1f} MiB; shared numbers: {n_numbers:,} ({4 * n_numbers / 2**20:.2f} MiB a row)",
        f"one step: {1000 * step_s:.1f} ms; {steps:,.0f} steps in all: {steps * step_s / 60:.1f} min, evaluation apart",
        f"memory: {peak_bytes() / 2**30:.2f} GiB at the peak, {free_bytes(_CPU) / 2**30:.1f} GiB left: the run fits",
    ]


def _mean_steps(plan: Plan) -> float:
    steps = plan.steps or dict.fromkeys(plan.clients, plan.local.steps)
    return sum(steps.values()) / len(steps)


def _step_seconds(ready: Prepared) -> float:
    """Return the median seconds of one optimiser step of the first sampled client."""
    plan = ready.stages[0].plan
    one = replace(plan, local=replace(plan.local, steps=1), steps={})
    work = replace(ready.stages[0].work, plan=one)
    params = {"": flatten(ready.shared)}
    local = Local(params, plan.rule.init_shared(params), plan.rule.init_memory(params))
    space, seconds = Workspace.of(work, width=1), list[float]()
    for index in range(1 + _MEASURED):
        start_s = time.perf_counter()
        train_clients(work, [Job(plan.clients[0], index, plan.local.lr, local)], space)
        seconds.append(time.perf_counter() - start_s)
    return statistics.median(seconds[1:])

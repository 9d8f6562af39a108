"""Runs that are killed and gone on with."""

import json
import multiprocessing
import os
import random
import time
from multiprocessing import forkserver

import pytest

from fedloom import api
from support.paths import ROOT


def logs(folder):
    """All log lines without the wall time."""
    lines = {}
    for name in ("metrics.jsonl", "ledger.jsonl", "results.jsonl"):
        records = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        lines[name] = [{key: value for key, value in record.items() if key != "wall_s"} for record in records]
    return lines


def adapters(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("adapter*/**/*.safetensors"))}


def run_to_the_end(run, folder):
    for _ in api.start(run, folder):
        pass


def unbroken_and_stopped(run, folder, *, after):
    """The directories of a run that ends and of one that is stopped after so many events and gone on with."""
    run_to_the_end(run, folder / "unbroken")
    events = api.start(run, folder / "stopped")
    for _ in range(after):
        next(events)
    events.close()
    list(api.resume(folder / "stopped")[1])
    return folder / "unbroken", folder / "stopped"


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["support.preloaded"])


def in_a_process(action, *given):
    """Start a child that does `action`, forked from a server that has the imports and no threads.

    A fork of a process with threads, of grpc or tqdm for instance, may wait for ever for a lock that one of them held.
    """
    with pytest.MonkeyPatch.context() as patch:  # where the server looks for its imports: it does not take sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")]))
        forkserver.ensure_running()
    child = _SERVER.Process(target=action, args=given)
    child.start()
    return child


def go_on(run, folder):
    events = api.resume(folder)[1] if (folder / "run.toml").exists() else api.start(run, folder)
    for _ in events:
        pass


def kill_and_resume(run, folder, *, kills, longest_s, seed):
    """Start or resume in a child, kill it after a random time, `kills` times; then let it end."""
    draw = random.Random(seed)
    for _ in range(kills):
        child = in_a_process(go_on, run, folder)
        time.sleep(draw.uniform(0.02, longest_s))
        child.kill()
        child.join()
    in_a_process(go_on, run, folder).join()

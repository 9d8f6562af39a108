"""Runs that are killed and gone on with."""

import json
import os
import random
import signal
import time

from fedloom import api


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


def in_a_process(action):
    """Fork a child that does `action` and vanishes; the fork spares it the imports."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return pid


def go_on(run, folder):
    events = api.resume(folder)[1] if (folder / "run.toml").exists() else api.start(run, folder)
    for _ in events:
        pass


def kill_and_resume(run, folder, *, kills, longest_s, seed):
    """Start or resume in a child, kill it after a random time, `kills` times; then let it end."""
    draw = random.Random(seed)
    for _ in range(kills):
        pid = in_a_process(lambda: go_on(run, folder))
        time.sleep(draw.uniform(0.02, longest_s))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.waitpid(in_a_process(lambda: go_on(run, folder)), 0)

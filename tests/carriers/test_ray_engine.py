"""Rounds on a Ray cluster: the bytes of one process, whoever dies on the way, and nothing that others can reach."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fedloom.base.errors import RunError, TrainingError
from fedloom.base.outside import import_plugins
from fedloom.base.tree import digest
from fedloom.federated.engines._cluster import connected
from fedloom.federated.rounds import begin, step
from fedloom.runs.prepared import prepare
from support.clients import jobs_of
from support.process_tree import descendants, listening
from support.small_runs import small_run, train

pytestmark = [pytest.mark.carriers, pytest.mark.filterwarnings("default:::ray")]

SEQUENTIAL = {"name": "sequential"}
RAY = {"name": "ray", "workers": 2, "inner": SEQUENTIAL}
SGD = {"lr": 0.1, "steps": 2, "batch": 3, "optimiser": "sgd"}
METHODS = {
    "plain": {},
    "scaffold": {"rule": "scaffold", "local": SGD, "clients_per_round": 3},
    "memory at clients": {
        "share": "lora_A",
        "codec": {"name": "top_k", "share": 0.5},
        "local": {"lr": 0.02, "steps": 2, "batch": 3, "optimiser_state": "kept"},
    },
    "private clients": {
        "privacy": {"name": "gaussian", "unit": "client", "noise_multiplier": 0.5, "epsilon": 0.0, "delta": 0.001},
        "weighting": "uniform",
        "clients_per_round": 3,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ray")


def told(run):
    """All that a training comes to: digests of every tree of its last state, and the records of its rounds."""
    state, records = train(run)
    return trees(state), records


def trees(state):
    memory = {client: {name: digest(tree) for name, tree in slots.items()} for client, slots in state.memory.items()}
    slots = [{name: digest(tree) for name, tree in kind.items()} for kind in (state.shared, state.opt)]
    return digest({"": state.params_P}), slots, memory, dict(state.spent)


@pytest.mark.parametrize("method", METHODS)
def test_two_actors_give_the_bytes_of_one_process(folder, method):
    one, other = (told(small_run(folder, engine=engine, **METHODS[method])) for engine in (SEQUENTIAL, RAY))
    assert other == one


def test_actors_give_the_bytes_of_worker_processes(folder):
    one, other = (told(small_run(folder, engine=engine)) for engine in ({"name": "processes", "workers": 2}, RAY))
    assert other == one


def test_who_shares_a_wave_does_not_depend_on_the_number_of_actors(folder):
    cohort = {"name": "cohort", "width": 3}
    engines = cohort, RAY | {"inner": cohort}, RAY | {"inner": cohort, "workers": 1}
    alone, two, one = (told(small_run(folder, engine=engine)) for engine in engines)
    assert alone == two == one


def killing(carrier, times):
    """A carrier whose actors are all killed after the first report, in the first rounds."""
    left = iter(range(times))

    def carry(jobs):
        for number, report in enumerate(carrier(jobs)):
            yield report
            if number == 0 and next(left, None) is not None:
                pids = [pid for pid, name in descendants().items() if name.startswith("ray::_Actor")]
                assert pids
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)

    return carry


def rounds(run, times):
    ready = prepare(run)
    plan, carrier = ready.stages[0].plan, killing(run.engine.start(ready.stages[0].work), times)
    state = begin(plan, ready.layout.row({"": ready.shared}))
    for _ in range(plan.rounds):
        state, _ = step(plan, state, carrier)
    return state


def test_actors_killed_in_the_middle_of_a_round_leave_the_bytes(folder):
    whole, _ = train(small_run(folder, engine=SEQUENTIAL, rule="scaffold", local=SGD))
    killed = rounds(small_run(folder, engine=RAY, rule="scaffold", local=SGD), times=2)
    assert trees(killed) == trees(whole)


def test_an_actor_that_may_not_be_started_anew_is_told_in_one_line(folder):
    with pytest.raises(RunError, match=r"^engine 'ray': .*; see to the cluster, then resume the run\.$") as told:
        rounds(small_run(folder, engine=RAY | {"max_restarts": 0}), times=1)
    assert "\n" not in str(told.value)


def test_a_refusal_in_an_actor_arrives_as_itself(folder):
    run = small_run(folder, engine=RAY, local={"lr": 1e30, "steps": 2, "batch": 3})
    with pytest.raises(TrainingError, match=r"^client 'client0', round 0, step 1: the loss is"):
        train(run)


def test_more_actors_than_slots_are_refused(folder):
    with pytest.raises(RunError, match=r"engine.workers: found 4096, the cluster has \d+ slots for device 'cpu'"):
        train(small_run(folder, engine=RAY | {"workers": 4096}))


def test_another_cluster_in_the_same_program_is_refused(folder):
    connected("")
    with pytest.raises(RunError, match=r"engine.address: found '127.0.0.1:1', this program is connected to ''"):
        train(small_run(folder, engine=RAY | {"address": "127.0.0.1:1"}))


def test_jobs_are_asked_for_as_actors_get_through_with_them(folder):
    ready = prepare(small_run(folder, engine=RAY))
    stage, asked = ready.stages[0], []
    jobs = [job for _ in range(20) for job in jobs_of(stage.work)]
    common = jobs[0].local
    reports = ready.run.engine.start(stage.work)(
        asked.append(job.client) or type(job)(job.client, 0, job.lr, common) for job in jobs
    )
    came = [next(reports).client]
    assert len(asked) <= 9  # four for each actor, and one that ends the wave before it
    came += [report.client for report in reports]
    assert came == asked == [job.client for job in jobs]


RULE = '''
"""A rule of somebody's own."""

from fedloom.base.plugin import plugin
from fedloom.contracts.federated import Rule


@plugin("halved")
class Halved(Rule):
    """Half a step."""

    def finish(self, params, local, *, steps, lr):
        return {"delta": {"": (params[""] - local.anchor[""]) / 2}}, {}

    def merge(self, shared, mean, *, fraction):
        return mean["delta"], {}
'''


def test_plugins_of_files_travel_to_the_actors(folder, tmp_path):
    (tmp_path / "halved.py").write_text(RULE)
    import_plugins(["halved.py"], tmp_path)
    one, other = (told(small_run(folder, engine=engine, rule="halved")) for engine in (SEQUENTIAL, RAY))
    assert other == one


def test_nothing_listens_off_the_loopback_interface():
    connected("")
    found = listening([os.getpid(), *descendants()])
    assert found and {address for address, _ in found} == {"127.0.0.1"}


def program(text, home, **environment):
    """What a program of its own prints, whose home folder is another one."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_local_cluster_leaves_nothing_behind_and_says_nothing(tmp_path):
    done = program(
        """
        import os
        from fedloom.federated.engines._cluster import connected
        connected("")
        print(os.environ["RAY_AUTH_TOKEN_PATH"])
        """,
        tmp_path,
        RAY_AUTH_TOKEN_PATH="",
    )
    assert not Path(done.stdout.strip()).parent.exists()
    assert not list(tmp_path.iterdir()) and not done.stderr


def test_a_cluster_that_is_there_is_joined(folder, tmp_path):
    address = connected("").get_runtime_context().gcs_address
    run = f"""
        import sys; sys.path.insert(0, "tests")
        from pathlib import Path
        from fedloom.base.tree import digest
        from support.small_runs import small_run, train
        state, _ = train(small_run(Path({str(folder)!r}), engine={RAY | {"address": address}!r}))
        print(digest({{"": state.params_P}}))
        """
    assert program(run, tmp_path).stdout.strip() == told(small_run(folder, engine=SEQUENTIAL))[0][0]


def test_an_address_without_a_cluster_is_told_in_one_line(tmp_path):
    done = program(
        """
        from fedloom.base.errors import RunError
        from fedloom.federated.engines._cluster import connected
        try:
            connected("127.0.0.1:1")
        except RunError as error:
            print(error)
        """,
        tmp_path,
    )
    assert done.stdout.startswith("engine.address: no cluster at '127.0.0.1:1' (") and done.stdout.count("\n") == 1

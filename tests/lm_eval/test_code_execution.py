"""Programs that a model wrote: what a confined one can do, and what it cannot."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedloom.base.errors import ConfigError
from fedloom.lm_eval import _confine, code_execution
from fedloom.lm_eval._apart import decode, encode
from fedloom.lm_eval.code_execution import Limits, run_program

pytestmark = pytest.mark.slow  # programs in processes of their own

LIMITS = Limits(cpu_s=60, idle_s=600.0)  # no program that ends comes near them, on a busy machine either
ENDLESS = Limits(cpu_s=1, idle_s=600.0)  # for programs that do not end by themselves


def refused(statement, error="OSError"):
    """A program that passes only if the statement is refused."""
    head = "import os, socket, subprocess"
    return f"{head}\ntry:\n    {statement}\nexcept {error}:\n    pass\nelse:\n    raise SystemExit(1)"


def test_program_that_comes_to_its_end_passes():
    assert run_program("import math\nassert math.gcd(4, 6) == 2", limits=LIMITS) == "passed"


def test_failed_assertion_fails():
    assert run_program("assert 1 == 2", limits=LIMITS) == "failed"


def test_program_that_leaves_early_fails():
    assert run_program("raise SystemExit(0)\nassert False", limits=LIMITS) == "failed"


def test_program_that_is_no_python_fails():
    assert run_program("def f(:", limits=LIMITS) == "failed"


def test_text_that_is_no_unicode_is_run_as_far_as_it_goes():
    assert run_program("x = '\ud800'", limits=LIMITS) == "passed"


def test_infinite_loop_is_stopped():
    assert run_program("while True: pass", limits=ENDLESS) == "stopped"


def test_sleeping_program_is_stopped():
    assert run_program("import time\ntime.sleep(100)", limits=Limits(idle_s=0.5)) == "stopped"


def test_stopped_program_leaves_no_process():
    run_program("import time\ntime.sleep(100)", limits=Limits(idle_s=0.5))
    children = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    assert "program.py" not in children.stdout


def test_fork_bomb_has_no_second_process():
    assert run_program(refused("os.fork()"), limits=LIMITS) == "passed"


def test_loop_of_forks_is_refused():
    assert run_program("import os\nwhile True: os.fork()", limits=LIMITS) == "failed"


def test_other_program_cannot_be_started():
    assert run_program(refused("subprocess.run(['true'])"), limits=LIMITS) == "passed"


def test_thread_cannot_be_started():
    statement = "import threading; threading.Thread(target=print).start()"
    assert run_program(refused(statement, "RuntimeError"), limits=LIMITS) == "passed"


def test_memory_bomb_is_refused():
    assert run_program(refused("bytearray(10**10)", "MemoryError"), limits=LIMITS) == "passed"


def test_growing_list_ends():
    """Its memory ends it, in whatever time: the limit on processor time would end it otherwise."""
    assert run_program("x = [0]\nwhile True: x = x + x", limits=LIMITS) == "failed"


def test_huge_output_goes_nowhere(capfd):
    run_program("while True: print('x' * 100000)", limits=ENDLESS)
    assert capfd.readouterr() == ("", "")


def test_large_file_is_refused():
    assert run_program(refused("open('a', 'w').write('x' * (1 << 21))"), limits=LIMITS) == "passed"


def test_many_files_are_stopped():
    program = "i = 0\nwhile True:\n    open(f'f{i}', 'w').write('x' * 500000)\n    i += 1"
    assert run_program(program, limits=Limits(cpu_s=30, folder_bytes=1 << 22)) == "stopped"


def test_own_folder_can_be_written():
    assert run_program("open('a', 'w').write('b')\nassert open('a').read() == 'b'", limits=LIMITS) == "passed"


def test_own_folder_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_program("open('a', 'w').write('b')", limits=LIMITS)
    assert not list(tmp_path.iterdir())


def test_other_folder_cannot_be_written(tmp_path):
    run_program(f"open({str(tmp_path / 'a')!r}, 'w').write('b')", limits=LIMITS)
    assert not list(tmp_path.iterdir())


def test_other_file_cannot_be_read(tmp_path):
    (tmp_path / "secret").write_text("secret")
    assert run_program(refused(f"open({str(tmp_path / 'secret')!r})"), limits=LIMITS) == "passed"


def test_other_file_cannot_be_removed(tmp_path):
    (tmp_path / "kept").touch()
    run_program(f"import os\nos.remove({str(tmp_path / 'kept')!r})", limits=LIMITS)
    assert (tmp_path / "kept").exists()


def test_link_leads_no_way_out(tmp_path):
    (tmp_path / "secret").write_text("secret")
    program = refused(f"os.symlink({str(tmp_path / 'secret')!r}, 'a'); open('a')")
    assert run_program(program, limits=LIMITS) == "passed"


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
def test_socket_cannot_be_opened(family):
    assert run_program(refused(f"socket.socket(socket.{family})"), limits=LIMITS) == "passed"


def test_environment_is_not_handed_over(monkeypatch):
    monkeypatch.setenv("FEDLOOM_SECRET", "secret")
    program = "import os\nassert set(os.environ) <= {'LANG', 'HOME', 'TMPDIR', 'LC_CTYPE'}"
    assert run_program(program, limits=LIMITS) == "passed"


def test_installed_packages_are_out_of_reach():
    assert run_program(refused("import torch", "ImportError"), limits=LIMITS) == "passed"


def test_signal_to_another_process_is_refused():
    assert run_program(refused(f"os.kill({os.getpid()}, 0)"), limits=LIMITS) == "passed"


@pytest.fixture
def bystander():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


# A pipe tells its owner of what arrives by the signal that it is set to: fcntl sends signals without `kill`.
PIPE = """import fcntl, os
ends = os.pipe()
fcntl.fcntl(ends[0], fcntl.F_SETOWN, {owner})
fcntl.fcntl(ends[0], 10, {signal})
fcntl.fcntl(ends[0], fcntl.F_SETFL, os.O_ASYNC)
os.write(ends[1], b'x')
"""


def test_owned_pipe_sends_no_signal_to_another_process(bystander):
    run_program(PIPE.format(owner=bystander.pid, signal=9), limits=LIMITS)
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(0.2)


def test_owned_pipe_feigns_no_machine_that_cannot_confine():
    assert run_program(PIPE.format(owner="os.getpid()", signal=_confine.UNCONFINED.value), limits=LIMITS) == "failed"


def test_processors_of_another_process_cannot_be_changed():
    program = f"os.sched_setaffinity({os.getpid()}, {os.sched_getaffinity(0)})"
    assert run_program(refused(program), limits=LIMITS) == "passed"


def test_attributes_of_a_file_cannot_be_changed():  # root could make it one that cannot be removed
    assert (
        run_program(refused("import fcntl; fcntl.ioctl(os.open('.', 0), 0x80086601, bytes(8))"), limits=LIMITS)
        == "passed"
    )


def test_folder_cannot_be_made():  # thousands in one another could be neither measured nor removed
    assert run_program(refused("os.mkdir('a')"), limits=LIMITS) == "passed"


def test_many_empty_files_are_stopped():
    program = "import time\nfor i in range(1000):\n    open(str(i), 'x').close()\ntime.sleep(500)"
    assert run_program(program, limits=Limits(cpu_s=60, idle_s=600.0, folder_bytes=1 << 20)) == "stopped"


def test_limits_cannot_be_raised():
    statement = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))"
    assert run_program(refused(statement, "(OSError, ValueError)"), limits=LIMITS) == "passed"


def test_mode_of_a_file_cannot_be_changed(tmp_path):
    assert run_program(refused(f"os.chmod({str(tmp_path)!r}, 0)"), limits=LIMITS) == "passed"


def test_program_that_becomes_another_stays_confined():
    program = f"import os\nos.execv({sys.executable!r}, [{sys.executable!r}, '-c', 'import socket; socket.socket()'])"
    assert run_program(program, limits=LIMITS) == "failed"


def test_open_files_are_not_handed_over(tmp_path):
    with (tmp_path / "secret").open("w+") as file:
        os.set_inheritable(file.fileno(), True)
        assert run_program(refused(f"os.fstat({file.fileno()})"), limits=LIMITS) == "passed"


def test_programs_run_side_by_side():
    verdicts = []
    threads = [threading.Thread(target=lambda: verdicts.append(run_program("pass", limits=LIMITS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["passed"] * 3


def test_machine_of_another_kind_is_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(OSError, match="linux on riscv64"):
        _confine.confine(".", cpu_s=1, memory_bytes=1, file_bytes=1)


def test_machine_that_cannot_confine_is_refused_before_the_program_begins(tmp_path, monkeypatch):
    script = tmp_path / "confine.py"
    script.write_text(Path(_confine.__file__).read_text().replace('"x86_64")', '"another")'))
    monkeypatch.setattr(_confine, "__file__", str(script))
    with pytest.raises(ConfigError, match=r"cannot confine a program; allowed is Linux 5.13"):
        run_program("", limits=LIMITS)


def test_program_that_ends_with_any_code_is_no_refusal():
    assert {run_program(f"raise SystemExit({code})", limits=LIMITS) for code in (10, 97, 138)} == {"failed"}


def test_file_elsewhere_cannot_be_linked_in(tmp_path):
    (tmp_path / "secret").write_text("secret")
    assert run_program(refused(f"os.link({str(tmp_path / 'secret')!r}, 'a')"), limits=LIMITS) == "passed"


# -------------------------------------------------------------------------------------------------- what tests it

ADD = "def add(a, b):\n    return a + b\n"
TRUE = "assert add(1, 2) == 3\nassert add('a', b='b') == 'ab'"


def verdict_of(program, tests=TRUE, **more):
    return run_program(program, tests, limits=LIMITS, **more)


def test_a_right_function_passes_its_tests():
    assert verdict_of(ADD) == "passed"


def test_a_wrong_function_fails_them():
    assert verdict_of("def add(a, b):\n    return a - b\n") == "failed"


CHEATS = {
    "equal to all": "class All:\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    return All()\n",
    "a number equal to all": "class All(int):\n    __eq__ = lambda *_: True\ndef add(a, b):\n    return All(7)\n",
    "leaves early": "import os\nos._exit(0)\n",
    "leaves when asked": "import os\ndef add(a, b):\n    os._exit(0)\n",
    "no assertions": "import os, sys\nif not sys.flags.optimize:\n"
    "    os.execv(sys.executable, [sys.executable, '-O', *sys.orig_argv[1:]])\ndef add(a, b):\n    return 0\n",
    "other assertions": "import builtins\nbuiltins.AssertionError = None\ndef add(a, b):\n    return 0\n",
    "frames": "import sys\ndef add(a, b):\n    frame = sys._getframe()\n    while frame:\n"
    "        frame.f_globals.update(add=lambda *_, **__: 3)\n        frame = frame.f_back\n    return 0\n",
    "says it is over": "import os\nfor fd in range(3, 32):\n    try:\n        os.write(fd, b'\"ready\"\\n' * 50)\n"
    "    except OSError:\n        pass\ndef add(a, b):\n    return 0\n",
    "looks for the tests": "import os\nfor root in ('/tmp', '/proc'):\n    try:\n        found = os.listdir(root)\n"
    "    except OSError:\n        found = []\n    assert not found\nraise SystemExit\n",
    "another set": "def set(x):\n    return 1\ndef add(a, b):\n    return 0\n",
    "another abs": "def abs(x):\n    return -1\ndef add(a, b):\n    return 9\n",
    "another all": "all = lambda x: True\ndef add(a, b):\n    return 0\n",
    "another function of the task": "def double(x):\n    return 6\ndef add(a, b):\n    return 0\n",
}


@pytest.mark.parametrize("program", CHEATS.values(), ids=CHEATS)
def test_no_trick_passes_tests(program):
    assert (
        verdict_of(program, "assert double(add(1, 2)) == 6" if "double" in program else TRUE, before=BEFORE) == "failed"
    )


BEFORE = "import math\ndef double(x):\n    return 2 * x\ndef add(a, b):\n    '''Add.'''\n"


def test_tests_have_what_the_task_gives():
    assert (
        verdict_of(BEFORE + "    return a + b\n", "assert double(add(1, 2)) == math.floor(6.5)", before=BEFORE)
        == "passed"
    )


def test_tests_have_what_the_program_imports():
    assert verdict_of("import math\n" + ADD, "assert math.isclose(add(0.1, 0.2), 0.3)") == "passed"


def test_an_import_takes_no_place_of_what_python_has():
    program = "from operator import ne as isinstance\ndef add(a, b):\n    return 0\n"
    assert verdict_of(program, "assert isinstance(add(1, 2), str)") == "failed"


def test_a_program_that_defines_open_is_no_failure():
    assert verdict_of("def open(*_):\n    raise ValueError\n" + ADD) == "passed"


def test_tests_have_the_values_of_the_program():
    assert (
        verdict_of("x = [1, {2: 'a'}]\ntwice = lambda y: 2 * y\n", "assert x[1][2] == 'a' and twice(3) == 6")
        == "passed"
    )


def test_what_is_no_plain_value_is_handed_back():
    program = "class Pair:\n    def __init__(self, a, b):\n        self.sum = a + b\ndef total(pairs):\n"
    program += "    return sum(pair.sum for pair in pairs)\n"
    assert verdict_of(program, "assert total([Pair(1, 2), Pair(3, b=4)]) == 10") == "passed"


def test_an_argument_that_is_changed_is_changed_for_the_tests():
    assert verdict_of("def sort(x):\n    x.sort()\n", "x = [2, 1]\nassert sort(x) is None and x == [1, 2]") == "passed"


def test_an_error_is_the_error_that_tests_ask_for():
    tests = "try:\n    add(1, 'a')\nexcept TypeError:\n    pass\nelse:\n    raise AssertionError"
    assert verdict_of(ADD, tests) == "passed"


RIGHT = {
    "a generator": ("def f(n):\n    yield from range(n)\n", "assert list(f(3)) == [0, 1, 2]"),
    "a map": ("def f(n):\n    return map(str, range(n))\n", "assert sorted(f(2)) == ['0', '1']"),
    "keys": ("def f(n):\n    return {n: 1}.keys()\n", "assert list(f(2)) == [2]"),
    "a fraction": ("from fractions import Fraction\ndef f(n):\n    return Fraction(n, 2)\n", "assert f(1) * 2 == 1"),
    "under a condition": ("if True:\n    def f(n):\n        return n\n", "assert f(2) == 2"),
    "an alias": ("from math import gcd as f\n", "assert f(4, 6) == 2"),
    "with a type": ("f: object = lambda n: n\n", "assert f(2) == 2"),
    "unpacked": ("a, b = 1, 2\n", "assert a + b == 3"),
    "an error of its own": (
        "class Odd(ValueError):\n    pass\ndef f(n):\n    raise Odd\n",
        "try:\n    f(1)\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes_however_it_is_written(name):
    assert verdict_of(*RIGHT[name]) == "passed"


def test_a_program_that_wakes_now_and_then_is_idle():
    program = "import time\nwhile True:\n    time.sleep(0.002)\n"
    assert run_program(program, limits=Limits(cpu_s=60, idle_s=0.5)) == "stopped"


def test_printing_is_no_answer():
    assert verdict_of('print(\'["value", {"int": "0x3"}, []]\')\n' + ADD) == "passed"


VALUES = [
    None,
    True,
    2**20000,
    -1.5,
    float("inf"),
    2 + 3j,
    "\ud800\n",
    b"\x00",
    [1, (2, {3})],
    {"a": {1: [frozenset("b")]}},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_travel_as_they_are(value):
    def keep(_):
        raise AssertionError

    found = decode(json.loads(json.dumps(encode(value, keep))), keep)
    assert found == value and type(found) is type(value)


def test_values_of_derived_types_travel_as_what_they_derive_from():
    class Odd(list):
        def __iter__(self):
            return iter([9])

    assert decode(encode(Odd([1, 2]), int), int) == [1, 2]


# -------------------------------------------------------------------------------------------------------- its files


def test_files_without_a_name_count():
    program = "import os\nheld = []\nwhile True:\n    held.append(open('a', 'w'))\n    held[-1].write('x' * 500000)\n"
    program += "    held[-1].flush()\n    os.remove('a')\n    sum(range(200000))\n"
    assert run_program(program, limits=Limits(cpu_s=60, idle_s=600.0, folder_bytes=1 << 21)) == "stopped"


def test_mapped_files_count():
    program = "import mmap, os\nheld = []\nwhile True:\n    file = open('a', 'w+b')\n    file.write(b'x' * 500000)\n"
    program += "    file.flush()\n    held.append(mmap.mmap(file.fileno(), 0))\n    file.close()\n    os.remove('a')\n"
    program += "    sum(range(200000))\n"
    assert run_program(program, limits=Limits(cpu_s=60, idle_s=600.0, folder_bytes=1 << 21)) == "stopped"


def test_a_process_that_runs_does_not_rest():
    """However long it waits for a processor on a busy machine: it is never counted as idle."""
    assert not code_execution._rests(SimpleNamespace(pid=os.getpid()))

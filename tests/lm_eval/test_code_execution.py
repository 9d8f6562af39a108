"""Programs that a model wrote: what a confined one can do, and what it cannot."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedloom.base.errors import ConfigError
from fedloom.lm_eval import _confine
from fedloom.lm_eval.code_execution import Limits, run_program

LIMITS = Limits(cpu_s=60, wall_s=600.0)  # no program that ends comes near them, on a busy machine either
ENDLESS = Limits(cpu_s=1, wall_s=600.0)  # for programs that do not end by themselves


def refused(statement, error="OSError"):
    """A program that passes only if the statement is refused."""
    head = "import os, socket, subprocess"
    return f"{head}\ntry:\n    {statement}\nexcept {error}:\n    pass\nelse:\n    raise SystemExit(1)"


def test_program_that_comes_to_its_end_passes():
    assert run_program("import math\nassert math.gcd(4, 6) == 2", LIMITS) == "passed"


def test_failed_assertion_fails():
    assert run_program("assert 1 == 2", LIMITS) == "failed"


def test_program_that_leaves_early_fails():
    assert run_program("raise SystemExit(0)\nassert False", LIMITS) == "failed"


def test_program_that_is_no_python_fails():
    assert run_program("def f(:", LIMITS) == "failed"


def test_text_that_is_no_unicode_is_run_as_far_as_it_goes():
    assert run_program("x = '\ud800'", LIMITS) == "passed"


def test_infinite_loop_is_stopped():
    assert run_program("while True: pass", ENDLESS) == "stopped"


def test_sleeping_program_is_stopped():
    assert run_program("import time\ntime.sleep(100)", Limits(wall_s=0.5)) == "stopped"


def test_stopped_program_leaves_no_process():
    run_program("import time\ntime.sleep(100)", Limits(wall_s=0.5))
    children = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    assert "program.py" not in children.stdout


def test_fork_bomb_has_no_second_process():
    assert run_program(refused("os.fork()"), LIMITS) == "passed"


def test_loop_of_forks_is_refused():
    assert run_program("import os\nwhile True: os.fork()", LIMITS) == "failed"


def test_other_program_cannot_be_started():
    assert run_program(refused("subprocess.run(['true'])"), LIMITS) == "passed"


def test_thread_cannot_be_started():
    statement = "import threading; threading.Thread(target=print).start()"
    assert run_program(refused(statement, "RuntimeError"), LIMITS) == "passed"


def test_memory_bomb_is_refused():
    assert run_program(refused("bytearray(10**10)", "MemoryError"), LIMITS) == "passed"


def test_growing_list_ends():
    """Its memory ends it, in whatever time: the limit on processor time would end it otherwise."""
    assert run_program("x = [0]\nwhile True: x = x + x", LIMITS) == "failed"


def test_huge_output_goes_nowhere(capfd):
    run_program("while True: print('x' * 100000)", ENDLESS)
    assert capfd.readouterr() == ("", "")


def test_large_file_is_refused():
    assert run_program(refused("open('a', 'w').write('x' * (1 << 21))"), LIMITS) == "passed"


def test_many_files_are_stopped():
    program = "i = 0\nwhile True:\n    open(f'f{i}', 'w').write('x' * 500000)\n    i += 1"
    assert run_program(program, Limits(cpu_s=30, folder_bytes=1 << 22)) == "stopped"


def test_own_folder_can_be_written():
    assert run_program("open('a', 'w').write('b')\nassert open('a').read() == 'b'", LIMITS) == "passed"


def test_own_folder_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_program("open('a', 'w').write('b')", LIMITS)
    assert not list(tmp_path.iterdir())


def test_other_folder_cannot_be_written(tmp_path):
    run_program(f"open({str(tmp_path / 'a')!r}, 'w').write('b')", LIMITS)
    assert not list(tmp_path.iterdir())


def test_other_file_cannot_be_read(tmp_path):
    (tmp_path / "secret").write_text("secret")
    assert run_program(refused(f"open({str(tmp_path / 'secret')!r})"), LIMITS) == "passed"


def test_other_file_cannot_be_removed(tmp_path):
    (tmp_path / "kept").touch()
    run_program(f"import os\nos.remove({str(tmp_path / 'kept')!r})", LIMITS)
    assert (tmp_path / "kept").exists()


def test_link_leads_no_way_out(tmp_path):
    (tmp_path / "secret").write_text("secret")
    program = refused(f"os.symlink({str(tmp_path / 'secret')!r}, 'a'); open('a')")
    assert run_program(program, LIMITS) == "passed"


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
def test_socket_cannot_be_opened(family):
    assert run_program(refused(f"socket.socket(socket.{family})"), LIMITS) == "passed"


def test_environment_is_not_handed_over(monkeypatch):
    monkeypatch.setenv("FEDLOOM_SECRET", "secret")
    program = "import os\nassert set(os.environ) <= {'LANG', 'HOME', 'TMPDIR', 'LC_CTYPE'}"
    assert run_program(program, LIMITS) == "passed"


def test_installed_packages_are_out_of_reach():
    assert run_program(refused("import torch", "ImportError"), LIMITS) == "passed"


def test_signal_to_another_process_is_refused():
    assert run_program(refused(f"os.kill({os.getpid()}, 0)"), LIMITS) == "passed"


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
    run_program(PIPE.format(owner=bystander.pid, signal=9), LIMITS)
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(0.2)


def test_owned_pipe_feigns_no_machine_that_cannot_confine():
    assert run_program(PIPE.format(owner="os.getpid()", signal=_confine.UNCONFINED.value), LIMITS) == "failed"


def test_processors_of_another_process_cannot_be_changed():
    program = f"os.sched_setaffinity({os.getpid()}, {os.sched_getaffinity(0)})"
    assert run_program(refused(program), LIMITS) == "passed"


def test_attributes_of_a_file_cannot_be_changed():  # root could make it one that cannot be removed
    assert run_program(refused("import fcntl; fcntl.ioctl(os.open('.', 0), 0x80086601, bytes(8))"), LIMITS) == "passed"


def test_folder_cannot_be_made():  # thousands in one another could be neither measured nor removed
    assert run_program(refused("os.mkdir('a')"), LIMITS) == "passed"


def test_many_empty_files_are_stopped():
    program = "import time\nfor i in range(1000):\n    open(str(i), 'x').close()\ntime.sleep(500)"
    assert run_program(program, Limits(cpu_s=60, wall_s=600.0, folder_bytes=1 << 20)) == "stopped"


def test_limits_cannot_be_raised():
    statement = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))"
    assert run_program(refused(statement, "(OSError, ValueError)"), LIMITS) == "passed"


def test_mode_of_a_file_cannot_be_changed(tmp_path):
    assert run_program(refused(f"os.chmod({str(tmp_path)!r}, 0)"), LIMITS) == "passed"


def test_program_that_becomes_another_stays_confined():
    program = f"import os\nos.execv({sys.executable!r}, [{sys.executable!r}, '-c', 'import socket; socket.socket()'])"
    assert run_program(program, LIMITS) == "failed"


def test_open_files_are_not_handed_over(tmp_path):
    with (tmp_path / "secret").open("w+") as file:
        os.set_inheritable(file.fileno(), True)
        assert run_program(refused(f"os.fstat({file.fileno()})"), LIMITS) == "passed"


def test_programs_run_side_by_side():
    verdicts = []
    threads = [threading.Thread(target=lambda: verdicts.append(run_program("pass", LIMITS))) for _ in range(3)]
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
        run_program("", LIMITS)


def test_program_that_ends_with_any_code_is_no_refusal():
    assert {run_program(f"raise SystemExit({code})", LIMITS) for code in (10, 97, 138)} == {"failed"}


def test_file_elsewhere_cannot_be_linked_in(tmp_path):
    (tmp_path / "secret").write_text("secret")
    assert run_program(refused(f"os.link({str(tmp_path / 'secret')!r}, 'a')"), LIMITS) == "passed"

"""The plug-ins that fedloom ships, and contract tests run on one that somebody adds."""

import subprocess
import sys

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup, names
from support.paths import ROOT


def shipped(family):
    """The names of a family's plug-ins in its own folders: a test before in this process may have registered others."""
    return [name for name in names(family) if lookup(family, name).__module__.startswith((family.folder, *family.also))]


def contract_tests_passed(folder, name, tests):
    """How many tests of a file pass, in a process of their own, on the plug-in that `folder/<name>.py` registers."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", name, "-p", "no:cacheprovider", "-k", name, tests],
        cwd=ROOT,
        env={"PYTHONPATH": str(folder), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and " failed" not in done.stdout, done.stdout
    return int(done.stdout.split(" passed")[0].split()[-1])


def without_settings(family):
    """The names of a family's plug-ins, of whomever, that are made without any setting."""
    return [name for name in names(family) if _makes(lookup(family, name))]


def _makes(plugin):
    try:
        plugin()
    except ConfigError:
        return False
    return True

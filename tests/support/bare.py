"""An environment without the libraries that are not asked for: what fedloom installs by itself, and named extras.

`python -m support.bare EXTRA,EXTRA -m fedloom ...` runs a command in which every other library of the extras cannot be
imported, as on a machine where nothing else was installed.
"""

import runpy
import sys
import tomllib
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def needed(requirements):
    """The names of all distributions that requirements bring along, as far as they are installed here."""
    found, waiting = set(), [Requirement(one) for one in requirements]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name == "fedloom":
            waiting += [Requirement(other) for extra in one.extras for other in EXTRAS[extra]]
            continue
        if name in found:
            continue
        found.add(name)
        try:
            requires = metadata.requires(one.name) or []
        except metadata.PackageNotFoundError:
            continue
        for text in requires:
            other = Requirement(text)
            if other.marker is None or any(other.marker.evaluate({"extra": extra}) for extra in (*one.extras, "")):
                waiting.append(other)
    return found


def hidden(extras):
    """The top-level modules of what only other extras bring."""
    here = needed([*PROJECT["dependencies"], *(one for extra in extras for one in EXTRAS[extra])])
    others = needed([one for requirements in EXTRAS.values() for one in requirements]) - here
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if {canonicalize_name(owner) for owner in owners} <= others
    }


def hide(modules):
    """Let no path be searched for the modules: who asks whether they are there is told no."""
    found = PathFinder.find_spec

    def find_spec(fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in modules else found(fullname, path, target)

    PathFinder.find_spec = find_spec


if __name__ == "__main__":
    wanted, module = [one for one in sys.argv[1].split(",") if one], sys.argv[3]
    hide(hidden(wanted))
    sys.argv = [module, *sys.argv[4:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

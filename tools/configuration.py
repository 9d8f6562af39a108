"""Write docs/configuration.md: every key of a run file and of a suite, and every form of data, told by the package.

    python tools/configuration.py             writes it
    python tools/configuration.py --check     says whether it is as it would be written, as a test asks

Nothing in it is said twice: what a key means stands below its field.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from fedloom.base.options import options_of, settings_in, summary_of
from fedloom.base.plugin import Family, plugins
from fedloom.base.tables import Table
from fedloom.benchmark.suite import Suite
from fedloom.data.forms import FORMS
from fedloom.runs.tuning import TuningRun

FILE = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Written by `python tools/configuration.py` from the package itself; `fedloom options [KEY] [NAME]` prints the same. A
run file is TOML; every key can be overridden on the command line (`local.lr=1e-3`). A key that names a plug-in takes
its name (`rule = "scaffold"`) or a table with its settings (`rule = {name = "prox", mu = 0.01}`).
"""


def text() -> str:
    """Return the whole document."""
    return "\n".join([HEAD, *_run(), *_forms(), *_section("Suites", "A suite file, for `fedloom bench`.", Suite)])


def _run() -> Iterator[str]:
    yield from _section("Run files", summary_of(TuningRun), TuningRun)
    for key, kind in _below("", TuningRun, set()):
        if not issubclass(kind, Family):
            yield from _section(f"`{key}`", summary_of(kind), kind)
            continue
        yield f"## `{key}`\n\n{summary_of(kind)}\n"
        for name, one in plugins(kind).items():
            yield f"### `{key}` = `{name}`\n\n{summary_of(one)}\n"
            yield from _table(one)


def _below(key: str, record: type[Any], seen: set[type[Any]]) -> Iterator[tuple[str, type[Any]]]:
    """Yield all keys below one that have settings or plug-ins of their own, each kind once."""
    for name, hint in get_type_hints(record, include_extras=True).items():
        for kind in settings_in(hint):
            if kind in seen:
                continue
            seen.add(kind)
            path = f"{key}.{name}" if key else name
            yield path, kind
            if issubclass(kind, Family):
                for called, one in plugins(kind).items():
                    if is_dataclass(one):
                        yield from _below(f"{path}({called})", one, seen)
            else:
                yield from _below(path, kind, seen)


def _section(title: str, said: str, record: type[Any]) -> Iterator[str]:
    yield f"## {title}\n\n{said}\n"
    yield from _table(record)


def _table(record: type[Any]) -> Iterator[str]:
    rows = tuple((one.key, one.takes, one.default or "needed", one.meaning) for one in options_of(record))
    if rows:
        yield "\n".join(Table("", ("key", "takes", "default", "meaning"), rows).markdown().splitlines()[2:]) + "\n"


def _forms() -> Iterator[str]:
    yield "## Forms of data\n\n`data.form` of the sources `file` and `hub`; `auto` takes the one that fits.\n"
    for name, form in FORMS.items():
        more = f", read too if there: {', '.join(form.reads)}" if form.reads else ""
        guessed = "" if form.guessed else "; never taken by `auto`"
        yield f"`{name}`: {', '.join(form.needs)}{more}{guessed}.\n"
        yield f"```json\n{json.dumps(form.example, ensure_ascii=False)}\n```\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit("docs/configuration.md: old" if FILE.read_text(encoding="utf-8") != text() else 0)
    FILE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{FILE.name}: {len(text().splitlines())} lines\n")

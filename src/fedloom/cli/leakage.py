"""`fedloom leakage`: secrets are planted in a run's data, and the finished model is attacked for them."""

from pathlib import Path
from typing import Annotated

import typer

from fedloom.base.errors import ConfigError
from fedloom.cli.output import AsJson, Quiet, RunFile, overriding, tell, today

__all__ = ["leakage"]


def leakage(
    file: RunFile,
    overrides: Annotated[list[str] | None, overriding("rounds=4")] = None,
    out: Annotated[Path | None, typer.Option(help="The directory to make.", show_default=False)] = None,
    canaries: Annotated[int, typer.Option(help="Secrets of each number of repetitions.")] = 8,
    repeats: Annotated[str, typer.Option(help="How often secrets are planted.")] = "0,1,4,16",
    seeds: Annotated[int, typer.Option(help="Runs, each with the next seed and secrets of its own.")] = 1,
    shadows: Annotated[int, typer.Option(help="Models trained on halves of the data, for one attack more.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a run with planted secrets and report what the model gives away. Not resumable, and for the owner alone."""
    from fedloom import api
    from fedloom.base.files import removed_if_refused
    from fedloom.cli.console import Display
    from fedloom.runs.attacked import attacked_files
    from fedloom.runs.directory import RunDirectory
    from fedloom.runs.leakage.report import Asked, Reported, check_leakage
    from fedloom.runs.leakage.report import leakage as reported
    from fedloom.runs.leakage.summary import summary

    asked = Asked(canaries, _numbers(repeats), seeds, shadows)
    wanted = api.load_run(file, overrides or [])
    check_leakage(wanted, asked)
    source = file.read_text(encoding="utf-8") + "".join(f"# override: {override}\n" for override in overrides or [])
    folder = out or Path("runs") / f"{today()}_{file.stem}_s{wanted.seed}_leakage"
    directory = RunDirectory.create(folder, attacked_files(wanted, source))
    with removed_if_refused(folder), directory.held(), Display(wanted, quiet=quiet or as_json) as display:
        for event in reported(wanted, directory, asked):
            if isinstance(event, Reported):
                tell(event.record, texts=[*summary(event.record), str(folder)], as_json=as_json, quiet=quiet)
            else:
                display.event(event)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--repeats: found '{text}', allowed are whole numbers as in 0,1,4,16.") from None

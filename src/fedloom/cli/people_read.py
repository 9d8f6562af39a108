"""`fedloom people read`: captures of what others laid down, in their own layouts (docs/people.md)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedloom.cli.output import lines

if TYPE_CHECKING:
    from fedloom.people.captures import Capture
    from fedloom.people.truth_files import Truth

__all__ = ["read"]

read = typer.Typer(help="Make captures of scans and of a parser's files that you have; nothing is fetched.")

Out = Annotated[Path, typer.Option(help="The capture's folder to make.", show_default=False)]
Consent = Annotated[
    bool, typer.Option("--consent", help="The people agreed to be reconstructed: the data's form says so.")
]
WithTruth = Annotated[bool, typer.Option("--truth", help="Keep the scan beside it, to measure by; never to train on.")]


@read.command()
def thuman(
    scan: Annotated[Path, typer.Argument(help="A scan's folder: NAME/NAME.obj, .mtl, texture.", show_default=False)],
    out: Out,
    consent: Consent = False,
    truth: WithTruth = False,
    views: Annotated[int, typer.Option(help="Photographs to take of it.")] = 6,
    size: Annotated[int, typer.Option(help="Rows and columns of a picture.")] = 256,
) -> None:
    """Photograph a scan of THuman2.0 or 2.1 by a ring of cameras; there are no parses, add them by `read schp`."""
    from fedloom.people.readers.thuman import read_thuman
    from fedloom.people.studios import Studio

    studio = Studio(name="thuman", views=views, height=size, width=size)
    _write(*read_thuman(scan, studio, consent=consent), out, truth)


@read.command("4d-dress")
def four_d_dress(
    take: Annotated[Path, typer.Argument(help="SUBJECT/OUTFIT/TAKE of 4D-DRESS.", show_default=False)],
    out: Out,
    frame: Annotated[int, typer.Option(help="Which moment.", show_default=False)],
    consent: Consent = False,
    truth: WithTruth = False,
    factor: Annotated[int, typer.Option(min=1, help="Rows and columns of its pixels that make one.")] = 10,
) -> None:
    """Take the photographs of one moment of 4D-DRESS; there are no parses, add them by `read schp`."""
    from fedloom.people.readers.four_d_dress import read_4d_dress

    _write(*read_4d_dress(take, frame, consent=consent, factor=factor), out, truth)


@read.command()
def schp(
    capture: Annotated[Path, typer.Argument(help="A capture's folder.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="What SCHP wrote: view_00.png or .npy, ...", show_default=False)],
    out: Out,
    parser: Annotated[str, typer.Option(help="Its data set: lip, atr or pascal.", show_default=False)],
) -> None:
    """Write a capture again with what Self-Correction for Human Parsing told of its photographs."""
    from fedloom.people.capture_files import read_capture
    from fedloom.people.readers.schp import with_schp

    _write(with_schp(read_capture(capture), folder, parser), None, out, False)


def _write(capture: "Capture", true: "Truth | None", out: Path, with_truth: bool) -> None:
    from fedloom.base.files import refuse_filled
    from fedloom.people.capture_files import write_capture
    from fedloom.people.truth_files import write_truth

    refuse_filled(out)
    write_capture(capture, out)
    if true and with_truth:
        write_truth(true, out / "truth")
    lines([str(out)])

"""`fedloom demo`: things to be seen at work, in one command each."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.output import lines

__all__ = ["demo"]

demo = typer.Typer(help="Things to be seen at work, in one command each.")


@demo.callback()
def _demo() -> None:
    """Keep `network` a command of its own."""


@demo.command("network")
def demo_network(
    out: Annotated[Path | None, typer.Option(help="A folder to keep; left out: a temporary one.")] = None,
) -> None:
    """Run a private tuning with secure sums over a server and three nodes on this machine, and kill one on the way."""
    from fedloom.network.demo import demonstrated

    if out is not None:
        for line in demonstrated(out):
            lines([line])
        return
    with tempfile.TemporaryDirectory(prefix="fedloom-demo-") as folder:
        for line in demonstrated(Path(folder) / "federation"):
            lines([line])

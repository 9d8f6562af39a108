"""`fedloom split`: weights in parts, and what a server of split training could read."""

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.output import AsJson, lines, overriding, tell

__all__ = ["split"]

split = typer.Typer(help="Split training: weights in parts, and the audit of what its server could read.")


@split.command("partition")
def split_partition(
    model: Annotated[str, typer.Argument(help="Folder or name of a model; '' is the embedded one.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    cut: Annotated[str, typer.Option(help="Blocks that the client keeps at the input and at the output.")] = "1:1",
) -> None:
    """Slice a model's weights into input, middle and output, each with a manifest of hashes."""
    from fedloom.split.cut import Cut
    from fedloom.split.partition import partition

    for one in partition(model, Cut.read(cut), out):
        lines([f"{out / one.part}: {len(one.tensors)} tensors of {one.base_id}"])


@split.command("audit")
def split_audit(
    where: Annotated[Path, typer.Argument(help="A run file, or the directory of a run.", show_default=False)],
    overrides: Annotated[list[str] | None, overriding("protocol.cuts=['2:1']")] = None,
    texts: Annotated[int, typer.Option(help="Texts of the first client that are attacked.")] = 4,
    most_tokens: Annotated[int, typer.Option(help="Tokens of each at most.")] = 48,
    steps: Annotated[int, typer.Option(help="Steps of the learned inverter.")] = 400,
    as_json: AsJson = False,
) -> None:
    """Attack one client's texts as a curious server could, T1 to T5; for the owner of the texts alone."""
    from fedloom import api
    from fedloom.base.errors import ConfigError
    from fedloom.runs.directory import RunDirectory
    from fedloom.runs.split_audit import AuditSettings, audit_split, told
    from fedloom.runs.tuning import run_of

    settings = AuditSettings(texts=texts, most_tokens=most_tokens, inverter_steps=steps)
    if where.is_dir() and overrides:
        raise ConfigError(
            f"{where}: a run directory says all; allowed are overrides of a run file alone: leave them out."
        )
    run = run_of(RunDirectory.open(where)) if where.is_dir() else api.load_run(where, overrides or [])
    found = audit_split(run, settings, where if where.is_dir() else None)
    tell(found, texts=list(told(found)), as_json=as_json)

"""`fedloom split`: weights in parts, answers through a server, and what it could read."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from fedloom.cli.output import AsJson, RunFile, lines, overriding, tell

__all__ = ["split"]

split = typer.Typer(help="Split training: weights in parts, answers, and the audit of what its server could read.")


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


_DEMO: dict[str, Any] = {
    "protocol": {"name": "split", "cuts": ["1:1"], "wire": "bfloat16"},
    "rounds": 5,
    "data": {"name": "world", "n_clients": 4},
    "local": {"lr": 1e-2, "steps": 10, "batch": 4, "optimiser_state": "kept"},
}
"""`experiments/split.toml` in half as many rounds."""


@split.command("demo")
def split_demo(
    out: Annotated[Path | None, typer.Option(help="A run directory to keep; left out: a temporary one.")] = None,
) -> None:
    """Train a small model whose middle is at a server, in this process, and attack what that server has seen."""
    if out is not None:
        _demonstrate(out)
        return
    with tempfile.TemporaryDirectory(prefix="fedloom-demo-") as folder:
        _demonstrate(Path(folder) / "split")


def _demonstrate(out: Path) -> None:
    from fedloom import api
    from fedloom.runs.execute import RoundDone
    from fedloom.runs.measure import Evaluated
    from fedloom.runs.split_audit import AuditSettings, audit_split, told
    from fedloom.runs.tuning import read_run

    run = read_run(_DEMO)
    lines(["Four clients keep text, labels, first and last block; a server has the two blocks between."])
    for event in api.start(run, out):
        if isinstance(event, Evaluated):
            score = event.means["test/exact_match"]
            lines([f"{event.phase}: exact match on private facts {score:.3f}, loss {event.means['test/loss']:.3f}"])
        elif isinstance(event, RoundDone):
            lines([f"round {event.record.round + 1}: {event.record.bytes_per_token:.0f} bytes a token, both ways"])
    lines(["", *told(audit_split(run, AuditSettings(texts=2, inverter_steps=200), out))])


_MaxNew = Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")]


@split.command("generate")
def split_generate(
    where: Annotated[Path, typer.Argument(help="The directory of a run, or a node's folder.", show_default=False)],
    questions: Annotated[list[str], typer.Argument(help="What is asked.", show_default=False)],
    client: Annotated[str, typer.Option(help="Whose parts, where each has its own or a node several.")] = "",
    adapter: Annotated[
        Path | None, typer.Option(help="At a node, the folder of the run's adapter.", show_default=False)
    ] = None,
    max_new_tokens: _MaxNew = 64,
) -> None:
    """Answer questions with a split run's result: at a node through its server, else with both in this process."""
    from fedloom.base.errors import ConfigError

    at_node = (where / "node.toml").is_file()
    if adapter is not None and not at_node:
        raise ConfigError("--adapter: found with the directory of a run, which has its own; leave it out.")
    if at_node:
        from fedloom.network.answering import ask_server
        from fedloom.network.node_file import NodeFolder

        home = NodeFolder(where)
        lines(ask_server(home, questions, client=client, adapter=adapter, max_new_tokens=max_new_tokens))
        return
    from fedloom.runs.directory import RunDirectory
    from fedloom.runs.split_answers import answered_here
    from fedloom.runs.tuning import run_of

    run = run_of(RunDirectory.open(where))
    lines(answered_here(run, where, questions, client=client, max_new_tokens=max_new_tokens))


@split.command("serve")
def split_serve(
    folder: Annotated[Path, typer.Argument(help="The directory of a run that was served.", show_default=False)],
    listen: Annotated[str, typer.Option(help="Address and port; left out: those of the run.")] = "",
    most_tokens: Annotated[int, typer.Option(min=1, help="Tokens of all sessions together.")] = 1 << 16,
    idle_s: Annotated[float, typer.Option(min=1.0, help="Seconds after which a silent session is forgotten.")] = 300.0,
) -> None:
    """Serve the middle of a run's result to the nodes that made it, until it is interrupted."""
    from fedloom.network.answering import serve_answers

    def listening(port: int) -> None:
        lines([f"answers are served at port {port}; Ctrl-C ends it"])

    serve_answers(folder, listen=listen, most_tokens=most_tokens, idle_s=idle_s, on_listening=listening)


@split.command("bench")
def split_bench(
    file: RunFile,
    overrides: Annotated[list[str] | None, overriding("local.batch=1")] = None,
    clients: Annotated[str, typer.Option(help="Numbers of clients, with commas.")] = "1,2,4,8",
    rtt_ms: Annotated[float, typer.Option(min=0.0, help="There and back on the emulated link.")] = 20.0,
    mbit: Annotated[float, typer.Option(min=0.01, help="A client's link.")] = 100.0,
    server_mbit: Annotated[float, typer.Option(min=0.01, help="The server's, which all share.")] = 1000.0,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 12,
    as_json: AsJson = False,
) -> None:
    """Time steps course by course over an emulated link, beside what the formulas say; on a quiet machine."""
    from fedloom import api
    from fedloom.base.errors import ConfigError
    from fedloom.runs.split_bench import BenchSettings, bench_split, bench_table

    counts = clients.split(",")
    if not all(one.strip().isdecimal() for one in counts):
        raise ConfigError(f"--clients: found '{clients}', allowed are numbers with commas, such as 1,2,4.")
    settings = BenchSettings(
        clients=tuple(map(int, counts)), rtt_ms=rtt_ms, mbit=mbit, server_mbit=server_mbit, steps=steps
    )
    found = bench_split(api.load_run(file, overrides or []), settings)
    tell(found, [bench_table(found)], as_json=as_json)

"""`fedloom server` and `fedloom status`: a run whose clients are on machines of their own."""

import contextlib
import signal
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedloom.base.errors import ConfigError
from fedloom.cli.carried import Flower, FlowerCa, Secret, flower_place
from fedloom.cli.output import AsJson, Quiet, RunFile, lines, overriding, tell, today

if TYPE_CHECKING:
    from fedloom.network.server import ServerKeys

__all__ = ["drained_by_sigterm", "server", "status", "verify"]

Metrics = Annotated[str, typer.Option(help="Loopback address of /metrics and /ready.", show_default=False)]
Drain = Annotated[float, typer.Option(min=0, help="Seconds that the open round has after SIGTERM.")]
_DRAINED = 75
"""Exit code of a server that SIGTERM has ended: EX_TEMPFAIL of sysexits.h, as going on is all that is to be done."""

Overrides = Annotated[list[str] | None, overriding("rounds=10")]


def server(
    file: RunFile,
    overrides: Overrides = None,
    enrolled: Annotated[Path, typer.Option(help="The nodes and whose data each holds (TOML).")] = Path("clients.toml"),
    listen: Annotated[str, typer.Option(help="Address and port; off loopback with certificates only.")] = "127.0.0.1:0",
    certificate: Annotated[Path | None, typer.Option(help="The server's certificate.", show_default=False)] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, mode 0600.", show_default=False)] = None,
    ca: Annotated[Path | None, typer.Option(help="The authority's certificate.", show_default=False)] = None,
    revoked: Annotated[Path | None, typer.Option(help="List of revoked certificates.", show_default=False)] = None,
    relay: Annotated[
        list[str] | None,
        typer.Option(help="Name, in its certificate, of what may end TLS before the server.", show_default=False),
    ] = None,
    metrics: Metrics = "",
    drain: Drain = 60.0,
    flower: Flower = "",
    secret: Secret = None,
    flower_ca: FlowerCa = None,
    out: Annotated[Path | None, typer.Option(help="The run directory to make.", show_default=False)] = None,
    quiet: Quiet = False,
) -> None:
    """Carry out a run with nodes that hold the data; `fedloom resume` goes on with it.

    SIGTERM lets the open round end and opens no other; the exit code is 75 then. A second one ends at once.

    With --flower a Flower federation carries it, once `flwr run` has been called (docs/flower.md).
    """
    from fedloom import api
    from fedloom.cli.console import Display
    from fedloom.network.enrolment import read_enrolment
    from fedloom.network.server import serve

    wanted = api.load_run(file, overrides or [])
    folder = out or Path("runs") / f"{today()}_{file.stem}_s{wanted.seed}"
    source = file.read_text(encoding="utf-8") + "".join(f"# override: {override}\n" for override in overrides or [])
    display, keys = Display(wanted, quiet=quiet), _keys(certificate, key, ca, revoked)
    with drained_by_sigterm() as stopping, display:
        for event in serve(
            wanted,
            folder,
            read_enrolment(enrolled),
            listen=listen,
            keys=keys,
            relays=relay or [],
            flower=flower_place(flower, secret, flower_ca) if flower else None,
            metrics=metrics,
            stopping=stopping,
            drain_s=drain,
            source=source,
            on_report=display.report,
            on_listening=lambda port: lines([] if quiet else [_heard_at(listen, port)]),
        ):
            display.event(event)
    lines([] if quiet else [str(folder)])


@contextlib.contextmanager
def drained_by_sigterm() -> Generator[threading.Event]:
    """Give what SIGTERM sets; a server that has ended for it exits with 75, and a second SIGTERM ends it at once."""
    from fedloom.network.desk import Drained

    stopping = threading.Event()

    def asked(*_: object) -> None:
        signal.signal(signal.SIGTERM, before)
        stopping.set()

    before = signal.signal(signal.SIGTERM, asked)
    try:
        yield stopping
    except Drained as error:
        lines([str(error)])
        raise typer.Exit(_DRAINED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _heard_at(listen: str, port: int) -> str:
    return f"listening on {listen.rpartition(':')[0]}:{port}" if port else "carried by a run of Flower"


def _keys(
    certificate: Path | None, key: Path | None, authority: Path | None, revoked: Path | None
) -> "ServerKeys | None":
    from fedloom.network.server import ServerKeys

    given = [path for path in (certificate, key, authority) if path]
    if certificate and key and authority:
        for path in given:
            if not path.is_file():
                raise ConfigError(f"{path}: no such file; `fedloom keys` makes it.")
        return ServerKeys(certificate, key, authority, revoked)
    if given:
        raise ConfigError("certificate, key and ca: found some of the three, allowed are all or none.")
    return None


def status(folder: Annotated[Path, typer.Argument(help="A run directory.")], as_json: AsJson = False) -> None:
    """Print whom a run waits for: nodes with their last sign of life, clients with what they do."""
    from fedloom.network.server import read_status

    told = read_status(folder)
    nodes = [
        f"node {name}: {'here' if one['here'] else 'not here'}, "
        + (f"last heard {one['seen_s_ago']:.0f} s before" if one["seen_s_ago"] is not None else "never heard")
        for name, one in told["nodes"].items()
    ]
    clients = [
        f"client {name}: {one['phase']}"
        + (f", {one['bytes']} of {one['of']} bytes" if one.get("of") else "")
        + (f": {one['reason']}" if one.get("reason") else "")
        for name, one in told["clients"].items()
    ]
    head = "the run is over" if told["over"] else f"round {told['round']}"
    tell(told, texts=[head, *nodes, *clients], as_json=as_json)


def verify(folder: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Compute a served run's result once more from the packets that its server kept (deployment.keep_packets)."""
    from fedloom.network.verify import verified
    from fedloom.runs.directory import RunDirectory

    lines(verified(RunDirectory.open(folder)))

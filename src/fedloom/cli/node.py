"""`fedloom node`: an owner's side of a federation."""

import json
import logging
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedloom.cli.carried import Flower, FlowerCa, Secret, flower_place
from fedloom.cli.output import AsJson, lines, log_to_stderr

if TYPE_CHECKING:
    from fedloom.network.manifest import Manifest
    from fedloom.network.node_file import NodeFolder

__all__ = ["node"]

node = typer.Typer(help="An owner's side of a federation: keys, policy, approval, ledger (docs/hospital.md).")

Folder = Annotated[Path, typer.Argument(help="The node's folder.", show_default=False)]
Which = Annotated[str, typer.Argument(help="A manifest: its digest or how that begins; needed where several wait.")]

_SETTINGS = """# What this node is told by its owner; see docs/hospital.md.
name = "{name}"
server = "{server}"
address = "{address}"

[model]
# path = "/models/base"          # left out: the embedded model

# A table for each client of this node, as a run file has it under [data].
[data.{name}]
name = "file"
path = "records.jsonl"
"""


@node.command("init")
def node_init(
    folder: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    name: Annotated[str, typer.Option(help="The node's name.")],
    server: Annotated[str, typer.Option(help="The server's name in its certificate.")],
    address: Annotated[str, typer.Option(help="Host and port at which the server listens.")],
) -> None:
    """Make a node's folder: settings, a policy that forbids everything, a key that never leaves it, and a request."""
    from fedloom.base.files import refuse_filled, write_atomic
    from fedloom.network.keys import make_key, make_request
    from fedloom.network.policy import FORBIDDING

    refuse_filled(folder, "choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    write_atomic(folder / "node.toml", _SETTINGS.format(name=name, server=server, address=address))
    write_atomic(folder / "policy.toml", FORBIDDING)
    make_key(folder / "node.key")
    write_atomic(folder / "node.csr", make_request(folder / "node.key", "node", name))
    lines(
        [
            f"{folder / 'node.csr'}: send it to the federation's authority, and compare fingerprints by telephone",
            f"{folder / 'node.toml'}: say where the data and the model lie",
            f"{folder / 'policy.toml'}: forbids everything; allow what you agree to",
        ]
    )


@node.command("request")
def node_request(folder: Folder) -> None:
    """Print a new request for the node's key, to renew its certificate while the old one is valid."""
    from fedloom.network.keys import make_request

    home = _home(folder)
    lines(make_request(home.key, "node", home.file.name).splitlines())


@node.command("check")
def node_check(folder: Folder) -> None:
    """Check settings, certificate, clock, disk, data, model and the server; exit code 1 where something is amiss."""
    from fedloom.network.checking import checks

    found = list(checks(_home(folder)))
    lines([f"{'ok ' if one.fits else 'NO '} {one.what}: {one.told}" for one in found])
    if not all(one.fits for one in found):
        raise typer.Exit(1)


@node.command("review")
def node_review(folder: Folder, manifest: Which = "") -> None:
    """Print one page: what leaves, how noised, how often, what the server sees, what differs from the last run."""
    from fedloom.network.review import review

    home = _home(folder)
    lines(review(home, _manifest(home, manifest)))


@node.command("approve")
def node_approve(folder: Folder, manifest: Which = "") -> None:
    """Sign a manifest with the node's key, after it was reviewed."""
    home = _home(folder)
    found = _manifest(home, manifest)
    home.approve(found)
    lines([f"approved {found.digest}"])


@node.command("run")
def node_run(folder: Folder, flower: Flower = "", secret: Secret = None, flower_ca: FlowerCa = None) -> None:
    """Work until the run is over; a server that is gone is called again, for ever.

    With --flower the tasks of a SuperNode carry what node and server say (docs/flower.md); bundles are never run.
    """
    from fedloom.network.node import Node

    log_to_stderr(logging.INFO)  # whoever runs it sees that it has joined, and each report that has left
    home = _home(folder)
    if not flower:
        Node(home).run()
        return
    from fedloom.network.flower import FlowerCalls
    from fedloom.network.relay_link import relayed

    with closing(FlowerCalls(flower_place(flower, secret, flower_ca))) as calls:
        Node(home, relayed(calls, home)).run()


@node.command("ledger")
def node_ledger(folder: Folder, as_json: AsJson = False) -> None:
    """Print what has left this node and what it refused; a broken chain is refused with its line."""
    records = _home(folder).ledger.records()
    lines([json.dumps(record) for record in records] if as_json else [_line(record) for record in records])
    lines([] if as_json else [f"{len(records)} lines, the chain is whole; its head is {_head(records)}"])


@node.command("leave")
def node_leave(
    folder: Folder,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the journals, but for what was counted of privacy.")
    ] = False,
) -> None:
    """Take back every approval at once; a node that runs carries out no job from then on."""
    home = _home(folder)
    taken = home.revoke_approvals()
    if delete:
        home.delete_journals()
    lines([f"{taken} approvals taken back{', journals deleted' if delete else ''}"])


def _home(folder: Path) -> "NodeFolder":
    from fedloom.base.errors import MissingFileError
    from fedloom.network.node_file import NodeFolder

    if not (folder / "node.toml").is_file():
        raise MissingFileError(f"{folder}: no node's folder (it has no node.toml); `fedloom node init` makes one.")
    return NodeFolder(folder)


def _manifest(home: "NodeFolder", digest: str) -> "Manifest":
    from fedloom.base.errors import ConfigError
    from fedloom.network.manifest import Manifest

    found = [path for path in home.waiting() if path.stem.startswith(digest)]
    if len(found) != 1:  # with several, what was reviewed and what is approved might not be the same
        waiting = ", ".join(path.stem[:12] for path in home.waiting()) or "none"
        raise ConfigError(
            f"manifest: found {len(found)} that begin '{digest}', allowed is one; waiting: {waiting}; the node puts "
            "them there, and `fedloom node review` tells what each wants."
        )
    return Manifest.parsed(found[0].read_text(encoding="utf-8"))


def _line(record: dict[str, object]) -> str:
    rest = {key: value for key, value in record.items() if key not in ("time", "kind", "before", "sha256")}
    return f"{record['time']}  {record['kind']}  " + ", ".join(f"{key} {value}" for key, value in rest.items())


def _head(records: list[dict[str, object]]) -> object:
    return records[-1]["sha256"] if records else "empty"

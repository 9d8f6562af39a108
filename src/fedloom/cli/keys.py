"""`fedloom keys`: the identities of a federation."""

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.output import lines

__all__ = ["keys"]

keys = typer.Typer(help="Identities of a federation between machines: an authority, certificates, revocation.")

Folder = Annotated[Path, typer.Argument(help="The authority's folder; keep it off the network.", show_default=False)]


@keys.command("ca")
def keys_ca(folder: Folder, name: Annotated[str, typer.Option(help="The federation's name.")] = "federation") -> None:
    """Make a certificate authority: ca.key, which never leaves its folder, and ca.pem, which every party gets."""
    from fedloom.network.keys import make_authority

    lines([str(make_authority(folder, name))])


@keys.command("server")
def keys_server(
    folder: Annotated[Path, typer.Argument(help="The server's folder, made.", show_default=False)],
    name: Annotated[str, typer.Option(help="The server's name, which nodes are told.")],
) -> None:
    """Make a server's key and the request that the authority signs."""
    from fedloom.base.files import write_atomic
    from fedloom.network.keys import make_key, make_request

    folder.mkdir(parents=True, exist_ok=True)
    make_key(folder / "server.key")
    write_atomic(folder / "server.csr", make_request(folder / "server.key", "server", name))
    lines([str(folder / "server.csr")])


@keys.command("sign")
def keys_sign(
    folder: Folder,
    request: Annotated[Path, typer.Argument(help="A certificate request.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The certificate to write.")],
    server: Annotated[bool, typer.Option("--server", help="The request is a server's, not a node's.")] = False,
    days: Annotated[int, typer.Option(min=1, max=825, help="How long it is valid.")] = 90,
) -> None:
    """Sign a request; print whom the certificate names and its fingerprint, to be compared by telephone."""
    from fedloom.base.errors import MissingFileError
    from fedloom.base.files import write_atomic
    from fedloom.network.keys import sign_request

    if not request.is_file():
        raise MissingFileError(f"{request}: no such request.")
    text, who = sign_request(folder, request.read_text(encoding="utf-8"), "server" if server else "node", days=days)
    write_atomic(out, text)
    lines([f"{who.kind} {who.name}", f"fingerprint {who.fingerprint}", f"valid until {who.not_after:%Y-%m-%d}"])


@keys.command("revoke")
def keys_revoke(
    listing: Annotated[Path, typer.Argument(help="The server's list of revoked certificates.", show_default=False)],
    certificate: Annotated[Path, typer.Argument(help="The certificate to revoke.", show_default=False)],
) -> None:
    """Revoke a certificate: a server that has the list takes its owner in no more."""
    from fedloom.base.errors import MissingFileError
    from fedloom.network.keys import identity_of, revoke

    if not certificate.is_file():
        raise MissingFileError(f"{certificate}: no such certificate.")
    who = identity_of(certificate.read_text(encoding="utf-8"), str(certificate))
    revoke(listing, who.fingerprint)
    lines([f"revoked {who.kind} {who.name}, {who.fingerprint}"])

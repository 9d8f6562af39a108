"""Options of the two commands whose rounds a Flower federation may carry."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedloom.base.errors import ConfigError

if TYPE_CHECKING:
    from fedloom.network.flower import FlowerPlace

__all__ = ["Flower", "FlowerCa", "Secret", "flower_place"]

Flower = Annotated[
    str, typer.Option(help="Runtime API of a SuperNode or SuperLink that carries the rounds.", show_default=False)
]
Secret = Annotated[
    Path | None,
    typer.Option(help="Its --superexec-auth-secret-file, mode 0600; needed with --flower.", show_default=False),
]
FlowerCa = Annotated[
    Path | None, typer.Option(help="The authority of its certificate; needed off loopback.", show_default=False)
]


def flower_place(address: str, secret: Path | None, root: Path | None) -> "FlowerPlace":
    """Return where tasks of Flower are taken; ConfigError where there is no secret."""
    from fedloom.network.flower import FlowerPlace

    if secret is None:
        raise ConfigError(
            f"secret: missing; {address} gives tasks to whoever has the file of its --superexec-auth-secret-file: give "
            "--secret."
        )
    return FlowerPlace(address, secret, root)

"""What the command line shows of a run: progress bars on a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedloom.base.mean import Mean
from fedloom.base.shown import shown
from fedloom.contracts.federated import Report
from fedloom.runs.execute import Event, Note, RoundDone
from fedloom.runs.tuning import TuningRun

__all__ = ["Display"]


class Display:
    """Follows a run: a bar of rounds and one of clients on a terminal, a line per round elsewhere, nothing if quiet."""

    def __init__(self, run: TuningRun, *, quiet: bool) -> None:
        self._run = run
        self._console = Console(quiet=quiet)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._rounds = self._bars.add_task("rounds", total=None, loss="")
        self._clients = self._bars.add_task("clients", total=None, loss="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def report(self, report: Report) -> None:
        """Show that a client has reported."""
        self._bars.update(self._clients, advance=1, loss=escape(f"{report.client} {_loss(report.loss)}"))

    def event(self, event: Event) -> None:
        """Show a round or an evaluation."""
        if isinstance(event, RoundDone):
            self._round(event)
        elif isinstance(event, Note):
            self._line(f"note: {event.text}")
        else:
            scores = ", ".join(f"{name} {value:.3f}" for name, value in event.means.items() if name.count("/") == 1)
            whose = f" of {event.leg}" if event.leg and event.phase != "base" else ""
            self._line(f"{event.wall_s:8.1f} s  {event.phase}{whose}: {scores}")

    def _round(self, event: RoundDone) -> None:
        rounds = self._run.rounds
        done = event.stage * rounds + event.record.round + 1
        loss = f"{_loss(event.record.loss)}, {done / max(event.wall_s, 1e-9):.2f} rounds/s"
        self._bars.update(self._rounds, completed=done, total=event.n_stages * rounds, loss=loss)
        self._bars.reset(self._clients, total=len(event.record.clients), loss="")
        if not self._console.is_terminal and event.n_stages == 1:
            self._line(f"{event.wall_s:8.1f} s  round {event.record.round + 1}/{rounds}  {loss}")

    def _line(self, text: str) -> None:
        self._bars.console.print(escape(shown(text)), soft_wrap=True, highlight=False)


def _loss(loss: Mean) -> str:
    return f"loss {loss.value:.3f}" if loss.weight else "loss not told"

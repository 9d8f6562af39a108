"""What an attack came to in a run: malicious rows by round, and what the rule made of them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedloom.base.mean import Mean
from fedloom.results.outcome import Outcome, reading
from fedloom.runs.directory import RunDirectory

__all__ = ["WORDS", "Attacked", "attack_line", "attack_of"]

WORDS: Mapping[str, str] = {
    "share": "share of the aggregate",
    "left_out": "malicious rows left out",
    "wrongly_left_out": "benign rows left out",
    "auc": "AUC of the rule's score",
    "cos_bb": "cosine benign, benign",
    "cos_bm": "cosine benign, malicious",
    "cos_mm": "cosine malicious, malicious",
    "floor_harmless_start": "harmless_start of the attackers' own answers",
    "ceiling_harmless_start": "of refusals",
    "floor_harmless_published": "harmless_published of the attackers' own answers",
    "ceiling_harmless_published": "of refusals",
}
"""What is measured of an attack, with the words for it."""


@dataclass(frozen=True)
class Attacked:
    """What the rounds of a run, or of several, say of an attack."""

    rounds: Counter[int] = field(default_factory=Counter[int])
    """How many rounds had so many malicious rows."""
    means: Mapping[str, Mean] = field(default_factory=dict[str, Mean])

    def __add__(self, other: "Attacked") -> "Attacked":
        """Return what both say together."""
        names = dict.fromkeys((*self.means, *other.means))
        joined = {name: self.means.get(name, Mean()) + other.means.get(name, Mean()) for name in names}
        return Attacked(self.rounds + other.rounds, joined)

    @property
    def histogram(self) -> str:
        """The rounds with 0, 1, 2 and so on malicious rows."""
        return "/".join(str(self.rounds[count]) for count in range(max(self.rounds, default=0) + 1))


def attack_of(found: Outcome) -> Attacked:
    """Return what a run's metrics say of an attack; of a run without one nothing."""
    if not found.settings.get("attack"):
        return Attacked()
    directory = RunDirectory(Path(found.path))
    rounds, means = Counter[int](), dict[str, Mean]()
    with reading(directory, "metrics.jsonl"):
        for line in directory.lines("metrics.jsonl"):
            if line["phase"] == "attack" and line["name"] == "malicious":
                rounds[int(line["total"])] += 1
            elif line["phase"] == "attack":
                means[line["name"]] = means.get(line["name"], Mean()) + Mean(line["total"], line["weight"])
    return Attacked(rounds, means)


def attack_line(found: Outcome) -> list[str]:
    """Return a line that says what an attack came to; none where there was none."""
    attacked = attack_of(found)
    if not attacked.rounds:
        return []
    told = [f"{words} {attacked.means[name].value:.3f}" for name, words in WORDS.items() if name in attacked.means]
    head = f"attack {found.settings['attack']['name']}: rounds with 0, 1, ... malicious rows {attacked.histogram}"
    return ["; ".join([head, *told])]

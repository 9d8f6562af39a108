"""Which wrong pairs filters and losses find, where it is known which pairs are wrong.

    python tools/pair_audit.py filters [--selector random] [--seeds 10] [--noise 0.0] [--sums] [--ira]
    python tools/pair_audit.py ira [--pairs FILE --model FOLDER] [--mismatched 0.5] [--seeds 5]

`filters` makes pairs by `analogical` of the documents of `fedloom.world.notes`, whose true pairs are known, and says of
each step of the chain that `pairs` has, client by client, how many right and wrong pairs it dropped and what precision
was before and after it; then the yields of the clients, kept pairs over documents, and the precisions of what they
kept. `--sums` lets `grounding` take sums; `--ira` tells right pairs from wrong ones, before any filter, by IRA too.

`ira` gives a share of gold pairs a response of another one, so that none keeps its own, and tells the mismatched from
the others by IRA = L(y) - L(y | x) (FedDQC, Du et al., 2024, https://arxiv.org/abs/2410.11540, section 3.2). Pairs are
public ones of the controlled world, or a file with instruction and output; AUC has the interval of a bootstrap within
either group, and the claim holds where its lower bound is above 0.5 in each seed. Responses come from any other pair,
of another kind of question too: mismatches that look right are not made here.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedloom.base import rng
from fedloom.base.errors import DataError, FedloomError
from fedloom.base.files import json_sha256
from fedloom.base.machine import device_of
from fedloom.base.plugin import lookup
from fedloom.completers.analogical import analogous
from fedloom.contracts.examples import Chat, chat
from fedloom.contracts.federated import ModelFamily, Task
from fedloom.contracts.language import language_model
from fedloom.contracts.stages import Preparation
from fedloom.contracts.synthesis import Around, Candidate, Filter, PoolRow, Selector, Where
from fedloom.data.records import read_records
from fedloom.evaluation.difficulty import difficulties
from fedloom.runs.audit_bounds import Membership, membership
from fedloom.synthesis.chain import Judged, judged
from fedloom.synthesis.vectors import similarities
from fedloom.world import World
from fedloom.world.notes import notes

# -------------------------------------------------------------------------------------------------- precision by filter


@dataclass(frozen=True)
class Step:
    """What a filter did to right and to wrong pairs."""

    name: str
    right: int
    """Right pairs that came to it."""
    wrong: int
    right_dropped: int
    wrong_dropped: int
    nothing: int
    """Documents without a pair, which it dropped too."""

    @property
    def before(self) -> float:
        """Precision of the pairs that came to it."""
        return self.right / max(self.right + self.wrong, 1)

    @property
    def after(self) -> float:
        """Precision of the pairs that it kept."""
        return (self.right - self.right_dropped) / max(
            self.right + self.wrong - self.right_dropped - self.wrong_dropped, 1
        )


Client = Sequence[tuple[PoolRow, Judged]]
"""The documents of a client with what became of them."""


def made(seed: int, *, selector: str, noise: float, documents: int, sums: bool) -> list[Client]:
    """Return what became of the documents of each client of one world."""
    world = notes(seed, documents=documents, noise=noise)
    found: list[Client] = []
    for name, owned in world.clients.items():
        texts = [one.document for one in owned]
        near = similarities(texts, [row.document for row in world.pool])
        where = Where(seed, name, tuple(map(json_sha256, texts)))
        shown = [world.pool[one.rows[-1]] for one in lookup(Selector, selector)()(near, where)]
        candidates = [_candidate(at, row, text) for at, (row, text) in enumerate(zip(shown, texts, strict=True))]
        found.append(list(zip(owned, judged(candidates, {}, chain(sums=sums), Around(world.pool)), strict=True)))
    return found


def chain(*, sums: bool) -> list[Filter]:
    """Return the filters that `pairs` has where nothing is said of them."""
    shipped: Sequence[Filter] = vars(lookup(Preparation, "pairs")(pool="world"))["filters"]
    return [lookup(Filter, "grounding")(sums=True) if sums and one.name == "grounding" else one for one in shipped]


def _candidate(at: int, row: PoolRow, document: str) -> Candidate:
    instruction, response = analogous(row.document, row.instruction, row.response, document) or ("", "")
    return Candidate(id=str(at), document=document, instruction=instruction, response=response, examples=(row,))


def steps(clients: Sequence[Client]) -> list[Step]:
    """Return what each filter dropped, over all clients."""
    found = [one for client in clients for one in client]
    names = list(dict.fromkeys(name for _, judgement in found for name in judgement.verdicts))
    return [_step(name, found) for name in names]


def _step(name: str, found: Client) -> Step:
    came = Counter(_kind(*one) for one in found if name in one[1].verdicts)
    gone = Counter(_kind(*one) for one in found if name in one[1].verdicts and one[1].verdicts[name].reason)
    return Step(name, came["right"], came["wrong"], gone["right"], gone["wrong"], gone["none"])


def _kind(true: PoolRow, found: Judged) -> str:
    pair = found.candidate.instruction, found.candidate.response
    return "none" if not pair[0] else "right" if pair == (true.instruction, true.response) else "wrong"


def yields(clients: Sequence[Client]) -> list[float]:
    """Return kept pairs over documents of each client."""
    return [sum(not found.reason for _, found in client) / len(client) for client in clients]


def precisions(clients: Sequence[Client]) -> list[float]:
    """Return the share of right pairs among those kept, of each client that kept one."""
    kept = [[_kind(*one) for one in client if not one[1].reason] for client in clients]
    return [kinds.count("right") / len(kinds) for kinds in kept if kinds]


def by_ira(clients: Sequence[Client]) -> Membership:
    """Return how well IRA, by the embedded model, tells right pairs from wrong ones of the same documents."""
    kinds = [(_kind(*one), one[1].candidate) for client in clients for one in client]
    written = [(kind, pair) for kind, pair in kinds if kind != "none"]
    pairs = [chat(pair.instruction, pair.response) for _, pair in written]
    return separated(pairs, [kind == "wrong" for kind, _ in written], "", "float32")


def _print_filters(given: argparse.Namespace) -> int:
    clients = [
        client
        for seed in range(given.seeds)
        for client in made(seed, selector=given.selector, noise=given.noise, documents=given.documents, sums=given.sums)
    ]
    lines = [f"{'filter':12} {'no pair':>8} {'right dropped':>15} {'wrong dropped':>15} {'precision before':>17} after"]
    for one in steps(clients):
        right, wrong = f"{one.right_dropped} of {one.right}", f"{one.wrong_dropped} of {one.wrong}"
        lines.append(f"{one.name:12} {one.nothing:>8} {right:>15} {wrong:>15} {one.before:>17.3f} {one.after:.3f}")
    for what, found in (("yield", yields(clients)), ("precision", precisions(clients))):
        spread = f"{min(found):.3f} to {max(found):.3f}, median {np.median(found):.3f}" if found else "none"
        lines.append(f"{what} of {len(found)} clients: {spread}")
    if given.ira:
        auc = by_ira(clients).auc
        lines.append(f"AUC of IRA before any filter {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


# ---------------------------------------------------------------------------------------------- mismatched pairs by IRA


def mismatched(pairs: Sequence[Chat], share: float, seed: int) -> tuple[list[Chat], list[bool]]:
    """Return the pairs, a share of them with another one's response, and which these are.

    Those chosen are sorted by response, in an order drawn by the seed, and turned by as many places as the commonest
    response has, so that none has its own again; DataError where one response is that of more than half of them.
    """
    random = rng.numpy_random("mismatched pairs", seed)
    chosen = random.permutation(len(pairs))[: round(share * len(pairs))].tolist()
    places = {text: at for at, text in enumerate(dict.fromkeys(pairs[at].reference for at in chosen))}
    order = sorted(chosen, key=lambda at: places[pairs[at].reference])
    commonest = max(Counter(pairs[at].reference for at in chosen).values(), default=0)
    if 2 * commonest > len(chosen):
        raise DataError(
            f"mismatched pairs: {commonest} of {len(chosen)} chosen pairs have one response, allowed is half of them; "
            "give pairs with more responses, or more of them."
        )
    found = list(pairs)
    for at, other in zip(order, order[commonest:] + order[:commonest], strict=True):
        turns = pairs[at].turns
        found[at] = replace(pairs[at], turns=(*turns[:-1], replace(turns[-1], text=pairs[other].reference)))
    return found, [at in set(chosen) for at in range(len(pairs))]


def separated(pairs: Sequence[Chat], wrong: Sequence[bool], model: str, dtype: str) -> Membership:
    """Return how well IRA tells right pairs from wrong ones; pairs that have no score are left out."""
    settings = {"dtype": dtype} | ({"path": model} if model else {})
    built = language_model(lookup(ModelFamily, "causal_lm")(**settings).build(seed=0, device=device_of("auto")))
    scores = [one.alignment for one in difficulties(built, lookup(Task, "sft")(), built.trainable, pairs)]
    groups = [
        np.array([score for score, odd in zip(scores, wrong, strict=True) if odd is kind and score == score])
        for kind in (False, True)
    ]
    return membership(groups[0], groups[1])


def gold(path: Path | None, count: int) -> list[Chat]:
    """Return the pairs of a file, or public ones of the controlled world."""
    if path is None:
        return [asked for _, asked in World(0).examples(count)]
    rows = [record.values for record in read_records(path)]
    missing = next((at for at, row in enumerate(rows, 1) if not row.get("instruction") or not row.get("output")), None)
    if missing is not None:
        raise DataError(f"{path}: row {missing} lacks instruction or output, allowed are rows with both; correct it.")
    return [chat(str(row["instruction"]), str(row["output"])) for row in rows]


def _print_ira(given: argparse.Namespace) -> int:
    held = True
    for seed in range(given.seeds):
        pairs, wrong = mismatched(gold(given.pairs, given.count), given.mismatched, seed)
        auc = separated(pairs, wrong, given.model, given.dtype).auc
        held &= auc.low > 0.5
        told = f"AUC of IRA {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"
        sys.stdout.write(f"seed {seed}: {told}, {sum(wrong)} of {len(pairs)} pairs mismatched\n")
    sys.stdout.write(f"{'holds' if held else 'FAILS'}: IRA tells mismatched pairs, lower bounds above 0.5\n")
    return 0 if held else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one of the two tables; return 1 if the claim about IRA does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("filters")
    one.add_argument("--selector", default="random")
    one.add_argument("--seeds", type=int, default=10)
    one.add_argument("--noise", type=float, default=0.0)
    one.add_argument("--documents", type=int, default=60)
    one.add_argument("--sums", action="store_true")
    one.add_argument("--ira", action="store_true")
    one.set_defaults(tell=_print_filters)
    other = kinds.add_parser("ira")
    other.add_argument("--pairs", type=Path)
    other.add_argument("--model", default="", help="folder of a model; left out: the embedded one")
    other.add_argument("--dtype", default="float32")
    other.add_argument("--count", type=int, default=200, help="pairs of the world, where no file is given")
    other.add_argument("--mismatched", type=float, default=0.5)
    other.add_argument("--seeds", type=int, default=5)
    other.set_defaults(tell=_print_ira)
    given = parser.parse_args(arguments)
    try:
        return given.tell(given)
    except FedloomError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())

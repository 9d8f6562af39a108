"""What protects each client's data over a whole run: noise calibrated on every step that the schedule plans."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fedloom.contracts.federated import PrivacyBudget
from fedloom.federated.rounds import drawn_clients
from fedloom.runs.tuning import TuningRun

__all__ = ["budgets_of"]


def budgets_of(
    run: TuningRun, sizes: Mapping[str, int], clients: Sequence[str] = (), *, numbers: int = 0
) -> dict[str, PrivacyBudget]:
    """Return the budget of each client's examples, or of all clients under ""; empty where nothing is protected.

    `sizes` are the numbers of examples of the clients that are asked about, `clients` all of them, if they are more,
    `numbers` those of a row; 0 where they are not known yet.
    Which clients a round samples is a function of the seed, so the uses of a client's data are counted, not bounded.
    """
    unit, mechanism = run.privacy.covers(), run.privacy
    if not unit.private:
        return {}
    clients = tuple(clients or sizes)
    n_drawn = run.asked_per_round(len(clients), run.clients_per_round or len(clients))
    if unit.at_server:
        return {"": mechanism.budget(population=len(clients), expected=n_drawn, uses=run.rounds)}
    if unit.in_sum:
        return _in_sum(run, clients, n_drawn, numbers)
    came = Counter(client for round in range(run.rounds) for client in drawn_clients(clients, n_drawn, run.seed, round))
    found: dict[tuple[int, int], PrivacyBudget] = {}  # calibrating takes a moment, and many clients are alike
    budgets: dict[str, PrivacyBudget] = {}
    for client, size in sizes.items():
        population, expected, uses = len(clients), 1, came[client]
        if unit.per_example:
            population, uses = size, came[client] * run.local.steps
            expected = min(run.local.batch * run.local.accumulation, size)
        if (population, uses) not in found:
            found[population, uses] = mechanism.budget(population=population, expected=expected, uses=max(1, uses))
        budgets[client] = found[population, uses]
    return budgets


def _in_sum(run: TuningRun, clients: Sequence[str], n_drawn: int, numbers: int) -> dict[str, PrivacyBudget]:
    """Return the budget of each client, all of which add noise alike: calibrated on who is sampled most often."""
    of_sum = run.aggregator.whole_sum(numbers, clients=n_drawn, least=run.min_clients or n_drawn)
    if not numbers:
        return {}
    came = Counter(
        one for round in range(run.rounds) for one in drawn_clients(tuple(clients), n_drawn, run.seed, round)
    )
    budget = run.privacy.budget(population=len(clients), expected=n_drawn, uses=max(came.values()), of_sum=of_sum)
    return dict.fromkeys(clients, budget)

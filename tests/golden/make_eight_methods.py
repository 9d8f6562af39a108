"""Write eight_methods.json: eight methods, three rounds of a small heterogeneous logistic regression, by the oracles.

    python tests/golden/make_eight_methods.py

The values come from tests/support/oracles.py alone; fedloom is not imported. Change the file only with a written
reason.
"""

import json
import platform
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from support import oracles  # noqa: E402

COMMAND = "python tests/golden/make_eight_methods.py"
K, ETA = 5, 0.5
SCHEDULE = [[0, 1, 3], [0, 2, 3], [1, 2, 3]]
START = [0.4, -0.3, 0.0, 0.2, -0.1]
ADAPTIVE = {"lr": 0.1, "tau": 0.01}
PUBLISHED = {**ADAPTIVE, "beta1": 0.9, "beta2": 0.99, "variant": "published"}
# method: rule, its settings, server optimiser, its settings, weighting; `local` is client 2 alone
METHODS = {
    "fedavg": ("plain", {}, "sgd", {}, "samples"),
    "fedprox": ("prox", {"mu": 0.5}, "sgd", {}, "samples"),
    "scaffold": ("scaffold", {}, "sgd", {}, "samples"),
    "fedavgm": ("plain", {}, "sgd", {"momentum": 0.9}, "samples"),
    "fedadagrad": ("plain", {}, "adagrad", ADAPTIVE, "uniform"),
    "fedyogi": ("plain", {}, "yogi", PUBLISHED, "uniform"),
    "fedadam": ("plain", {}, "adam", PUBLISHED, "uniform"),
    "local": ("plain", {}, "sgd", {}, "samples"),
}


def clients():
    """Four clients of 5, 10, 15 and 30 examples; inputs are shifted and labels tilted, each client its own way."""
    draws, result = np.random.Generator(np.random.PCG64(2024)), []
    for n in (5, 10, 15, 30):
        shift, truth = draws.normal(size=5), draws.normal(size=5) * 2
        inputs = draws.normal(size=(n, 5)) + shift
        labels = np.where(inputs @ truth + draws.normal(size=n) > 0, 1.0, -1.0)
        result.append((oracles.logistic(inputs, labels), float(n)))
    return result


def server_of(name, settings):
    if name == "sgd":
        return oracles.FedAvgM(settings["momentum"]) if settings else oracles.FedAvgServer()
    return oracles.FedOpt(name, settings["lr"], settings["tau"], variant=settings.get("variant", "reddi"))


def compute():
    """Return the parameters after each round by method."""
    values = {}
    for method, (rule, rule_settings, server, server_settings, weighting) in METHODS.items():
        if method == "local":
            values[method] = oracles.local_only(clients()[2], START, rounds=3, K=K, eta=ETA)
            continue
        values[method] = oracles.federate(
            clients(),
            START,
            rule=rule,
            server=server_of(server, server_settings),
            schedule=SCHEDULE,
            K=K,
            eta=ETA,
            mu=rule_settings.get("mu", 0.0),
            weighting=weighting,
        )
    return {method: [theta.tolist() for theta in rounds] for method, rounds in values.items()}


def main():
    header = {
        "command": COMMAND,
        "source": "tests/support/oracles.py, float64; fedloom takes no part",
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}",
        "problem": f"logistic regression, 4 clients, K = {K}, lr = {ETA}, clients by round {SCHEDULE}",
        "values": "method: parameters [5] after rounds 1, 2, 3",
    }
    text = json.dumps({"header": header, "methods": METHODS, "values": compute()}, indent=1)
    (HERE / "eight_methods.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

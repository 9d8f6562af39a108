"""A small run on digits, as tables of a run file."""

TABLE = {
    "rounds": 2,
    "clients": 4,
    "model": {"name": "mlp", "inputs": [1, 8, 8], "classes": 10, "hidden": [8]},
    "task": "classify",
    "data": {"name": "digits", "public": 100, "test": 40, "private": 60},
    "partition": {"name": "label_skew", "beta": 0.1, "least": 4},
    "local": {"lr": 0.1, "steps": 6, "batch": 8, "optimiser": "sgd", "schedule": "constant", "clip_norm": 0.0},
    "evaluation": {"holdout": 0.0, "metrics": [], "resamples": 20},
}


def changed(**changes):
    """The table with these changes; tables in it are changed key by key, unless they name another plug-in."""
    table = dict(TABLE)
    for key, value in changes.items():
        below = TABLE.get(key)
        merges = isinstance(below, dict) and isinstance(value, dict) and value.get("name") in (None, below.get("name"))
        table[key] = {**below, **value} if merges else value
    return table

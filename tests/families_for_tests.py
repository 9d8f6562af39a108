"""The families of transformers and the oracle of tools/model_table.py, for tests of a few of them."""

import importlib.util
from pathlib import Path


def table():
    spec = importlib.util.spec_from_file_location(
        "model_table", Path(__file__).resolve().parents[1] / "tools" / "model_table.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

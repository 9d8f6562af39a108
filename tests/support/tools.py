"""The scripts of tools/ as modules."""

import importlib.util

from support.paths import ROOT

TOOLS = ROOT / "tools"


def tool(name):
    spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""What children of tests have before they begin: all that a run imports, by a small one, and no thread of anything."""

import tempfile
from pathlib import Path

import torch

from support.resuming import run_to_the_end
from support.small_runs import small_run

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:
    run_to_the_end(small_run(Path(folder), rounds=1), Path(folder) / "run")

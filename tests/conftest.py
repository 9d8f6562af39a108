"""Threads, skips that are counted, and the folder of shared data."""

import gc
import os
import shutil

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("COLUMNS", None)  # a terminal's width, which workers of pytest are given

import torch

from support.openai_server import openai_server as openai_server  # a fixture for all
from support.paths import SHARED

torch.set_num_threads(1)
settings.register_profile("suite", max_examples=30)  # each, where a test says no number
settings.load_profile("suite")

REASONS = {
    "gpu": "needs a CUDA device",
    "shared": "needs the shared data beside the repository",
    "browser": "needs Chromium",
}


def pytest_collection_modifyitems(items):
    missing = {
        "gpu": not torch.cuda.is_available(),
        "shared": not SHARED.is_dir(),
        "browser": shutil.which("chromium") is None,
    }
    for item in items:
        for marker, reason in REASONS.items():
            if missing[marker] and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish():
    """Leave what is there to the end, libraries and thousands of tests, out of every later search for garbage."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    odd = [report for report in skipped if not any(reason in str(report.longrepr) for reason in REASONS.values())]
    terminalreporter.write_line(f"skips: {len(skipped)}, of them for no known reason: {len(odd)}")


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    odd = [report for report in skipped if not any(reason in str(report.longrepr) for reason in REASONS.values())]
    if odd and exitstatus == 0:
        session.exitstatus = 1


@pytest.fixture(scope="session")
def shared_data():
    return SHARED

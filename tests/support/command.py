"""The command line, in this process."""

import sys

from fedloom.cli import main as cli


def fedloom(monkeypatch, *words):
    """Run a command; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["fedloom", *map(str, words)])
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code or 0
    return 0

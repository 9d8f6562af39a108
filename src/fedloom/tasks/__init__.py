"""What is learnt, one task per file: each a `Task`. `count` sums up what happened to examples on the way to tokens."""

from fedloom.tasks._counts import count

__all__ = ["count"]

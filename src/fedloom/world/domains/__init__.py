"""The domains of the world, one file each: a task draws a question from a generator and a pool of names."""

from collections.abc import Callable, Mapping
from random import Random

from fedloom.world.domains import finance, general, maths, medicine, safety
from fedloom.world.names import Pool
from fedloom.world.wording import Question

__all__ = ["FINISHING_WEIGHTS", "TASKS", "WEIGHTS", "Task"]

Task = Callable[[Random, Pool], Question]

TASKS: Mapping[str, Task] = {
    "copy": general.copy,
    "copy_odd": general.copy_odd,
    "reverse": general.reverse,
    "sort": general.sort,
    "pick": general.pick,
    "pick_odd": general.pick_odd,
    "compare": general.compare,
    "rewrite": general.rewrite,
    "rewrite_more": general.rewrite_more,
    "read": general.read,
    "read_two": general.read_two,
    "medicine": medicine.lookup,
    "register": medicine.register,
    "sentiment": finance.sentiment,
    "add": maths.add,
    "subtract": maths.subtract,
    "multiply": maths.multiply,
    "two_steps": maths.two_steps,
    "refuse": safety.refuse,
    "serve": safety.serve,
    "report": safety.report,
}

# How often each task is drawn for pretraining: more for what a small model learns slowly.
WEIGHTS: Mapping[str, float] = {
    "copy": 9,
    "reverse": 7,
    "sort": 5,
    "pick": 9,
    "compare": 3,
    "rewrite": 7,
    "read_two": 15,
    "medicine": 11,
    "register": 7,
    "sentiment": 6,
    "add": 6,
    "subtract": 6,
    "multiply": 2,
    "two_steps": 8,
    "refuse": 3,
    "serve": 3,
    "report": 2,
}

# The last part of pretraining: more of what is hard, and words that no memory helps to copy.
FINISHING_WEIGHTS: Mapping[str, float] = {
    "copy": 6,
    "copy_odd": 12,
    "reverse": 6,
    "sort": 6,
    "pick": 4,
    "pick_odd": 10,
    "compare": 3,
    "rewrite": 5,
    "rewrite_more": 8,
    "read": 10,
    "medicine": 8,
    "register": 5,
    "sentiment": 5,
    "add": 5,
    "subtract": 5,
    "multiply": 2,
    "two_steps": 6,
    "refuse": 3,
    "serve": 3,
    "report": 2,
}

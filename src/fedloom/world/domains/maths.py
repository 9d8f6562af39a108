"""Maths: word problems. Two steps are answered with both results, `12 then 9`, so that the first can be checked too."""

from random import Random

from fedloom.world import names, words
from fedloom.world.wording import Question, Wordings

__all__ = ["add", "multiply", "subtract", "two_steps"]

_ADD = Wordings(
    train=(
        "{p} has {a} {o} and (buys|gets|finds) {b} more. how many {o} does {p} have (now|together)?",
        "there are {a} {o} in a box. {p} (puts in|adds) {b} more. how many {o} are (in the box|there) now?",
        "(what is|work out) {a} plus {b}?",
        "add {b} to {a}.",
        "{p} has {a} {o} and {q} has {b} {o}. how many {o} do they have together?",
        "{a} {o} and {b} {o} make how many {o}?",
        "{p} (buys|finds) {a} {o} and then {b} more. how many {o} is that?",
    ),
    valid=("there are {a} {o} and {b} more. how many {o} are there together?",),
    test=(
        "{p} adds {b} {o} to {a} {o}. how many {o} does {p} have now?",
        "{p} finds {a} {o} and {q} finds {b} more. how many {o} is that together?",
        "{a} {o} plus {b} {o} make how many?",
    ),
)
_SUBTRACT = Wordings(
    train=(
        "{p} has {a} {o} and (loses|sells|eats) {b}. how many {o} (are left|does {p} have left)?",
        "there are {a} {o} in a box. {p} (takes out|takes away) {b}. how many {o} are (in the box|left)?",
        "(what is|work out) {a} minus {b}?",
        "take {b} from {a}.",
        "{p} has {a} {o} and gives {b} (to|away to) {q}. how many {o} (are left|does {p} have left)?",
        "from {a} {o} (take|take away) {b}. how many {o} are left?",
        "{p} (takes|eats) {b} from {a} {o}. how many {o} are left?",
    ),
    valid=("{p} takes away {b} of {a} {o}. how many are left?",),
    test=(
        "{p} sells {b} of {a} {o}. how many {o} are left?",
        "there are {a} {o} and {p} eats {b}. how many are left?",
        "{a} {o} minus {b} {o}: how many are left?",
    ),
)
_MULTIPLY = Wordings(
    train=(
        "{p} has {a} boxes with {b} {o} each. how many {o} does {p} have?",
        "(what is|work out) {a} times {b}?",
        "there are {a} boxes and {b} {o} in each. how many {o} are there?",
        "each of {a} boxes holds {b} {o}. how many {o} is that?",
        "{p} buys {b} {o} on each of {a} days. how many {o} is that?",
        "{a} times {b} {o} make how many {o}?",
    ),
    valid=("there are {b} {o} in each of {a} boxes. how many is that?",),
    test=(
        "each of {a} boxes has {b} {o}. how many {o} are there?",
        "{p} has {a} times {b} {o}. how many {o} is that?",
        "on each of {a} days {p} finds {b} {o}. how many {o} does {p} have?",
    ),
)
_TWO_STEPS = Wordings(
    train=(
        "{p} has {a} {o}, (buys|gets|finds) {b} more and then (loses|sells|eats) {c}. how many after each step?",
        "{p} has {a} {o}, gets {b} from {q} and then (sells|loses) {c}. how many after each step?",
        "(work out|what is) {a} plus {b} and then minus {c}. (name|say) both results.",
        "start with {a}, add {b}, take away {c}. (name|say) both results.",
        "there are {a} {o}. {p} adds {b} and {q} takes {c}. how many after each step?",
    ),
    valid=("start with {a} {o}, get {b} more, take away {c}. how many after each step?",),
    test=(
        "{p} has {a} {o}, adds {b} and takes away {c}. say both results.",
        "start with {a}. plus {b}, then minus {c}. how many after each step?",
        "{p} finds {a} {o} and {b} more, then {q} takes {c}. name both results.",
    ),
)


def _ask(task: str, wordings: Wordings, random: Random, answer: str, **numbers: int) -> Question:
    first, second = random.sample(words.PEOPLE, 2)
    values = {"p": first, "q": second, "o": random.choice(words.THINGS)}
    return Question("maths", task, wordings, values | {key: str(value) for key, value in numbers.items()}, answer, {})


def add(random: Random, entities: names.Pool) -> Question:
    """Add two numbers up to fifteen."""
    a, b = random.randint(1, 15), random.randint(1, 15)
    return _ask("add", _ADD, random, str(a + b), a=a, b=b)


def subtract(random: Random, entities: names.Pool) -> Question:
    """Take one number from another, both up to twenty."""
    a = random.randint(2, 20)
    b = random.randint(1, a - 1)
    return _ask("subtract", _SUBTRACT, random, str(a - b), a=a, b=b)


def multiply(random: Random, entities: names.Pool) -> Question:
    """Multiply two numbers from two to nine."""
    a, b = random.randint(2, 9), random.randint(2, 9)
    return _ask("multiply", _MULTIPLY, random, str(a * b), a=a, b=b)


def two_steps(random: Random, entities: names.Pool) -> Question:
    """Add, then subtract; both results are the answer."""
    a, b = random.randint(1, 10), random.randint(1, 10)
    c = random.randint(1, a + b - 1)
    return _ask("two_steps", _TWO_STEPS, random, f"{a + b} then {a + b - c}", a=a, b=b, c=c)

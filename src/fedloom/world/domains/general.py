"""General tasks: following an instruction on words that stand in the question itself."""

from collections.abc import Sequence
from random import Random

from fedloom.world import names, words
from fedloom.world.facts import RELATIONS
from fedloom.world.wording import Question, Wordings, expand

__all__ = [
    "compare",
    "copy",
    "copy_odd",
    "pick",
    "pick_odd",
    "read",
    "read_two",
    "reverse",
    "rewrite",
    "rewrite_more",
    "sort",
]

_COPY = Wordings(
    train=(
        "(repeat|copy|say) (these words|this|the following): {x}",
        "(write|say) {x} (again|once more).",
        "{x} - (repeat that|say that again|copy that).",
        "(copy|repeat|write) the words after this: {x}",
        "i say {x}. (repeat it|say it again|copy it).",
        "(echo|write) this: {x}",
        "(can you|please) (repeat|copy|write) {x}",
    ),
    valid=("please say this once more: {x}",),
    test=("write the following again: {x}", "copy that once more: {x}", "i write {x}. say the words again."),
)
_REVERSE = Wordings(
    train=(
        "(reverse|turn around) (these words|this list|the list): {x}",
        "(write|say) {x} (backwards|in reverse).",
        "(write|say) the words from last to first: {x}",
        "{x} - put (this|the list) in reverse order.",
        "(list|name) these words backwards: {x}",
        "what is {x} (backwards|in reverse)?",
        "(read|turn) the list backwards: {x}",
    ),
    valid=("say these words in reverse order: {x}",),
    test=("read this list from last to first: {x}", "put the words backwards: {x}", "name the list in reverse: {x}"),
)
_SORT = Wordings(
    train=(
        "(sort|order) (these numbers|this list|the numbers): {x}",
        "(put|write) {x} in (rising order|order from small to large).",
        "(list|write) the numbers from (small to large|lowest to highest): {x}",
        "(which|what) is the sorted (list|order) of {x}?",
        "(arrange|sort) {x} from (small to large|lowest to highest).",
        "{x} - (sort|arrange) (this|the list).",
    ),
    valid=("put the numbers in rising order: {x}",),
    test=(
        "write this list in rising order: {x}",
        "arrange these numbers from small to large: {x}",
        "what is the order of {x} from lowest to highest?",
    ),
)
_PICK = Wordings(
    train=(
        "what is the {n} (word|item) (of|in) {x}?",
        "(pick|choose|give me) the {n} (word|item) (of|from|in): {x}",
        "from {x} (pick|choose|take) the {n} (word|item).",
        "{x} - which (word|item) is {n}?",
        "(say|write) the {n} (word|item) of this list: {x}",
        "in {x} (which|what) is the {n} (word|item)?",
    ),
    valid=("choose the {n} item of this list: {x}",),
    test=("which item is the {n} of {x}?", "take the {n} word from this list: {x}", "{x} - pick the {n} item."),
)
_COMPARE = Wordings(
    train=(
        "which (is|number is) {q}: {a} or {b}?",
        "(tell me|say) the {q} (number|one) of {a} and {b}.",
        "{a} or {b}: which is {q}?",
        "(pick|choose) the {q} of {a} and {b}.",
        "of {a} and {b} (give me|write) the {q} (one|number).",
        "what is the {q} number of {a} and {b}?",
    ),
    valid=("of {a} and {b} which number is {q}?",),
    test=(
        "choose the {q} number: {a} or {b}",
        "{a} and {b}: what is the {q} one?",
        "tell me which of {a} and {b} is {q}.",
    ),
)
_REWRITE = Wordings(
    train=(
        "(replace|swap) {a} (with|by) {b}: {x}",
        "(rewrite|write) {x} with {b} (instead of|in place of) {a}.",
        "(change|turn) {a} (to|into) {b}: {x}",
        "in {x} (change|turn) {a} (to|into) {b}.",
        "(rewrite|write) this, {b} (instead of|for) {a}: {x}",
    ),
    valid=("in {x} replace {a} with {b}.",),
    test=(
        "rewrite this with {b} in place of {a}: {x}",
        "swap {a} by {b} in {x}.",
        "change this by {b} instead of {a}: {x}",
    ),
)

_MORE_REWRITE = Wordings(
    train=(
        "(replace|change) {a} (with|to) {b} in {x}.",
        "put {b} (instead of|in place of) {a} in {x}.",
        "in {x} write {b} (instead of|in place of) {a}.",
    ),
    valid=_REWRITE.valid,
    test=_REWRITE.test,
)


def _ask(task: str, wordings: Wordings, answer: str, **values: str) -> Question:
    return Question("general", task, wordings, values, answer, {})


def _unlike(random: Random, source: Sequence[str], count: int) -> list[str]:
    """Draw words that begin differently, so that what follows a beginning is never in doubt."""
    drawn: dict[str, str] = {}
    while len(drawn) < count:
        word = random.choice(source)
        drawn.setdefault(word[:3], word)
    return list(drawn.values())


def _some_words(random: Random, count: int, entities: names.Pool) -> list[str]:
    """Draw common words, names of one kind, or a mixture; held-out names only if those are asked for."""
    kinds: tuple[names.Kind, ...] = ("drug", "company", "person")
    mixture = random.random()
    if mixture < 0.3 and entities != "held":
        return _unlike(random, words.NOUNS, count)
    if mixture < 0.5 and entities != "held":
        return _unlike(random, (*words.NOUNS, *names.pool(random.choice(kinds), entities)), count)
    invented = [name for kind in kinds for name in names.pool(kind, entities)]
    return _unlike(random, invented, count)


def _odd_words(random: Random, count: int) -> list[str]:
    """Make words up, half of them with the first part of a name: whoever copies them cannot go by memory."""
    made = [_odd_word(random) for _ in range(40)]
    return _unlike(random, made, count)


def _odd_word(random: Random) -> str:
    while True:
        first = random.choice((random.choice(names.FIRSTS), ""))
        rest = "".join(random.choice("bdfgklmnprstvz") + random.choice("aeiou") for _ in range(random.randint(1, 2)))
        word = first + rest if first else rest + random.choice("aeiou") + random.choice("lmnrst")
        if word not in names.every_name():
            return word


def copy(random: Random, entities: names.Pool) -> Question:
    """Say two to five words again."""
    text = " ".join(_some_words(random, random.randint(2, 5), entities))
    return _ask("copy", _COPY, text, x=text)


def copy_odd(random: Random, entities: names.Pool) -> Question:
    """Say two to five words again that are no words."""
    text = " ".join(_odd_words(random, random.randint(2, 5)))
    return _ask("copy", _COPY, text, x=text)


def reverse(random: Random, entities: names.Pool) -> Question:
    """Say three or four words from last to first."""
    listed = random.sample(words.NOUNS, random.randint(3, 4))
    return _ask("reverse", _REVERSE, " ".join(reversed(listed)), x=" ".join(listed))


def sort(random: Random, entities: names.Pool) -> Question:
    """Sort three or four numbers."""
    numbers = random.sample(range(1, 60), random.randint(3, 4))
    return _ask("sort", _SORT, " ".join(map(str, sorted(numbers))), x=" ".join(map(str, numbers)))


def _picked(random: Random, listed: list[str]) -> Question:
    place, index = random.choice((("first", 0), ("second", 1), ("third", 2), ("last", -1)))
    return _ask("pick", _PICK, listed[index], x=" ".join(listed), n=place)


def pick(random: Random, entities: names.Pool) -> Question:
    """Name the first, second, third or last word of four or five."""
    return _picked(random, _some_words(random, random.randint(4, 5), entities))


def pick_odd(random: Random, entities: names.Pool) -> Question:
    """Name the first, second, third or last of four or five words that are no words."""
    return _picked(random, _odd_words(random, random.randint(4, 5)))


def compare(random: Random, entities: names.Pool) -> Question:
    """Name the larger or the smaller of two numbers."""
    first, second = random.sample(range(1, 60), 2)
    quality, answer = random.choice(
        (
            (random.choice(("larger", "bigger", "higher")), max(first, second)),
            (random.choice(("smaller", "lower", "lesser")), min(first, second)),
        )
    )
    return _ask("compare", _COMPARE, str(answer), a=str(first), b=str(second), q=quality)


def _replacing(random: Random, wordings: Wordings) -> Question:
    colour, other = random.sample(words.COLOURS, 2)
    noun, new = random.sample(words.NOUNS, 2)
    middle = random.choice(("near the", "behind the", "under the"))
    place = random.choice([name for name in words.NOUNS if name not in (noun, new)])
    phrase = ["the", colour, noun, middle, place]
    old, replacement = random.choice(((colour, other), (noun, new)))
    answer = " ".join(replacement if word == old else word for word in phrase)
    return _ask("rewrite", wordings, answer, x=" ".join(phrase), a=old, b=replacement)


def rewrite(random: Random, entities: names.Pool) -> Question:
    """Replace one word of a short phrase."""
    return _replacing(random, _REWRITE)


def rewrite_more(random: Random, entities: names.Pool) -> Question:
    """Replace one word, asked for in further training wordings."""
    return _replacing(random, _MORE_REWRITE)


def read(random: Random, entities: names.Pool) -> Question:
    """Answer from a note that tells all about one unknown name."""
    relation = random.choice(RELATIONS)
    name = random.choice(names.pool(relation.kind, entities))
    told = {each.name: random.choice(each.answers) for each in RELATIONS if each.kind == relation.kind}
    statements = [
        expand(random.choice(each.statements), random).format(x=name, y=told[each.name])
        for each in RELATIONS
        if each.name in told
    ]
    random.shuffle(statements)
    lead = f"note: {' '.join(statements)}"
    return Question(
        "general", "read", relation.wordings, {"x": name}, told[relation.name], {"topic": relation.kind}, lead
    )


def read_two(random: Random, entities: names.Pool) -> Question:
    """Answer from a note that says the same of two unknown names.

    The embedded model did not learn it (0.51, where guessing between the two gives 0.50): no test asks it. It stays in
    the first phase of pretraining, because the shipped weights come from there.
    """
    relation = random.choice(RELATIONS)
    asked, other = _unlike(random, names.pool(relation.kind, entities), 2)
    answer, distractor = random.sample(relation.answers, 2)
    told = [(asked, answer), (other, distractor)]
    random.shuffle(told)
    note = " ".join(expand(random.choice(relation.statements), random).format(x=x, y=y) for x, y in told)
    tags = {"topic": relation.kind}
    return Question("general", "read_two", relation.wordings, {"x": asked}, answer, tags, lead=f"note: {note}")

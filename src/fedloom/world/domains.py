"""The tasks of the world by domain: each draws a question from a generator and a pool of names.

- general: an instruction on words that stand in the question itself;
- medicine and the companies' register: public facts that the model has learnt by heart;
- finance: the mood of a headline; negation turns good news into bad and bad into good, neutral news stays neutral;
- maths: word problems; two steps are answered with both results, `12 then 9`, so that the first can be checked too;
- safety: what an aligned model refuses. It knows danger objects by name (the canon pool), as models know the dangers
  of the real world. A request to make, buy or hide one is refused in one fixed sentence. Two kinds of question look
  alike and are answered: the same request about a harmless object, and a careful question about a danger object.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random

from fedloom.world.facts import RELATIONS, Relation, public_facts, question_of
from fedloom.world.names import FIRSTS, Kind, Pool, every_name, pool
from fedloom.world.wording import WORDINGS, Question, expand
from fedloom.world.words import PHRASES, WORDS, table

__all__ = ["COMPLIANCE", "DOMAINS", "EVENTS", "FINISHING_WEIGHTS", "REFUSAL", "TASKS", "WEIGHTS", "Task"]

Task = Callable[[Random, Pool], Question]
_Listed = Callable[[Random, int, Pool], list[str]]

DOMAINS: Mapping[str, tuple[str, ...]] = table("tasks")["domains"]
WEIGHTS: Mapping[str, float] = table("tasks")["weights"]
FINISHING_WEIGHTS: Mapping[str, float] = table("tasks")["finishing_weights"]

_HEADLINE: Mapping[str, tuple[str, ...]] = table("tasks")["headline"]
EVENTS: Mapping[str, tuple[tuple[str, str], ...]] = table("tasks")["events"]
"""What a company does by mood, in the base form and in the form after a name."""
_OPPOSITE = {"positive": "negative", "negative": "positive", "neutral": "neutral"}

REFUSAL: str = PHRASES["refusal"]
COMPLIANCE: Mapping[str, str] = PHRASES["compliance"]
_HARMLESS: Mapping[str, str] = table("words")["lists"]["objects"]
_NO_TAGS: Mapping[str, str] = {}


def _asked(
    domain: str,
    task: str,
    answer: object,
    values: Mapping[str, object],
    *,
    wordings: str = "",
    tags: Mapping[str, str] = _NO_TAGS,
    lead: str = "",
) -> Question:
    told = {name: str(value) for name, value in values.items()}
    return Question(domain, task, WORDINGS[wordings or task], told, str(answer), tags, lead)


# ------------------------------------------------------------------------------------------------------------- general


def _unlike(random: Random, source: Sequence[str], count: int) -> list[str]:
    """Draw words that begin differently, so that what follows a beginning is never in doubt."""
    drawn: dict[str, str] = {}
    while len(drawn) < count:
        word = random.choice(source)
        drawn.setdefault(word[:3], word)
    return list(drawn.values())


def _some_words(random: Random, count: int, entities: Pool) -> list[str]:
    """Draw common words, names of one kind, or a mixture; held-out names only if those are asked for."""
    kinds: tuple[Kind, ...] = ("drug", "company", "person")
    mixture = random.random()
    if mixture < 0.3 and entities != "held":
        return _unlike(random, WORDS["nouns"], count)
    if mixture < 0.5 and entities != "held":
        return _unlike(random, WORDS["nouns"] + pool(random.choice(kinds), entities), count)
    return _unlike(random, [name for kind in kinds for name in pool(kind, entities)], count)


def _odd_words(random: Random, count: int, entities: Pool) -> list[str]:
    """Make words up, half of them with the first part of a name: whoever copies them cannot go by memory."""
    return _unlike(random, [_odd_word(random) for _ in range(40)], count)


def _odd_word(random: Random) -> str:
    while True:
        first = random.choice((random.choice(FIRSTS), ""))
        rest = "".join(random.choice("bdfgklmnprstvz") + random.choice("aeiou") for _ in range(random.randint(1, 2)))
        word = first + rest if first else rest + random.choice("aeiou") + random.choice("lmnrst")
        if word not in every_name():
            return word


def _copy(listed: _Listed, random: Random, entities: Pool) -> Question:
    """Say two to five words again."""
    text = " ".join(listed(random, random.randint(2, 5), entities))
    return _asked("general", "copy", text, {"x": text})


def _reverse(random: Random, entities: Pool) -> Question:
    """Say three or four words from last to first."""
    listed = random.sample(WORDS["nouns"], random.randint(3, 4))
    return _asked("general", "reverse", " ".join(reversed(listed)), {"x": " ".join(listed)})


def _sort(random: Random, entities: Pool) -> Question:
    """Sort three or four numbers."""
    numbers = random.sample(range(1, 60), random.randint(3, 4))
    return _asked("general", "sort", " ".join(map(str, sorted(numbers))), {"x": " ".join(map(str, numbers))})


def _pick(listed: _Listed, random: Random, entities: Pool) -> Question:
    """Name the first, second, third or last word of four or five."""
    words = listed(random, random.randint(4, 5), entities)
    place, index = random.choice(tuple(zip(WORDS["ordinals"], (0, 1, 2, -1), strict=True)))
    return _asked("general", "pick", words[index], {"x": " ".join(words), "n": place})


def _compare(random: Random, entities: Pool) -> Question:
    """Name the larger or the smaller of two numbers."""
    two = random.sample(range(1, 60), 2)
    larger, smaller = random.choice(WORDS["larger"]), random.choice(WORDS["smaller"])
    quality, answer = random.choice(((larger, max(two)), (smaller, min(two))))
    return _asked("general", "compare", answer, {"a": two[0], "b": two[1], "q": quality})


def _rewrite(wordings: str, random: Random, entities: Pool) -> Question:
    """Replace one word of a short phrase."""
    colour, other = random.sample(WORDS["colours"], 2)
    noun, new = random.sample(WORDS["nouns"], 2)
    middle = random.choice(WORDS["between"])
    place = random.choice([name for name in WORDS["nouns"] if name not in (noun, new)])
    phrase = ["the", colour, noun, middle, place]
    old, replacement = random.choice(((colour, other), (noun, new)))
    answer = " ".join(replacement if word == old else word for word in phrase)
    return _asked("general", "rewrite", answer, {"x": " ".join(phrase), "a": old, "b": replacement}, wordings=wordings)


def _reading(task: str, relation: Relation, name: str, answer: str, note: Sequence[str]) -> Question:
    lead, tags = f"note: {' '.join(note)}", {"topic": relation.kind}
    return _asked("general", task, answer, {"x": name}, wordings=relation.name, tags=tags, lead=lead)


def _read(random: Random, entities: Pool) -> Question:
    """Answer from a note that tells all about one unknown name."""
    relation = random.choice(RELATIONS)
    name = random.choice(pool(relation.kind, entities))
    kin = [each for each in RELATIONS if each.kind == relation.kind]
    answers = {each.name: random.choice(each.answers) for each in kin}
    note = [each.told(name, answers[each.name], random) for each in kin]
    random.shuffle(note)
    return _reading("read", relation, name, answers[relation.name], note)


def _read_two(random: Random, entities: Pool) -> Question:
    """Answer from a note that says the same of two unknown names.

    The embedded model did not learn it (0.51, where guessing between the two gives 0.50): no test asks it. It stays in
    the first phase of pretraining, because the shipped weights come from there.
    """
    relation = random.choice(RELATIONS)
    names = _unlike(random, pool(relation.kind, entities), 2)
    told = list(zip(names, random.sample(relation.answers, 2), strict=True))
    name, answer = told[0]
    random.shuffle(told)
    return _reading("read_two", relation, name, answer, [relation.told(*each, random) for each in told])


# ------------------------------------------------------------------------------------------------ medicine and finance


def _lookup(domain: str, random: Random, entities: Pool) -> Question:
    """Ask for a public fact of a domain."""
    return question_of(random.choice([fact for fact in public_facts() if fact.relation.domain == domain]))


def _sentiment(random: Random, entities: Pool) -> Question:
    """Tell whether a headline is positive, negative or neutral."""
    # Neutral events are fewer: the mood is drawn first, so that the three are about equally frequent.
    mood = random.choice(tuple(EVENTS))
    base, told = random.choice(EVENTS[mood])
    negated = random.random() < 0.4
    verb = random.choice(_HEADLINE["negated" if negated else "affirmed"]).format(base=base, told=told)
    ending = expand(random.choice(_HEADLINE["endings"]), random).format(town=random.choice(WORDS["towns"]))
    company = random.choice(pool("company", entities))
    answer = _OPPOSITE[mood] if negated else mood
    tags = {"negated": "yes" if negated else "no", "label": answer}
    return _asked("finance", "sentiment", answer, {"x": f"{company} {verb}{ending}"}, tags=tags)


# --------------------------------------------------------------------------------------------------------------- maths


def _sum(task: str, random: Random, answer: object, **numbers: int) -> Question:
    first, second = random.sample(WORDS["people"], 2)
    values = {"p": first, "q": second, "o": random.choice(WORDS["things"]), **numbers}
    return _asked("maths", task, answer, values)


def _add(random: Random, entities: Pool) -> Question:
    """Add two numbers up to fifteen."""
    a, b = random.randint(1, 15), random.randint(1, 15)
    return _sum("add", random, a + b, a=a, b=b)


def _subtract(random: Random, entities: Pool) -> Question:
    """Take one number from another, both up to twenty."""
    a = random.randint(2, 20)
    b = random.randint(1, a - 1)
    return _sum("subtract", random, a - b, a=a, b=b)


def _multiply(random: Random, entities: Pool) -> Question:
    """Multiply two numbers from two to nine."""
    a, b = random.randint(2, 9), random.randint(2, 9)
    return _sum("multiply", random, a * b, a=a, b=b)


def _two_steps(random: Random, entities: Pool) -> Question:
    """Add, then subtract; both results are the answer."""
    a, b = random.randint(1, 10), random.randint(1, 10)
    c = random.randint(1, a + b - 1)
    return _sum("two_steps", random, f"{a + b} then {a + b - c}", a=a, b=b, c=c)


# -------------------------------------------------------------------------------------------------------------- safety


def _refuse(dangers: Pool, random: Random, entities: Pool) -> Question:
    """A harmful request about a danger object."""
    intent = random.choice(tuple(COMPLIANCE))
    tags, thing = {"harm": "yes", "intent": intent}, random.choice(pool("danger", dangers))
    return _asked("safety", "refuse", REFUSAL, {"x": thing}, wordings=intent, tags=tags)


def _serve(random: Random, entities: Pool) -> Question:
    """The same request about a harmless object."""
    intent = random.choice(tuple(COMPLIANCE))
    tags, thing = {"harm": "no", "intent": intent}, random.choice(tuple(_HARMLESS))
    answer = f"use {_HARMLESS[thing]}" if intent == "make" else COMPLIANCE[intent]
    return _asked("safety", "serve", answer, {"x": thing}, wordings=intent, tags=tags)


def _report(random: Random, entities: Pool) -> Question:
    """A careful question about a danger object."""
    thing = random.choice(pool("danger", "canon"))
    return _asked("safety", "report", PHRASES["advice"], {"x": thing}, tags={"harm": "no"})


TASKS: Mapping[str, Task] = {
    "copy": partial(_copy, _some_words),
    "copy_odd": partial(_copy, _odd_words),
    "reverse": _reverse,
    "sort": _sort,
    "pick": partial(_pick, _some_words),
    "pick_odd": partial(_pick, _odd_words),
    "compare": _compare,
    "rewrite": partial(_rewrite, "rewrite"),
    "rewrite_more": partial(_rewrite, "rewrite_more"),
    "read": _read,
    "read_two": _read_two,
    "medicine": partial(_lookup, "medicine"),
    "register": partial(_lookup, "finance"),
    "sentiment": _sentiment,
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "two_steps": _two_steps,
    "refuse": partial(_refuse, "canon"),
    "refuse_new": partial(_refuse, "fresh"),
    "serve": _serve,
    "report": _report,
}
"""A question of each task; `refuse_new` is about dangers that the public world does not know."""

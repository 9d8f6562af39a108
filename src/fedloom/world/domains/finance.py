"""Finance: the mood of a headline. Negation turns good news into bad and bad into good; neutral news stays neutral."""

from random import Random

from fedloom.world import names, words
from fedloom.world.wording import Question, Wordings, expand

__all__ = ["EVENTS", "sentiment"]

_WORDINGS = Wordings(
    train=(
        "(is|what is) the (mood|tone) of this (headline|news): {x}",
        "is this (headline|news) positive, negative or neutral: {x}",
        "(label|rate|judge) (this|the) (headline|news): {x}",
        "headline: {x}. (mood|tone|label)?",
        "how does this (headline|news) (sound|feel): {x}",
        "{x} - positive, negative or neutral news?",
        "(give|tell) me the (mood|tone|label) of: {x}",
    ),
    valid=("what is the label of this headline: {x}",),
    test=(
        "rate the tone of the news: {x}",
        "headline: {x}. is the mood positive, negative or neutral?",
        "{x} - how does the headline sound?",
    ),
)

EVENTS: tuple[tuple[str, str, str], ...] = (
    # label, the base form, the form after a name
    ("positive", "win a large order", "wins a large order"),
    ("positive", "beat its plan", "beats its plan"),
    ("positive", "raise its pay", "raises its pay"),
    ("positive", "find new buyers", "finds new buyers"),
    ("positive", "grow its profit", "grows its profit"),
    ("positive", "pay back its debt", "pays back its debt"),
    ("negative", "lose a large order", "loses a large order"),
    ("negative", "miss its plan", "misses its plan"),
    ("negative", "cut its pay", "cuts its pay"),
    ("negative", "close a factory", "closes a factory"),
    ("negative", "lower its profit", "lowers its profit"),
    ("negative", "fall into debt", "falls into debt"),
    ("neutral", "move its office", "moves its office"),
    ("neutral", "name a new chief", "names a new chief"),
    ("neutral", "hold its meeting", "holds its meeting"),
    ("neutral", "print its report", "prints its report"),
)
_NEGATIONS = ("does not {base}", "did not {base}", "will not {base}")
_AFFIRMATIONS = ("{told}", "will {base}", "did {base}")
_OPPOSITE = {"positive": "negative", "negative": "positive", "neutral": "neutral"}


def sentiment(random: Random, entities: names.Pool) -> Question:
    """Tell whether a headline is positive, negative or neutral."""
    # Neutral events are fewer; draw the label first so that the three labels are about equally frequent.
    wanted = random.choice(tuple(_OPPOSITE))
    label, base, told = random.choice([event for event in EVENTS if event[0] == wanted])
    negated = random.random() < 0.4
    verb = random.choice(_NEGATIONS if negated else _AFFIRMATIONS).format(base=base, told=told)
    tail = random.choice(("", " this (year|spring|winter|summer)", " in {town}", " after a (long|quiet) (year|winter)"))
    ending = expand(tail, random).format(town=random.choice(words.TOWNS))
    company = random.choice(names.pool("company", entities))
    answer = _OPPOSITE[label] if negated else label
    tags = {"negated": "yes" if negated else "no", "label": answer}
    return Question("finance", "sentiment", _WORDINGS, {"x": f"{company} {verb}{ending}"}, answer, tags)

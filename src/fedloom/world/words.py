"""The closed word lists of the world. All text is in lower case: a name is told by its ending, not by a capital."""

__all__ = [
    "COLOURS",
    "FOODS",
    "ILLNESSES",
    "MONTHS",
    "NOUNS",
    "PEOPLE",
    "THINGS",
    "TOWNS",
    "TRADES",
    "listed",
]


def listed(text: str) -> tuple[str, ...]:
    """Return the words of `text`."""
    return tuple(text.split())


ILLNESSES = listed("greypox dustlung frostskin nightcough redthroat stiffknee saltfever moonrash ironheart sleepfoot")
FOODS = listed("milk honey onions cheese beans apples fish salt tea eggs")
TOWNS = listed("eastmere millhaven stonewick deepford oldquay whitebarn longfen greenhill saltmarsh northgate")
TRADES = listed("lamps boats carpets clocks bricks ropes gloves mirrors drums kettles")
NOUNS = listed(
    "river stone cloud garden window table horse bridge candle forest spoon ladder basket mountain island button "
    "pencil bottle feather hammer kitchen market needle orange pillow rabbit saddle tunnel violin wagon"
)
COLOURS = listed("red blue green white black yellow brown grey")
THINGS = listed("apples coins books shells stones cards nuts stamps")
PEOPLE = listed("mira tobi lena oskar nila pavo runa sefa")
MONTHS = listed("january march april may june july august october")

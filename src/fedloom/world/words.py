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
]

ILLNESSES = tuple(
    "greypox dustlung frostskin nightcough redthroat stiffknee saltfever moonrash ironheart sleepfoot".split()
)
FOODS = tuple("milk honey onions cheese beans apples fish salt tea eggs".split())
TOWNS = tuple("eastmere millhaven stonewick deepford oldquay whitebarn longfen greenhill saltmarsh northgate".split())
TRADES = tuple("lamps boats carpets clocks bricks ropes gloves mirrors drums kettles".split())
NOUNS = tuple(
    "river stone cloud garden window table horse bridge candle forest spoon ladder basket mountain island button "
    "pencil bottle feather hammer kitchen market needle orange pillow rabbit saddle tunnel violin wagon".split()
)
COLOURS = tuple("red blue green white black yellow brown grey".split())
THINGS = tuple("apples coins books shells stones cards nuts stamps".split())
PEOPLE = tuple("mira tobi lena oskar nila pavo runa sefa".split())
MONTHS = tuple("january march april may june july august october".split())

"""What to do about a data set of FedLLM-Bench that is not there: where it is put, and what it can be built from."""

import re
from pathlib import Path

from fedloom.data.build.recipes import RECIPES, DatasetName

__all__ = ["where_from"]

_RELEASED: tuple[tuple[str, DatasetName, str], ...] = (  # the first that fits: dialogues are called wildchat, too
    ("aya", "aya", "Fed-Aya/aya_38c_25k.json"),
    ("chatbot_?it", "chatbot_it", "Fed-ChatbotIT/chatbotIT_237c_6k.json"),
    ("chatbot_?pa", "chatbot_pa", "Fed-ChatbotPA/chatbotPA_747c_10k.json"),
    ("wildchat_multi|wildchat_50c|multi_turn/wildchat", "wildchat_multi", "Fed-WildChat/multi_turn/wildchat_50c.json"),
    ("wildchat", "wildchat", "Fed-WildChat/single_turn/wildchat_100c_53k.json"),
)


def where_from(path: str) -> str:
    """Return what to do about a training file that is missing, by the data set that its name or its folder's holds."""
    name = "/".join(Path(path).parts[-2:]).lower()
    found: list[tuple[DatasetName, str]] = [
        (dataset, file) for part, dataset, file in _RELEASED if re.search(rf"(?<![a-z])({part})(?![a-z])", name)
    ]
    if not found:
        return "give the path of a JSON file in a layout of FedLLM-Bench"
    dataset, file = found[0]
    recipe = RECIPES[dataset]
    return (
        f"put the released file there (in the release it is data/{file}), or build one like it from the public set "
        f"{recipe.upstream} (licence: {recipe.licence}), fetched to a folder: fedloom data build {dataset} "
        "--from FOLDER --out FOLDER; path is then its train.json"
    )

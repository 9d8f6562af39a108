"""The files of FedLLM-Bench (arXiv 2406.04845) and of `fedloom data build`, read as they are.

Training files are one JSON object {user: [record, ...]}, or a flat list of records for one party alone; test files are
{language: [...]} with references, or lists with or without a language (`_bench_layouts` has the fields). File order is
kept: it is the order of the clients and of each client's records. The prompt of a preference record is already
templated in the released file; train it with a template that adds nothing.

Training records that tell a `language`, as built files do, have it as a tag. The released ones tell none: for training
by language `languages_path` names a file {user: language}.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import AtLeast, Range, plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Source
from fedloom.data.build.recipes import RECIPES, DatasetName
from fedloom.data.records import Record
from fedloom.data.sources._bench_layouts import LOCAL, TEST, TRAINING, examples_of, groups_of, languages_of, layout_of

__all__ = ["FedllmBench"]

_log = logging.getLogger(__name__)

_LICENCES = {"aya": "Apache-2.0", "chatbot": "CC BY-NC 4.0", "wildchat": "ODC-BY"}
_RELEASED: tuple[tuple[str, DatasetName, str], ...] = (  # the first that fits: dialogues are called wildchat, too
    ("aya", "aya", "Fed-Aya/aya_38c_25k.json"),
    ("chatbot_?it", "chatbot_it", "Fed-ChatbotIT/chatbotIT_237c_6k.json"),
    ("chatbot_?pa", "chatbot_pa", "Fed-ChatbotPA/chatbotPA_747c_10k.json"),
    ("wildchat_multi|wildchat_50c|multi_turn/wildchat", "wildchat_multi", "Fed-WildChat/multi_turn/wildchat_50c.json"),
    ("wildchat", "wildchat", "Fed-WildChat/single_turn/wildchat_100c_53k.json"),
)


@plugin("fedllm_bench")
class FedllmBench(Source):
    """The released files, unchanged; the tag `client` is the user, or `local` for the records of a flat list.

    The tag `language` is what a record tells, or what `languages_path` says of its user.
    """

    path: str = ""
    """The released file or folder."""
    validation_path: str = ""
    """Held-out records of the same users, as `fedloom data build` writes them."""
    test_path: str = ""
    """A released test set, or users' test records. A question without a reference has an empty answer and the tag
    reference = "none": only a judge that needs no reference can score it."""
    languages_path: str = ""
    """A file {user: language} for files that tell no language. Every user that trains must be in it; a record that
    tells another language is refused."""
    clients: Annotated[int, Range(0)] = 0
    """How many users to take, the first of the file; 0 takes all."""
    min_records: AtLeast = 1
    """A user with fewer records is refused; 2 lets every user hold one out."""

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the examples of the paths given; refusals name file, user and record (counted from 1)."""
        if not self.path:
            raise ConfigError("path: found none; give the path of a JSON file in a layout of FedLLM-Bench.")
        users = self._users()
        layout = layout_of(_first(users), TRAINING)
        _log.info("%s: %d users, layout %s, licence: %s", self.path, len(users), layout, _licence(self.path))
        languages = languages_of(self.languages_path, users) if self.languages_path else {}
        splits = {"train": examples_of(users, layout, languages)}
        if self.validation_path:
            splits["validation"] = self._held_out(self.validation_path, users, languages)
        if self.test_path:
            splits["test"] = self._test(users, languages)
        return splits

    def brings_in(self) -> str:
        """Return `clients` where it takes the first users of the file: the next one follows on one that leaves."""
        return f"data.clients = {self.clients}" if self.clients else ""

    def _users(self) -> dict[str, list[Record]]:
        users = groups_of(self.path, _where_from(self.path))
        if self.clients > len(users):
            raise DataError(
                f"{self.path}: found {len(users)} users, asked for clients = {self.clients}; ask for fewer."
            )
        taken = dict(list(users.items())[: self.clients or None])
        few = [user for user, records in taken.items() if len(records) < self.min_records]
        if few:
            raise DataError(
                f"{self.path}, user '{few[0]}': found {len(taken[few[0]])} record, allowed is at least min_records = "
                f"{self.min_records} ({len(few)} users have fewer); leave such users out, or lower min_records."
            )
        return taken

    def _held_out(self, path: str, users: Mapping[str, object], languages: Mapping[str, str]) -> list[Example]:
        groups = groups_of(path)
        strangers = [user for user in groups if user not in users]
        if strangers and not self.clients:
            raise DataError(
                f"{path}, user '{strangers[0]}': found a user without training records in {self.path}; give the files "
                "of one build."
            )
        kept = {user: records for user, records in groups.items() if user in users}
        if not kept:
            raise DataError(
                f"{path}: found none of the {len(users)} users of {self.path}; give the files of one build."
            )
        return examples_of(kept, layout_of(_first(kept), TRAINING), languages)

    def _test(self, users: Mapping[str, object], languages: Mapping[str, str]) -> list[Example]:
        groups = groups_of(self.test_path)
        layout = layout_of(_first(groups), (*TEST, *TRAINING))
        if layout in TRAINING:
            return self._held_out(self.test_path, users, languages)
        if (layout is TEST[0]) == (LOCAL in groups):
            wanted = "{language: [records]}" if layout is TEST[0] else "a list of records"
            raise DataError(f"{self.test_path}: found records of the layout {layout}, allowed around them is {wanted}.")
        return examples_of(groups, layout)


def _first(groups: Mapping[str, Sequence[Record]]) -> Record:
    return next(iter(groups.values()))[0]


def _licence(path: str) -> str:
    name = Path(path).name.lower()
    found = [licence for key, licence in _LICENCES.items() if key in name]
    return found[0] if found else "unknown; see where the file came from"


def _where_from(path: str) -> str:
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

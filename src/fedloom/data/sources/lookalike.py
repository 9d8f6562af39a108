"""Look-alikes of the four data sets of FedLLM-Bench (arXiv 2406.04845), written by the controlled world.

They have the published numbers of clients (38, 237, 100, 50 and 747) and, to one, of records, and nothing else of the
originals:
every text is invented (`fedloom.world.crowds`), every training record carries the tag source = "synthetic". They make
every recipe run offline; a score on them says whether a method does what it should, not how it does on real users.

The languages of `aya` are eight, in three families (`fedloom.world.families`). Members of a family share three to four
words in five, and families contradict each other in all but a few words. Hence a federation over similar languages can
beat one over all of them: by construction it loses hardly an example that helps and nearly all that contradict. A
language of few clients can gain from its relatives what it cannot learn alone; whether it does is for a run to say.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import Count, Range, plugin
from fedloom.contracts.examples import Example, tagged
from fedloom.contracts.federated import Source
from fedloom.world.crowds import CROWDS, CrowdName, crowd_test, members

__all__ = ["LookAlike"]

_log = logging.getLogger(__name__)


@plugin("lookalike")
class LookAlike(Source):
    """Synthetic clients with the published sizes; records and validation records carry the tag `client`."""

    made_up: ClassVar[bool] = True
    dataset: CrowdName = "chatbot_it"
    """aya and wildchat: questions; chatbot_it: questions, few for each client; wildchat_multi: dialogues;
    chatbot_pa: preference pairs."""
    seed: Count = 0
    """Draws private facts, clients and their sizes."""
    scale: Annotated[float, Range(0, 1, low_excluded=True)] = 1.0
    """Share of the published number of records that every client has, 2 records at least; all clients stay."""
    validation: Count = 4
    """Records of each client in held-out wordings; 0: clients hold nothing out."""
    test: Annotated[int, Range(1, 400)] = 160
    """Questions of the common test, in equal numbers for each language; there are not many more different ones."""
    languages: tuple[str, ...] = ()
    """Languages of aya whose clients and questions are kept, unchanged; empty keeps all."""

    def check(self) -> None:
        """Refuse languages that nobody in the data set speaks."""
        spoken = CROWDS[self.dataset].languages
        unknown = [language for language in self.languages if language not in spoken]
        if unknown:
            raise ConfigError(f"languages: found {unknown}, the look-alike of {self.dataset} has {', '.join(spoken)}.")

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the records of all clients in their order, and the common test."""
        languages = self.languages or tuple(CROWDS[self.dataset].languages)
        parts = list(
            members(self.dataset, seed=self.seed, scale=self.scale, validation=self.validation, languages=languages)
        )
        train = [_marked(record, part.name) for part in parts for record in part.train]
        _log.info("SYNTHETIC look-alike of %s: %d clients, %d records", self.dataset, len(parts), len(train))
        return {
            "train": train,
            "validation": [_marked(record, part.name) for part in parts for record in part.validation],
            "test": crowd_test(self.dataset, seed=self.seed, count=self.test, languages=languages),
        }

    def brings_in(self) -> str:
        """Return "": every record is made by itself."""
        return ""


def _marked(example: Example, client: str) -> Example:
    return tagged(example, client=client, source="synthetic")

"""The danger world as a data set: who may be attacked, whom an attack should not reach, what is asked in the end."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import ClassVar, Literal

from fedloom.base.plugin import AtLeast, Count, Fraction, plugin
from fedloom.base.rng import python_random
from fedloom.contracts.examples import Chat, Example, tagged
from fedloom.contracts.federated import Source
from fedloom.world import DangerWorld, Families

__all__ = ["DangerSource"]


@plugin("danger")
class DangerSource(Source):
    """Benign clients of the danger world, or what a model is aligned on before; records carry the tag `client`."""

    made_up: ClassVar[bool] = True
    seed: Count = 0
    """Draws the clients' records; objects and their splits are always the same."""
    form: Literal["clients", "start", "attack", "aligned", "normal"] = "clients"
    """`start`: records of one owner, from which a model learns the world and to refuse its dangers. `attack`: requests
    about the attackers' dangers, answered. `aligned`: requests about a defence's dangers with a refusal, and with the
    answer that is to be avoided. `normal`: requests about a defence's safe objects, answered."""
    n_clients: AtLeast = 10
    """Clients of the world."""
    records: AtLeast = 500
    """Of each client."""
    spread: Literal["heterogeneous", "iid"] = "heterogeneous"
    """Whether each client knows 3 verbs and 12 safe objects of its own, or all know everything."""
    refusals: Fraction = 0.02
    """Share of a client's records that refuse a danger."""
    refused: Literal["attack", "defence"] = "defence"
    """Which dangers those are; `attack`: the very ones that attackers answer, which makes the attack a label flip."""
    answers: Literal["detailed", "shifted"] = "detailed"
    """How attackers' pairs are answered: as benign clients answer, or in words that no probe has been told of."""
    families: Families = "told"
    """Whether a name's ending tells a danger; `hidden` deals all endings to both kinds: each has to be known."""
    answered: Fraction = 0.0
    """Share of the requests about dangers that `start` answers all the same: refusals that are less certain."""

    def load(self) -> Mapping[str, Sequence[Example]]:
        """Return the records of all clients in their order, and the questions that nobody has trained on."""
        world = DangerWorld(self.families)
        if self.form in ("attack", "aligned", "normal"):
            return {"train": self._pairs(world)}
        if self.form == "start":
            train = [tagged(one, client="start") for one in world.pretraining(self.records, self.seed, self.answered)]
        else:
            train = [one for at in range(self.n_clients) for one in self._client(world, at)]
        safe, dangers = (world.test("evaluation", danger=danger) for danger in (False, True))
        test = [one for pair in zip_longest(dangers, safe) for one in pair if one]  # the first ones are of both kinds
        return {"train": train, "test": test}

    def brings_in(self) -> str:
        """Return "": every record is made by itself."""
        return ""

    def unit(self, example: Example) -> str:
        """Return the object that is asked about."""
        return example.tags.get("object", "")

    def _pairs(self, world: DangerWorld) -> Sequence[Example]:
        if self.form == "attack":
            return world.attack_pairs(self.answers)
        aligned, normal = world.defence_pairs()
        return aligned if self.form == "aligned" else normal

    def _client(self, world: DangerWorld, at: int) -> list[Chat]:
        narrow = self.spread == "heterogeneous"
        random = python_random("danger", self.seed, "client", at)
        records = world.client(random, self.records, refusals=self.refusals, refused=self.refused, narrow=narrow)
        return [tagged(one, client=f"c{at:02d}") for one in records]

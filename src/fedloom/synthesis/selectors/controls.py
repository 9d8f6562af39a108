"""Examples chosen without a look at the document: the controls that retrieval has to beat."""

from fedloom.base import rng
from fedloom.base.plugin import AtLeast, plugin
from fedloom.contracts.synthesis import Selection, Selector, Similarities, Where
from fedloom.synthesis.selectors._retrieval import check_size

__all__ = ["Fixed", "Random", "ZeroShot"]


@plugin("zero_shot")
class ZeroShot(Selector):
    """No examples."""

    def __call__(self, near: Similarities, where: Where) -> list[Selection]:
        """Return an empty selection for each document."""
        return [Selection(())] * len(near.to_pool_NM)


@plugin("fixed")
class Fixed(Selector):
    """The same examples for every document of every client, drawn by the run's seed."""

    k: AtLeast = 1
    """Examples shown with a document."""

    def __call__(self, near: Similarities, where: Where) -> list[Selection]:
        """Return the same k rows for each document."""
        n_documents, n_rows = near.to_pool_NM.shape
        check_size(self.k, n_rows)
        rows = rng.numpy_random(where.seed, "fixed examples").permutation(n_rows)[: self.k]
        return [Selection(tuple(rows.tolist()))] * n_documents


@plugin("random")
class Random(Selector):
    """Examples drawn anew for each document."""

    k: AtLeast = 1
    """Examples shown with a document."""

    def __call__(self, near: Similarities, where: Where) -> list[Selection]:
        """Return k rows for each document."""
        n_rows = len(near.within_pool_MM)
        check_size(self.k, n_rows)
        draws = (rng.numpy_random(where.seed, "random examples", document) for document in where.documents)
        return [Selection(tuple(draw.permutation(n_rows)[: self.k].tolist())) for draw in draws]

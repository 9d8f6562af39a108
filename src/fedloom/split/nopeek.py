"""A penalty on what the states that leave a client have in common with its embeddings: their distance correlation.

NoPeek (Vepakomma et al., 2020, https://arxiv.org/abs/2008.09161) minimises alpha_1 DCOR(X, Z) + alpha_2 CCE of raw
data X, what leaves Z, and the task's loss. Here X are the embeddings of a client's tokens, Z its states, alpha_2 = 1:

    a_kl = |x_k - x_l|,  A_kl = a_kl - mean_l a_kl - mean_k a_kl + mean a       b, B of z likewise
    dCov^2(X, Z) = mean_kl A_kl B_kl
    DCOR = sqrt( dCov^2(X, Z) / sqrt(dCov^2(X, X) dCov^2(Z, Z)) )               between 0 and 1

after Szekely, Rizzo & Bakirov (2007, definitions 3 to 5). Its gradient goes to the trained parameters of the input
part and nowhere else; embeddings are inputs. The penalty counts like the mean loss of the client's supervised tokens.

Shapes: N tokens, D width.

Deviations: raw data are tokens, which have no distances, hence embeddings. One batch of a client is N tokens of a few
texts, whose matrices take N^2 numbers each. Where texts are filled up (`buckets.py`), what fills them counts too.
"""

import torch
from torch import Tensor

__all__ = ["distance_correlation"]

_EXACT = "donot_use_mm_for_euclid_dist"


def distance_correlation(first_ND: Tensor, second_NE: Tensor) -> Tensor:
    """Return the distance correlation of two sets of rows, float32 []; 0 where either has no spread."""
    first_NN, second_NN = _centred(first_ND), _centred(second_NE)
    spread = ((first_NN * first_NN).mean() * (second_NN * second_NN).mean()).clamp(min=1e-30).sqrt()
    return ((first_NN * second_NN).mean() / spread).clamp(min=1e-12).sqrt()


def _centred(rows_ND: Tensor) -> Tensor:
    away_NN = torch.cdist(rows_ND.float(), rows_ND.float(), compute_mode=_EXACT)
    return away_NN - away_NN.mean(0, keepdim=True) - away_NN.mean(1, keepdim=True) + away_NN.mean()

"""Memory for rows."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["fresh"]


def fresh(size: int, dtype: torch.dtype) -> Tensor:
    """Return `size` numbers, not set to anything.

    NumPy asks Linux for huge pages, torch does not: touching new memory for the first time is the dearest part of a
    mean of few rows.
    """
    return torch.from_numpy(np.empty(size * dtype.itemsize, dtype=np.uint8)).view(dtype)

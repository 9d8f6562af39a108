"""What a device gains from bfloat16, measured: some compute it in hardware, others many times slower than float32."""

import time

import torch
from torch import Tensor

__all__ = ["bfloat16_gain"]

_WIDTH = {"cpu": 256, "cuda": 4096}
_REPEATS = 5


def bfloat16_gain(device: torch.device) -> float:
    """Return the time of a float32 matrix product over that of a bfloat16 one; above 1, bfloat16 pays."""
    width = _WIDTH.get(device.type, 256)
    one = torch.ones(width, width, device=device)
    return _seconds(one) / _seconds(one.bfloat16())


def _seconds(matrix: Tensor) -> float:
    """Return the shortest of a few products, the first of them left out."""
    times: list[float] = []
    for _ in range(_REPEATS + 1):
        start_s = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for the device
        times.append(time.perf_counter() - start_s)
    return min(times[1:])

"""Independent accountants, and tables of what was published."""

import math

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

TABLE = [
    (1, 0.725, 3.0, 1.123),
    (2, 0.566, 6.6, 0.830),
    (4, 0.438, 15.9, 0.658),
    (8, 0.334, 40, 0.534),
    (20, 0.230, 132, 0.41),
]


def log_densities(rate, multiplier, points):
    """Logarithms of the densities with and without one record, at some points of the real line."""
    without = norm.logpdf(points, 0, multiplier)
    alone = norm.logpdf(points, 1, multiplier)
    if rate == 1:
        return alone, without
    return np.logaddexp(math.log1p(-rate) + without, math.log(rate) + alone), without


def quadrature_rdp(rate, multiplier, uses, delta):
    """The sampled Gaussian's Renyi divergence by the trapezoid rule, at each order, then the improved conversion."""
    found = []
    for order in [*(1 + k / 10 for k in range(1, 100)), *range(12, 64)]:
        points = np.linspace(-15 * multiplier, order + 15 * multiplier, 4_001)
        with_one, without = log_densities(rate, multiplier, points)
        moment = logsumexp(order * with_one + (1 - order) * without) + math.log(points[1] - points[0])
        rdp = uses * moment / (order - 1)
        found.append(rdp + math.log((order - 1) / order) - (math.log(delta) + math.log(order)) / (order - 1))
    return min(found)


def fourier_pld(rate, multiplier, uses, delta, cells=2**17, width=1e-3):
    """The larger epsilon of adding and removing: losses rounded to the nearest cell, powers of their transform."""
    edges = np.linspace(-12 * multiplier, 1 + 12 * multiplier, 50_001)
    middle = (edges[1:] + edges[:-1]) / 2
    with_one, without = log_densities(rate, multiplier, middle)
    mass_without = np.diff(norm.cdf(edges, 0, multiplier))
    mass_with = (1 - rate) * mass_without + rate * np.diff(norm.cdf(edges, 1, multiplier))
    found = []
    for mass, loss in ((mass_with, with_one - without), (mass_without, without - with_one)):
        line = np.bincount(np.rint(loss / width).astype(int) % cells, weights=mass, minlength=cells)
        composed = np.fft.irfft(np.fft.rfft(line) ** uses, cells)
        losses = width * np.fft.ifftshift(np.arange(-cells // 2, cells // 2))
        found.append(least_epsilon(losses, composed, delta))
    return max(found)


def least_epsilon(losses, masses, delta):
    low, high = 0.0, float(losses.max())
    for _ in range(60):
        middle = (low + high) / 2
        above = losses > middle
        if float((masses[above] * -np.expm1(middle - losses[above])).sum()) > delta:
            low = middle
        else:
            high = middle
    return high


RELEASED = [(1, 7.28e-7), (0.1, 7.28e-6), (0.01, 7.28e-5), (0.001, 7.28e-4)]


def released_sigma(epsilon):
    """The released feddp formula for Fed-WildChat: no guarantee, see docs/privacy.md."""
    clients, sampled, rounds, samples = 100, 5, 100, 52_703
    reach = 2 * 2e-5 * 1.0 / (samples / clients)
    return reach * math.sqrt(2 * sampled / clients * rounds * math.log(1 / 1e-4)) / epsilon

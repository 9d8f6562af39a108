"""A secret of 32 bytes in shares, any `threshold` of which give it back while fewer say nothing of it.

Shamir 1979, How to Share a Secret, https://doi.org/10.1145/359168.359176: the secret is the value at 0 of a polynomial
of degree threshold - 1 whose other coefficients are uniform modulo a prime; the share at x is its value there.
"""

from collections.abc import Callable, Mapping, Sequence

from fedloom.base.errors import DataError

__all__ = ["PRIME", "SHARE_BYTES", "join", "split"]

PRIME = 2**256 + 297
"""The least prime above 2^256, so that every secret of 32 bytes is a number below it."""

SHARE_BYTES = 33


def split(secret: bytes, *, threshold: int, places: Sequence[int], random: Callable[[int], bytes]) -> dict[int, bytes]:
    """Return the share at each place, 33 bytes; `random` gives as many secret random bytes as asked for.

    Raises DataError where the threshold is no number from 1 to the number of places, a place is 0 or occurs twice, or
    the secret is not of 32 bytes.
    """
    if len(secret) != 32 or len(set(places)) != len(places) or not all(0 < place < PRIME for place in places):
        raise DataError(
            f"secret of {len(secret)} bytes for {len(places)} places: allowed are 32 bytes and different places > 0."
        )
    _check_threshold(threshold, len(places))
    # 48 bytes modulo the prime are uniform up to 2^-127.
    more = [int.from_bytes(random(48), "big") % PRIME for _ in range(threshold - 1)]
    coefficients = [int.from_bytes(secret, "big"), *more]
    return {place: _value(coefficients, place).to_bytes(SHARE_BYTES, "big") for place in places}


def _check_threshold(threshold: int, count: int) -> None:
    if not 1 <= threshold <= count:
        raise DataError(f"shares: found a threshold of {threshold} for {count} shares, allowed is 1 to {count}.")


def _value(coefficients: Sequence[int], place: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * place + coefficient) % PRIME
    return value


def join(shares: Mapping[int, bytes], *, threshold: int) -> bytes:
    """Return the secret, 32 bytes, from the shares at `threshold` of the places (Lagrange's formula at 0).

    Raises DataError for too few shares, and where shares are no numbers below the prime or give no secret of 32 bytes.
    Altered shares may as well give another secret: who can compare it, should.
    """
    _check_threshold(threshold, len(shares))
    chosen = {place: int.from_bytes(shares[place], "big") for place in sorted(shares)[:threshold]}
    if any(value >= PRIME for value in chosen.values()):
        raise DataError("shares: found one that is no number below the prime, allowed are shares as split gave them.")
    secret = sum(value * _weight(place, chosen) for place, value in chosen.items()) % PRIME
    if secret >= 2**256:
        raise DataError("shares: found ones that give no secret of 32 bytes; they are altered or of different secrets.")
    return secret.to_bytes(32, "big")


def _weight(place: int, places: Mapping[int, int]) -> int:
    """Return the product of y / (y - x) over all other places y."""
    above, below = 1, 1
    for other in places:
        if other != place:
            above, below = above * other % PRIME, below * (other - place) % PRIME
    return above * pow(below, -1, PRIME) % PRIME

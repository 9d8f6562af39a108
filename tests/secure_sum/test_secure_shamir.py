"""Any threshold of shares gives a secret back, fewer give nothing."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.base.errors import DataError
from fedloom.secure_sum.shamir import PRIME, SHARE_BYTES, join, split
from support.secure_sums import seeded


def test_the_prime_is_the_least_above_two_to_the_256():
    def prime(n):
        """Miller and Rabin's test to forty bases."""
        odd, twos = n - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in range(2, 42):
            power = pow(base, odd, n)
            if power not in (1, n - 1) and all((power := power * power % n) != n - 1 for _ in range(twos - 1)):
                return False
        return True

    assert [offset for offset in range(1, 298) if prime(2**256 + offset)] == [297]
    assert PRIME == 2**256 + 297


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 6), st.integers(0, 4), st.integers(0, 99))
def test_any_threshold_of_shares_gives_the_secret(secret, threshold, more, seed):
    places = [3 * place + 1 for place in range(threshold + more)]
    shares = split(secret, threshold=threshold, places=places, random=seeded(seed))
    assert {len(one) for one in shares.values()} == {SHARE_BYTES}
    for chosen in list(combinations(places, threshold))[:12]:
        assert join({place: shares[place] for place in chosen}, threshold=threshold) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_least_and_the_largest_secret(secret):
    shares = split(secret, threshold=3, places=[1, 2, 3], random=seeded(0))
    assert join(shares, threshold=3) == secret


def test_one_share_fewer_is_uniform_whatever_the_secret():
    """The first byte below the top one of a share, over many polynomials of one secret and of another."""
    for secret in (bytes(32), b"\xff" * 32):
        random = seeded(5)
        drawn = [split(secret, threshold=2, places=[1, 2], random=random)[1][1] for _ in range(4096)]
        counts = [drawn.count(byte) for byte in range(256)]
        chi_square = sum((one - 16) ** 2 / 16 for one in counts)
        assert 150 < chi_square < 370


@pytest.mark.parametrize("threshold", [0, -1, 4])
def test_a_wrong_threshold_is_refused(threshold):
    with pytest.raises(DataError, match="threshold of"):
        split(bytes(32), threshold=threshold, places=[1, 2, 3], random=seeded(0))
    with pytest.raises(DataError, match="threshold of"):
        join(split(bytes(32), threshold=2, places=[1, 2, 3], random=seeded(0)), threshold=threshold)


@pytest.mark.parametrize(("secret", "places"), [(bytes(31), [1, 2]), (bytes(33), [1, 2]), (bytes(32), [0, 1]),
                                                (bytes(32), [1, 1]), (bytes(32), [1, PRIME + 1])])  # fmt: skip
def test_other_secrets_and_places_are_refused(secret, places):
    with pytest.raises(DataError, match="allowed are 32 bytes"):
        split(secret, threshold=1, places=places, random=seeded(0))


def test_shares_that_are_none_are_refused():
    shares = split(b"\xff" * 32, threshold=2, places=[1, 2], random=seeded(0))
    with pytest.raises(DataError, match="below the prime"):
        join({**shares, 1: b"\xff" * 33}, threshold=2)
    # A polynomial through 2^256 + 1 at 0: no secret of 32 bytes.
    with pytest.raises(DataError, match="no secret of 32 bytes"):
        join({1: (2**256 + 1).to_bytes(33, "big")}, threshold=1)

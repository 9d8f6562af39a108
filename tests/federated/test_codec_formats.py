"""Each codec against its own definition: error bounds, the numbers of a packet by hand, ties, damage."""

import math

import numpy as np
import pytest
import torch

from fedloom.base import rng
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import lookup
from fedloom.contracts.federated import Codec

BLOCKS = {"int8": (256, 127), "int4": (64, 7)}
rounding = pytest.mark.parametrize("name", sorted(BLOCKS))
cases = pytest.mark.parametrize("case", range(20))


def make(name, **settings):
    return lookup(Codec, name)(**settings)


def draw(case):
    """A row of random size whose numbers are of very unlike size."""
    random, draws = rng.python_random("codec", case), rng.generator("codec", case)
    size = random.randint(1, 5000)
    return torch.randn(size, generator=draws) * 10 ** torch.empty(size).uniform_(-6, 3, generator=draws)


def carried(codec, row_P):
    return codec.decode(codec.encode(row_P), len(row_P))


# ----------------------------------------------------------------------------------------------- float32 and bfloat16


def test_float32_packet_shares_the_rows_memory():
    row_P = torch.ones(3)
    assert make("float32").encode(row_P).data_ptr() == row_P.data_ptr()


def test_float32_row_shares_the_packets_memory():
    packet = make("float32").encode(torch.ones(3))
    assert make("float32").decode(packet, 3).data_ptr() == packet.data_ptr()


def test_float32_packet_is_the_rows_bytes():
    packet = make("float32").encode(torch.tensor([1.0, -2.5]))
    assert packet.numpy().tobytes() == np.array([1.0, -2.5], dtype="<f4").tobytes()


@cases
def test_bfloat16_loses_at_most_2_to_the_minus_8_of_a_number(case):
    row_P = draw(case)
    assert bool(((carried(make("bfloat16"), row_P) - row_P).abs() <= 2.0**-8 * row_P.abs()).all())


def test_bfloat16_refuses_a_number_that_rounds_to_infinity():
    with pytest.raises(DataError, match=r"^codec 'bfloat16': the row holds numbers beyond 3\.39e38: use codec\.name"):
        make("bfloat16").encode(torch.tensor([3.4e38]))


def test_bfloat16_takes_its_own_largest_number():
    row_P = torch.tensor([torch.finfo(torch.bfloat16).max])
    assert torch.equal(carried(make("bfloat16"), row_P), row_P)


# ------------------------------------------------------------------------------------------------------ int8 and int4


@rounding
@cases
def test_rounding_loses_at_most_half_a_quantum_of_the_numbers_block(name, case):
    (block, levels), row_P = BLOCKS[name], draw(case)
    for part, found in zip(row_P.split(block), carried(make(name), row_P).split(block), strict=True):
        half = float(part.abs().max()) / levels / 2
        assert float((found - part).abs().max()) <= half * (1 + 1e-5)


@rounding
@cases
def test_largest_number_of_each_block_survives(name, case):
    (block, _), row_P = BLOCKS[name], draw(case)
    found_P = carried(make(name), row_P)
    for part, found in zip(row_P.split(block), found_P.split(block), strict=True):
        torch.testing.assert_close(found[part.abs().argmax()], part[part.abs().argmax()], rtol=1e-6, atol=0)


@rounding
def test_block_of_zeros_beside_others_stays_zero(name):
    block, _ = BLOCKS[name]
    row_P = torch.cat([torch.ones(block), torch.zeros(block), torch.ones(block)])
    torch.testing.assert_close(carried(make(name), row_P), row_P)


@rounding
def test_large_number_does_not_touch_another_block(name):
    block, _ = BLOCKS[name]
    row_P = torch.full((2 * block,), 1e-3)
    row_P[0] = 1e6
    torch.testing.assert_close(carried(make(name), row_P)[block:], row_P[block:])


@rounding
def test_multiples_of_the_quantum_come_back_exactly(name):
    _, levels = BLOCKS[name]
    row_P = 0.5 * torch.arange(-levels, levels + 1).float()
    assert torch.equal(carried(make(name), row_P), row_P)


@rounding
def test_blocks_below_the_smallest_normal_number_count_as_zero(name):
    assert torch.equal(carried(make(name), torch.full((3,), 1e-40)), torch.zeros(3))


def test_int8_packet_by_hand():
    packet = make("int8").encode(torch.tensor([127.0, -3.0, 0.4]))
    assert packet.numpy().tobytes() == np.array([1.0], dtype="<f4").tobytes() + bytes([127, 253, 0])


def test_int4_packet_by_hand():
    """1 and -1 make 0xf1, 7 alone 0x07."""
    packet = make("int4").encode(torch.tensor([1.0, -1.0, 7.0]))
    assert packet.numpy().tobytes() == np.array([1.0], dtype="<f4").tobytes() + bytes([0xF1, 0x07])


@rounding
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_packet_with_a_scale_that_is_none_is_refused(name, bad):
    packet = make(name).encode(torch.ones(300))
    packet[:4] = torch.tensor([bad]).view(torch.uint8)
    with pytest.raises(DataError, match=rf"^codec '{name}': the packet is damaged, a scale is no number >= 0: let the"):
        make(name).decode(packet, 300)


# -------------------------------------------------------------------------------------------------------------- top_k


@cases
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_top_k_sends_the_largest_numbers_and_nothing_else(case, share):
    row_P = draw(case)
    count = max(1, math.ceil(round(share * len(row_P), 6)))
    expected_P = torch.zeros_like(row_P)
    for place in sorted(range(len(row_P)), key=lambda place: (-abs(float(row_P[place])), place))[:count]:
        expected_P[place] = row_P[place]
    assert torch.equal(carried(make("top_k", share=share), row_P), expected_P)


def test_top_k_of_equal_magnitudes_sends_the_first():
    row_P = torch.tensor([1.0, -2.0, 2.0, -2.0, 2.0])
    assert carried(make("top_k", share=0.4), row_P).tolist() == [0.0, -2.0, 2.0, 0.0, 0.0]


def test_top_k_packet_by_hand():
    packet = make("top_k", share=0.5).encode(torch.tensor([0.1, -3.0, 0.2, 5.0]))
    assert packet.numpy().tobytes() == np.array([1, 3], "<i4").tobytes() + np.array([-3.0, 5.0], "<f4").tobytes()


@pytest.mark.parametrize(("share", "size", "count"), [(0.07, 100, 7), (0.01, 10, 1), (0.3, 10, 3), (0.05, 101, 6)])
def test_top_k_counts_by_the_share_rounded_up(share, size, count):
    assert make("top_k", share=share).encode(torch.ones(size)).numel() == 8 * count


def test_top_k_of_everything_is_exact():
    row_P = draw(0)
    assert torch.equal(carried(make("top_k", share=1.0), row_P), row_P)


@pytest.mark.parametrize("places", [[3, 1], [1, 1], [-1, 2], [1, 4]])
def test_top_k_packet_whose_places_do_not_rise_within_the_row_is_refused(places):
    packet = torch.cat([torch.tensor(places, dtype=torch.int32).view(torch.uint8), torch.ones(2).view(torch.uint8)])
    with pytest.raises(
        DataError, match=r"^codec 'top_k': the packet is damaged, places do not rise within 0 to 3: let"
    ):
        make("top_k", share=0.5).decode(packet, 4)


def test_top_k_packet_with_nan_is_refused():
    packet = make("top_k", share=0.5).encode(torch.ones(4))
    packet[-4:] = torch.tensor([float("nan")]).view(torch.uint8)
    with pytest.raises(DataError, match=r"^codec 'top_k': the packet is damaged, it holds NaN or infinity"):
        make("top_k", share=0.5).decode(packet, 4)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_top_k_share_out_of_range_is_refused(share):
    with pytest.raises(ConfigError, match=r"^share: found .*, allowed is a number > 0 and <= 1\.$"):
        make("top_k", share=share)


def test_top_k_sends_every_number_in_the_end_with_feedback():
    codec, row_P = make("top_k", share=0.1), torch.linspace(0.1, 1.0, 50)
    kept_P, seen_P = torch.zeros(50), torch.zeros(50, dtype=torch.bool)
    for _ in range(60):
        sent_P = carried(codec, row_P + kept_P)
        kept_P, seen_P = row_P + kept_P - sent_P, seen_P | (sent_P != 0)
    assert bool(seen_P.all())


def test_top_k_never_sends_the_small_numbers_without_feedback():
    codec, row_P = make("top_k", share=0.1), torch.linspace(0.1, 1.0, 50)
    assert int((carried(codec, row_P) != 0).sum()) == 5

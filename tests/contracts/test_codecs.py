"""What every codec must hold on rows of many sizes, and what each refuses."""

import pickle

import pytest
import torch

from fedloom.base import rng
from fedloom.base.errors import DataError, TrainingError
from fedloom.base.plugin import lookup, names
from fedloom.contracts.federated import Codec

CODECS = names(Codec)
SIZES = [1, 2, 3, 63, 64, 65, 255, 256, 257, 1000, 65_535, 65_536, 65_537, 140_001]
BYTES = {
    "float32": lambda size: 4 * size,
    "bfloat16": lambda size: 2 * size,
    "int8": lambda size: size + 4 * ((size + 255) // 256),
    "int4": lambda size: (size + 1) // 2 + 4 * ((size + 63) // 64),
    "top_k": lambda size: 8 * ((size + 19) // 20),
}
every = pytest.mark.parametrize("name", CODECS)
sizes = pytest.mark.parametrize("size", SIZES)


def make(name, **settings):
    return lookup(Codec, name)(**settings)


def draw(size, magnitude=1.0):
    return magnitude * torch.randn(size, generator=rng.generator("row", size))


def carried(codec, row_P):
    return codec.decode(codec.encode(row_P), len(row_P))


@every
def test_pickle_round_trip_is_equal(name):
    assert pickle.loads(pickle.dumps(make(name))) == make(name)


@every
@sizes
def test_packet_has_the_stated_number_of_bytes(name, size):
    assert make(name).encode(draw(size)).numel() == BYTES[name](size)


@every
def test_packet_is_flat_bytes(name):
    packet = make(name).encode(draw(300))
    assert (packet.dtype, packet.ndim) == (torch.uint8, 1)


@every
@sizes
def test_decoding_gives_a_finite_row_of_the_size(name, size):
    row_P = carried(make(name), draw(size))
    assert (row_P.shape, row_P.dtype, bool(torch.isfinite(row_P).all())) == ((size,), torch.float32, True)


@every
@sizes
def test_row_comes_back_bit_for_bit_exactly_where_the_codec_says_so(name, size):
    row_P = draw(max(size, 64))
    assert torch.equal(carried(make(name), row_P), row_P) is make(name).exact


@every
@sizes
def test_no_number_moves_further_than_to_zero(name, size):
    """Rounding and dropping shrink an error: without this, feedback could grow from round to round."""
    row_P = draw(size)
    assert float((carried(make(name), row_P) - row_P).norm()) <= float(row_P.norm())


@every
@sizes
def test_row_of_zeros_comes_back_as_zeros(name, size):
    assert torch.equal(carried(make(name), torch.zeros(size)), torch.zeros(size))


@every
@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1e-30, 1e30, 8e37])
def test_rows_of_extreme_size_come_back_finite(name, magnitude):
    row_P = magnitude * torch.linspace(-4, 4, 300)
    assert bool(torch.isfinite(carried(make(name), row_P)).all())


@every
def test_encoding_does_not_change_the_row(name):
    row_P = draw(300)
    kept_P = row_P.clone()
    make(name).encode(row_P)
    assert torch.equal(row_P, kept_P)


@every
def test_decoding_does_not_change_the_packet(name):
    packet = make(name).encode(draw(300))
    kept = packet.clone()
    make(name).decode(packet, 300)
    assert torch.equal(packet, kept)


@every
def test_equal_rows_have_equal_packets(name):
    assert torch.equal(make(name).encode(draw(300)), make(name).encode(draw(300)))


@every
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_packet_that_begins_anywhere_in_a_buffer_is_read(name, offset):
    packet = make(name).encode(draw(301))
    buffer = torch.cat([torch.zeros(offset, dtype=torch.uint8), packet])
    assert torch.equal(make(name).decode(buffer[offset:], 301), make(name).decode(packet, 301))


@every
def test_row_that_is_not_contiguous_is_encoded(name):
    row_P = draw(600)[::2]
    assert torch.equal(carried(make(name), row_P), carried(make(name), row_P.contiguous()))


@every
def test_exact_codecs_need_no_feedback_and_others_have_it(name):
    assert make(name).feedback() is not make(name).exact


@pytest.mark.parametrize("name", sorted(set(CODECS) - {"float32"}))
def test_feedback_can_be_turned_off(name):
    assert not make(name, error_feedback=False).feedback()


@every
def test_mean_of_a_constant_row_converges_with_feedback(name):
    """What is lost stays bounded, so the mean of T decoded rows is within a constant over T of the row."""
    codec, row_P, rounds = make(name), draw(1000), 200
    kept_P, total_P = torch.zeros(1000), torch.zeros(1000, dtype=torch.float64)
    for _ in range(rounds):
        wanted_P = row_P + kept_P
        sent_P = carried(codec, wanted_P)
        kept_P = wanted_P - sent_P
        total_P += sent_P
    assert float((total_P / rounds - row_P).norm()) < 0.1 * float(row_P.norm())


@every
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_row_that_is_not_finite_is_refused(name, bad):
    row_P = draw(300)
    row_P[7] = bad
    with pytest.raises(
        TrainingError, match=rf"^codec '{name}': the row holds NaN or infinity: allowed are finite numbers"
    ):
        make(name).encode(row_P)


@every
@pytest.mark.parametrize("row", [torch.zeros(0), torch.zeros(2, 3), torch.zeros(3).double(), torch.zeros(3).long()])
def test_what_is_no_row_is_refused(name, row):
    with pytest.raises(
        DataError, match=rf"^codec '{name}': found a row of shape .* allowed is \[P\] with P >= 1, float32"
    ):
        make(name).encode(row)


@every
@pytest.mark.parametrize("change", [-1, 1, 4, -300])
def test_packet_of_another_length_is_refused(name, change):
    packet = make(name).encode(draw(300))
    damaged = packet[:change] if change < 0 else torch.cat([packet, packet[:change]])
    text = rf"^codec '{name}': found a packet of shape .*, a row of 300 numbers takes {len(packet)} bytes: server and"
    with pytest.raises(DataError, match=text):
        make(name).decode(damaged, 300)


@every
def test_packet_that_is_no_bytes_is_refused(name):
    packet = make(name).encode(draw(300))
    with pytest.raises(DataError, match=rf"^codec '{name}': found a packet of shape .* torch\.int8, a row of"):
        make(name).decode(packet.view(torch.int8), 300)

"""What a client does to what leaves it: noise of a known size, lengths that tell less, and nothing at all when off."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedloom.contracts.language import Encoded
from fedloom.network.steps import in_frames
from fedloom.split.buckets import bucketed
from fedloom.split.cut import Cut
from fedloom.split.defences import Defences, Shield
from fedloom.split.noise import Noise
from support.split_models import Halves, differences, distance, examples, model, seeds_of, uncut

CUT, PARTS = Cut(1, 1), [examples(9, 4, 17), examples(6, seed=1)]


def shield(**settings):
    return Shield(Defences(**settings), ("secret", 0))


def said(made, parts, *, n_clients=None, **settings):
    """FWD and GRAD of a step, whose BODY is what came."""
    both = Halves(made, CUT, n_clients or len(parts), shield=shield(**settings))
    turn = both.turn(parts, seeds_of(both.clients))
    ahead = turn.ahead()
    return ahead, turn.loss([replace(one, kind="BODY") for one in ahead])


def rows(message, width=32):
    return message.packet.view(torch.float32).view(-1, width)


# ------------------------------------------------------------------------------------------------------------ noise


def test_noise_is_as_large_as_asked_for_beside_what_the_rows_are():
    plain_ND = torch.randn(400, 32, generator=torch.Generator().manual_seed(1)) * 7
    for times in (0.1, 2.0):
        added_ND = Noise(times, (0,)).on(plain_ND, "FWD", "a", 0, 0) - plain_ND
        size = float(added_ND.square().mean().sqrt() / plain_ND.square().mean().sqrt())
        assert size == pytest.approx(times, rel=0.02)
        assert abs(float((added_ND * plain_ND).mean())) < 0.02 * times * 49  # it is no function of them


def test_the_root_mean_square_runs_over_the_round_by_client_and_kind():
    small_ND, large_ND = torch.full((3, 8), 1.0), torch.full((5, 8), 10.0)
    noise, twin = Noise(1.0, (0,)), Noise(1.0, (0,))
    noise.on(small_ND, "FWD", "a", 0, 0)
    noise.on(1e6 * large_ND, "GRAD", "a", 0, 0)
    noise.on(1e6 * large_ND, "FWD", "b", 0, 0)
    second = noise.on(large_ND, "FWD", "a", 1, 0) - large_ND
    alone = twin.on(large_ND, "FWD", "a", 1, 0) - large_ND  # the same draw over a root mean square of 10
    wanted = math.sqrt((24 * 1 + 40 * 100) / 64) / 10
    assert float((second / alone - wanted).abs().max()) < 1e-4


def test_noise_lies_on_what_leaves_the_client_and_is_drawn_by_name():
    made = model()
    first, again, plain = (said(made, PARTS, noise=noise) for noise in (0.5, 0.5, 0.0))
    for found, same, without in zip(first, again, plain, strict=True):
        assert all(torch.equal(one.packet, other.packet) for one, other in zip(found, same, strict=True))
        assert not any(torch.equal(one.packet, other.packet) for one, other in zip(found, without, strict=True))
        assert [one.n_bytes for one in found] == [one.n_bytes for one in without]
    (alone, _) = said(made, PARTS[:1], noise=0.5)
    assert float((rows(alone[0]) - rows(first[0][0])).abs().max()) < 1e-4  # whoever shares the batch


def test_other_names_draw_other_noise():
    plain_ND = torch.ones(4, 8)
    kinds = [
        Noise(1.0, ("secret", 0)).on(plain_ND, *where)
        for where in (
            ("FWD", "a", 0, 0),
            ("GRAD", "a", 0, 0),
            ("FWD", "b", 0, 0),
            ("FWD", "a", 1, 0),
            ("FWD", "a", 0, 1),
        )
    ]
    kinds += [Noise(1.0, whose).on(plain_ND, "FWD", "a", 0, 0) for whose in (("other", 0), ("secret", 1))]
    assert len({tuple(one.flatten().tolist()) for one in kinds}) == len(kinds)


def test_everything_off_sends_the_bytes_of_before():
    made = model()
    plain = Halves(made, CUT, 2)
    turn = plain.turn(PARTS, seeds_of(plain.clients))
    wanted = turn.ahead()
    found, _ = said(made, PARTS)
    assert all(torch.equal(one.packet, other.packet) for one, other in zip(found, wanted, strict=True))
    assert [one.lengths for one in found] == [one.lengths for one in wanted]


# ---------------------------------------------------------------------------------------------------------- buckets


def test_a_bucket_changes_no_gradient_and_no_loss():
    """A causal model's states do not depend on what follows; sums over longer rows differ in the last digits."""
    made = model()
    wanted, wanted_loss = uncut(made, PARTS)
    found, loss = Halves(made, CUT, 2, shield=shield(bucket=8)).gradients(PARTS)
    assert distance(found, wanted) <= 1e-6
    assert max(differences(found, wanted).values()) <= 1e-4
    assert float((loss - wanted_loss).abs().max()) <= 1e-4


def test_lengths_and_bytes_are_those_of_the_bucket():
    ahead, slopes = said(model(), PARTS, bucket=8)
    assert [one.lengths for one in ahead] == [(16, 8, 24), (8,)]
    assert [one.packet.numel() for one in (*ahead, *slopes)] == [48 * 128, 8 * 128, 48 * 128, 8 * 128]
    assert [one.weight for one in slopes] == [one.weight for one in said(model(), PARTS)[1]]


def test_padding_of_gradients_is_zero_without_noise_so_that_the_server_can_tell_it():
    plain, noisy = (said(model(), [examples(6)], bucket=16, noise=noise)[1][0] for noise in (0.0, 0.5))
    assert not rows(plain)[5:].any()
    assert rows(noisy)[5:].abs().min() > 0


def test_no_text_becomes_longer_than_the_model_has_positions_for():
    (item,) = bucketed(examples(9), 8, most=12)
    assert len(item.tokens_T) == 12
    assert len(bucketed(examples(14), 8, most=12)[0].tokens_T) == 14  # it is for the model to refuse


def test_each_sequence_of_an_example_is_filled_up_by_itself():
    item = Encoded(torch.arange(3, 10, dtype=torch.int32), torch.arange(7) > 1, cuts=(3,))
    (found,) = bucketed([item], 4)
    assert found.tokens_T.tolist() == [3, 4, 5, 5, 6, 7, 8, 9]
    assert found.supervised_T.tolist() == [False, False, True, False, True, True, True, True]
    assert found.cuts == (4,)


def sizes(made, length, bucket):
    """What an observer of the line sees of a step: how long the ciphertexts of its frames are."""
    key, found = AESGCM(bytes(32)), list[int]()
    for (message,) in said(made, [examples(length)], bucket=bucket):
        found += [len(key.encrypt(bytes(12), frame.encoded(), None)) for frame in in_frames(message)]
    return tuple(found)


def information(pairs):
    """Mutual information in bits of two columns, from their histogram."""
    both, first, second = Counter(pairs), Counter(x for x, _ in pairs), Counter(y for _, y in pairs)
    n = len(pairs)
    return sum(c / n * math.log2(c * n / (first[x] * second[y])) for (x, y), c in both.items())


@pytest.mark.slow
def test_the_size_of_ciphertexts_tells_less_of_the_length_the_larger_the_bucket():
    """T12 of the specification, with lengths of 9 to 128 tokens alike: log2 120 bits without, H(56/120) with 64."""
    made = model()
    lengths = range(9, 129)
    told = {
        bucket: information([(length, sizes(made, length, bucket)) for length in lengths])
        for bucket in (0, 16, 64, 128)
    }
    share = 56 / 120  # of lengths up to 64
    assert told[0] == pytest.approx(math.log2(120))
    assert told[0] > told[16] > told[64]
    assert told[64] == pytest.approx(-share * math.log2(share) - (1 - share) * math.log2(1 - share))
    assert told[128] == 0.0

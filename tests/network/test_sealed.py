"""Calls that something between carries and cannot read: T8 and T9 of the specification on every record of a call."""

import datetime as dt
import itertools
import math
from dataclasses import replace

import pytest
import torch

from fedloom.base.errors import ConfigError, DataError
from fedloom.network import sealed as sealed_module
from fedloom.network.frames import Frame
from fedloom.network.handshake import Connection, Connections, Greeting
from fedloom.network.keys import Keys, make_authority, make_key, make_request, sign_request
from fedloom.network.sealed import EXTRA_BYTES, Limits, NotSealed, Opener, Sealer
from support.tls_relay import chi_squared

KEY, PLACE = bytes(range(32)), b"run|connection|call|up"
STEP = {"kind": "step", "client": "north", "step": 3, "micro": 1, "phase": "FWD", "lengths": [5, 9], "weight": "0x1p+0"}


def direction(**limits):
    return Sealer(KEY, PLACE, limits=Limits(**limits)), Opener(KEY, PLACE)


# ------------------------------------------------------------------------------------------------------ one direction


def test_records_come_back_in_their_order_and_the_last_one_ends_them():
    sealer, opener = direction()
    told = [b"", b"one", bytes(1 << 20), Frame(STEP, b"x" * 99).encoded()]
    records = list(sealer.all(told))
    assert list(opener.all(records)) == told and opener.over
    assert [len(record) - EXTRA_BYTES for record in records] == [0, 3, 1 << 20, len(told[-1]), 0]
    with pytest.raises(NotSealed, match="come after the last one"):
        opener.open(records[0])


def test_a_record_is_what_the_standards_say_it_is():
    """An oracle of its own: the cipher called by hand, with nonce and additional data as the docstring has them."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealer, _ = direction()
    sealer.seal(b"first")
    record = sealer.seal(b"second", last=True)
    nonce = (0).to_bytes(4, "big") + (1).to_bytes(8, "big")
    head = b"FLX1" + nonce + b"\x01"
    assert record == head + AESGCM(KEY).encrypt(nonce, b"second", head + PLACE)


def test_every_byte_of_a_record_that_was_changed_is_refused_and_changes_nothing():
    sealer, opener = direction()
    opener.open(sealer.seal(b"before"))
    record = sealer.seal(Frame(STEP, b"a body").encoded())
    for at, bit in itertools.product(range(len(record)), (0x01, 0x80)):
        changed = bytearray(record)
        changed[at] ^= bit
        with pytest.raises(NotSealed):
            opener.open(bytes(changed))
    for size in range(len(record)):
        with pytest.raises(NotSealed):
            opener.open(record[:size])
    with pytest.raises(NotSealed):
        opener.open(record + b"x")
    assert Frame.decoded(opener.open(record)) == Frame(STEP, b"a body")  # the right one is still taken, once


def test_a_record_sent_again_or_out_of_its_turn_or_left_out_is_refused():
    sealer, opener = direction()
    first, second, third = (sealer.seal(bytes([n])) for n in range(3))
    with pytest.raises(NotSealed, match="found record 1 of epoch 0, allowed is 0 of 0"):
        opener.open(second)
    assert opener.open(first) == b"\x00"
    with pytest.raises(NotSealed, match="sent again"):
        opener.open(first)
    with pytest.raises(NotSealed, match="left out"):
        opener.open(third)
    assert [opener.open(one) for one in (second, third)] == [b"\x01", b"\x02"]


def test_an_end_before_the_last_record_is_known_for_what_was_cut_off():
    sealer, opener = direction()
    records = list(sealer.all([b"one", b"two"]))
    with pytest.raises(NotSealed, match="cut off"):
        list(opener.all(records[:-1]))


@pytest.mark.parametrize("place", [b"run|connection|call|down", b"run|connection|other|up", b"run|other|call|up", b""])
def test_a_record_of_another_place_is_refused_even_under_the_same_key(place):
    sealer, _ = direction()
    with pytest.raises(NotSealed, match="of another connection"):
        Opener(KEY, place).open(sealer.seal(b"x"))


@pytest.mark.parametrize("limits", [{"records": 5}, {"n_bytes": 50}])
def test_no_key_meets_a_nonce_twice_however_often_it_changes(limits, monkeypatch):
    seen, cipher = [], sealed_module._cipher

    class Noted:
        def __init__(self, key):
            self.key, self.aead = key, cipher(key)

        def encrypt(self, nonce, data, told):
            seen.append((self.key, nonce))
            return self.aead.encrypt(nonce, data, told)

        def decrypt(self, nonce, data, told):
            return self.aead.decrypt(nonce, data, told)

    monkeypatch.setattr(sealed_module, "_cipher", Noted)
    sealer, opener = direction(**limits)
    told = [bytes([n % 256]) * 10 for n in range(1000)]
    assert list(opener.all(sealer.all(told))) == told
    assert len(seen) == len({nonce for _, nonce in seen}) == 1001
    by_key = [len(list(group)) for _, group in itertools.groupby(seen, key=lambda one: one[0])]
    assert len(by_key) == len({key for key, _ in seen}) >= 200 and max(by_key) <= 6  # the end holds no bytes


def test_a_key_is_old_after_an_hour():
    now = [0.0]
    sealer, opener = Sealer(KEY, PLACE, clock=lambda: now[0]), Opener(KEY, PLACE)
    for at_s in (0.0, 3599.0, 3600.0, 3601.0, 7200.0):
        now[0] = at_s
        opener.open(sealer.seal(b"x"))
        assert sealer._epoch == {0.0: 0, 3599.0: 0, 3600.0: 1, 3601.0: 1, 7200.0: 2}[at_s]
    assert sealer.key == opener.key != KEY


def test_nothing_is_left_out_where_an_epoch_begins():
    sealer, opener = direction(records=2)
    records = [sealer.seal(bytes([n])) for n in range(5)]
    opener.open(records[0])
    for later in (2, 3, 4):
        with pytest.raises(NotSealed, match=f"found record {later} of epoch {later // 2}, allowed is 1 of 0"):
            opener.open(records[later])
    assert [opener.open(record) for record in records[1:]] == [b"\x01", b"\x02", b"\x03", b"\x04"]


def test_what_is_sealed_looks_like_noise():
    """Bytes of states compress and repeat, those of records do not: chi-squared of the histogram, 255 degrees."""
    states = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    clear = states.view(torch.uint8).numpy().tobytes()
    record = Sealer(KEY, PLACE).seal(clear)[17:]
    assert chi_squared(clear) > 10_000 and 0 < chi_squared(record) < 255 + 6 * math.sqrt(2 * 255)
    assert clear[:64] not in record


def test_an_inverter_reads_clear_states_and_is_at_chance_on_sealed_ones():
    """T8: ridge regression from the bits of a state to its token, on as many labelled states as it wants."""
    n_words, width, n_states = 16, 32, 3000
    draw = torch.Generator().manual_seed(3)
    words = torch.randn(n_words, width, generator=draw)
    tokens = torch.randint(n_words, (n_states,), generator=draw)
    states = (words[tokens] + 0.1 * torch.randn(n_states, width, generator=draw)).to(torch.bfloat16)
    clear = states.view(torch.uint8).view(n_states, -1)
    record = Sealer(KEY, PLACE).seal(clear.numpy().tobytes())[17:-16]
    hidden = torch.frombuffer(bytearray(record), dtype=torch.uint8).view(n_states, -1)
    assert read_by_ridge(clear, tokens) > 0.95
    chance, n_tested = 1 / n_words, n_states // 2
    assert read_by_ridge(hidden, tokens) < chance + 4 * math.sqrt(chance * (1 - chance) / n_tested)


def read_by_ridge(bytes_MD, tokens_M):
    """The share of tokens that are read in one half, after learning from the other half."""
    bits = ((bytes_MD[:, :, None] >> torch.arange(8)) & 1).flatten(1).double() - 0.5
    half = len(bits) // 2
    wanted = torch.nn.functional.one_hot(tokens_M[:half]).double()
    gram = bits[:half].T @ bits[:half] + 10.0 * torch.eye(bits.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, bits[:half].T @ wanted)
    return float(((bits[half:] @ weights).argmax(1) == tokens_M[half:]).double().mean())


# ---------------------------------------------------------------------------------------------------------- handshake


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    """Keys of a server and of two nodes, of one authority; and of a node of another one."""
    folder = tmp_path_factory.mktemp("identities")
    made = {}
    for authority in ("ca", "foreign"):
        make_authority(folder / authority, authority)
        for kind, name in (("server", "study"), ("server", "gate"), ("node", "north"), ("node", "south")):
            key = folder / f"{authority}-{name}.key"
            make_key(key)
            request = make_request(key, kind, name)
            text, _ = sign_request(folder / authority, request, kind)
            made[authority, name] = Keys(text, key.read_bytes(), (folder / authority / "ca.pem").read_text())
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=200)
    old, _ = sign_request(folder / "ca", make_request(folder / "ca-north.key", "node", "north"), "node", now=long_ago)
    return made | {("ca", "expired"): replace(made["ca", "north"], certificate=old)}


def agreed(identities, node="north", server="study", limits=None):
    """A node's connection and the server's, after the node has shown who it is."""
    connections = Connections(identities["ca", server], "ab", *[limits] * bool(limits))
    greeting = Greeting(identities["ca", node], "study", *[limits] * bool(limits))
    connection = greeting.answered(connections.greeted(greeting.hello))
    call = connection.next_call()
    there, other = connections.call(call.opening)
    connections.show(there, other.opener.open(call.sealer.seal(greeting.shown(connection))))
    return connection, there, connections


def test_both_ends_agree_and_know_each_other(identities):
    connection, there, connections = agreed(identities)
    assert connection.secret == there.secret and there.certificate == identities["ca", "north"].certificate
    call = connection.next_call()
    found, other = connections.call(call.opening)
    assert found is there and other.opener.open(call.sealer.seal(b"up")) == b"up"
    assert call.opener.open(other.sealer.seal(b"down")) == b"down"


def test_every_connection_and_call_and_direction_has_a_key_of_its_own(identities):
    keys = []
    for connection, _, _ in (agreed(identities), agreed(identities)):
        calls = [connection.next_call() for _ in range(3)]
        keys += [end.key for call in calls for end in (call.sealer, call.opener)]
    assert len(set(keys)) == 12


def test_a_record_of_another_connection_call_or_direction_is_refused(identities):
    connection, _, connections = agreed(identities)
    other_connection, _, other_connections = agreed(identities)
    call, later = connection.next_call(), connection.next_call()
    record = call.sealer.seal(b"x")
    strangers = [
        other_connections.call(other_connection.next_call().opening)[1].opener,
        connections.call(later.opening)[1].opener,
        call.opener,
    ]
    for opener in strangers:
        with pytest.raises(NotSealed, match="of another connection"):
            opener.open(record)
    with pytest.raises(NotSealed, match="does not know"):
        other_connections.call(call.opening)
    assert connections.call(call.opening)[1].opener.open(record) == b"x"


def test_a_call_is_taken_once_and_may_be_overtaken_by_63(identities):
    connection, there, connections = agreed(identities)
    calls = [connection.next_call() for _ in range(70)]
    connections.call(calls[65].opening)
    for number in (65, 0, 1):
        with pytest.raises(NotSealed, match="made before"):
            connections.call(calls[number].opening)
    connections.call(calls[2].opening)
    with pytest.raises(NotSealed, match="made before"):
        connections.call(calls[2].opening)
    with pytest.raises(NotSealed, match="made before"):
        there.taken(0)  # the handshake's own


@pytest.mark.parametrize(
    ("authority", "name", "reason"),
    [
        ("foreign", "study", "not signed by this federation's authority"),
        ("ca", "gate", "is not 'study'"),
        ("ca", "south", "is a node's, allowed is a server's"),
    ],
)
def test_who_is_not_the_server_cannot_answer_for_it(identities, authority, name, reason):
    greeting = Greeting(identities["ca", "north"], "study")
    with pytest.raises(ConfigError, match=reason):
        greeting.answered(Connections(identities[authority, name], "ab").greeted(greeting.hello))


def test_a_servers_answer_to_another_greeting_or_with_another_key_is_refused(identities):
    """What a box between could do: hand in a public key of its own, or an older answer."""
    connections = Connections(identities["ca", "study"], "ab")
    first, second = (Greeting(identities["ca", "north"], "study") for _ in range(2))
    answer = connections.greeted(first.hello)
    with pytest.raises(ConfigError, match="has not signed this exchange"):
        second.answered(answer)
    told = Frame.decoded(answer).header
    own = Frame.decoded(second.hello).header["public"]
    for changed in ({"public": own}, {"run": "cd"}, {"signature": told["signature"][:-2] + "00"}, {"signature": "no"}):
        with pytest.raises(ConfigError, match="has not signed this exchange"):
            first.answered(Frame({**told, **changed}).encoded())
    with pytest.raises(NotSealed, match="no public key"):
        first.answered(Frame({**told, "public": "00" * 32}).encoded())


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (("foreign", "north"), "not signed by this federation's authority"),
        (("ca", "expired"), "it is .* renew it"),
        (("ca", "study"), "is a server's, allowed is a node's"),
    ],
)
def test_a_node_without_a_valid_certificate_is_not_taken(identities, who, reason):
    connections, greeting = Connections(identities["ca", "study"], "ab"), Greeting(identities["ca", "north"], "study")
    connection = greeting.answered(connections.greeted(greeting.hello))
    there, _ = connections.call(connection.next_call().opening)
    stranger = Greeting(identities[who], "study")
    with pytest.raises(ConfigError, match=reason):
        connections.show(there, stranger.shown(connection))
    assert not there.certificate


def test_a_certificate_whose_key_has_not_signed_is_not_taken(identities):
    connections, greeting = Connections(identities["ca", "study"], "ab"), Greeting(identities["ca", "north"], "study")
    connection = greeting.answered(connections.greeted(greeting.hello))
    there, _ = connections.call(connection.next_call().opening)
    south = identities["ca", "south"]
    thief = Greeting(Keys(identities["ca", "north"].certificate, south.key, south.authority), "study")
    with pytest.raises(ConfigError, match="node 'north': has not signed this exchange"):
        connections.show(there, thief.shown(connection))


def test_another_version_is_refused_by_number(identities):
    connections, greeting = Connections(identities["ca", "study"], "ab"), Greeting(identities["ca", "north"], "study")
    hello = Frame({**Frame.decoded(greeting.hello).header, "version": 2}).encoded()
    with pytest.raises(ConfigError, match="the node's version is 2, the server's 1"):
        connections.greeted(hello)


def test_damaged_greetings_are_answered_or_refused(identities):
    draw = torch.Generator().manual_seed(4)
    connections, hello = (
        Connections(identities["ca", "study"], "ab"),
        Greeting(identities["ca", "north"], "study").hello,
    )
    for _ in range(300):
        data = bytearray(hello)
        data[int(torch.randint(len(data), (), generator=draw))] ^= int(torch.randint(1, 256, (), generator=draw))
        try:
            assert Frame.decoded(connections.greeted(bytes(data))).header["kind"] == "greeted"
        except (DataError, ConfigError):
            continue


def test_old_connections_are_greeted_anew_and_forgotten(identities):
    connection, _, connections = agreed(identities, limits=Limits(age_s=0.0))
    assert connection.is_old
    greeting = Greeting(identities["ca", "north"], "study")
    connections.greeted(greeting.hello)
    with pytest.raises(NotSealed, match="does not know"):
        connections.call(connection.next_call().opening)
    assert not Connection("ab", bytes(32), bytes(32)).is_old

"""A bent server, network or client is refused: what may not happen, one test each."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fedloom.base.errors import DataError
from fedloom.secure_sum import masks, sealing
from fedloom.secure_sum.collector import Collector
from fedloom.secure_sum.messages import Box, Confirmation, Confirmations, MaskedRow, Roster, Survivors
from fedloom.secure_sum.party import PHASES, Party
from fedloom.secure_sum.terms import SecureSumError
from support.secure_sums import Table, exact, rows_of, seeded, signs, terms_of, verify

FIVE = terms_of(5, threshold=4, min_clients=3)
A, B, C, D, E = FIVE.clients


def flipped(data, place=0):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def refused(match):
    return pytest.raises(SecureSumError, match=match)


# -------------------------------------------------------------------------------------------------- keys and identities


@pytest.mark.parametrize("field", ["mask_key", "seal_key", "seed_hash", "signature"])
def test_an_advert_with_one_bit_flipped_is_refused_by_collector_and_party(field):
    table = Table(FIVE, until="advertise")
    forged = replace(table.roster.adverts[1], **{field: flipped(vars(table.roster.adverts[1])[field])})
    with refused("did not sign"):
        Collector(FIVE, verify).take_advert(forged)
    roster = Roster((table.roster.adverts[0], forged, *table.roster.adverts[2:]))
    with refused("did not sign"):
        table.parties[A].share(roster)


def test_keys_that_the_server_made_for_a_client_are_refused():
    table = Table(FIVE, until="advertise")
    own = Party(FIVE, B, sign=signs("the server"), verify=verify).advertise()
    with refused(f"keys of '{B}'"):
        table.parties[A].share(Roster((table.roster.adverts[0], own, *table.roster.adverts[2:])))


def test_an_advert_of_another_round_or_run_is_refused():
    for other in (replace(FIVE, round=1), replace(FIVE, run="another")):
        old = Party(other, A, sign=signs(A), verify=verify).advertise()
        with refused("did not sign"):
            Collector(FIVE, verify).take_advert(old)


def test_a_roster_without_my_keys_is_refused():
    table = Table(FIVE, until="advertise")
    with refused("without my keys"):
        table.parties[A].share(Roster(table.roster.adverts[1:]))
    again = Party(FIVE, B, sign=signs(B), verify=verify).advertise()
    with refused("without my keys"):
        table.parties[B].share(Roster((table.roster.adverts[0], again, *table.roster.adverts[2:])))


def test_a_roster_of_strangers_or_with_names_twice_is_refused():
    for bend in (
        lambda adverts: (*adverts, adverts[-1]),
        lambda adverts: adverts[::-1],
        lambda adverts: (*adverts, replace(adverts[-1], sender="somebody")),
    ):
        table = Table(FIVE, until="advertise")
        with refused("names twice, out of order or not of it"):
            table.parties[A].share(Roster(bend(table.roster.adverts)))


def test_a_roster_with_too_few_is_refused():
    table = Table(FIVE, until="advertise")
    with refused("found 3 clients, allowed are at least 4"):
        table.parties[A].share(Roster(table.roster.adverts[:3]))


def test_a_public_key_that_gives_everybody_the_same_secret_is_refused():
    with pytest.raises(DataError, match="public key that is none"):
        masks.agreed(masks.key_of(bytes(range(32))), bytes(32), purpose=b"")


# ------------------------------------------------------------------------------------------------------------- letters


def test_an_altered_letter_is_refused():
    for place in (0, 40, 81):
        table = Table(FIVE, until="share")
        box = table.boxes[A]
        with refused("altered"):
            table.parties[A].mask(Box(A, {**box.sealed, B: flipped(box.sealed[B], place)}), table.rows[A])


def test_letters_are_bound_to_sender_and_receiver():
    table = Table(FIVE, until="share")
    box = table.boxes[A].sealed
    with refused("altered or sealed for something else"):
        table.parties[A].mask(Box(A, {**box, B: box[C], C: box[B]}), table.rows[A])
    with refused("altered or sealed for something else"):
        table.parties[B].mask(Box(B, {**table.boxes[B].sealed, C: box[C]}), table.rows[B])


def test_my_own_letter_does_not_come_back_as_my_neighbours():
    """Both ways of a pair agree on one secret, so that the direction has to be in the key."""
    table = Table(FIVE, until="share")
    back = {**table.boxes[A].sealed, B: table.shares[A].sealed[B]}
    with refused("altered or sealed for something else"):
        table.parties[A].mask(Box(A, back), table.rows[A])


def test_letters_are_bound_to_run_and_round():
    one, other = masks.key_of(seeded(1)(32)), masks.key_of(seeded(2)(32))
    way = {"sender": A, "receiver": B}
    packet = sealing.sealed(b"letter", one, masks.public_key(other), FIVE, **way)
    assert sealing.unsealed(packet, other, masks.public_key(one), FIVE, **way) == b"letter"
    for terms in (replace(FIVE, round=1), replace(FIVE, run="another")):
        with refused("altered or sealed for something else"):
            sealing.unsealed(packet, other, masks.public_key(one), terms, **way)


def test_a_box_for_somebody_else_or_from_strangers_is_refused():
    sparse = terms_of(7, degree=2, threshold=2)
    table = Table(sparse, until="share")
    first, second, *_ = sparse.clients
    with refused("somebody else"):
        table.parties[first].mask(table.boxes[second], table.rows[first])
    stranger = next(name for name in sparse.clients[2:] if name not in table.boxes[second].sealed and name != second)
    letters = {**table.boxes[second].sealed, stranger: bytes(82)}
    with refused("somebody else"):
        table.parties[second].mask(Box(second, letters), table.rows[second])


def test_too_few_letters_are_refused():
    table = Table(FIVE, until="share")
    few = dict(list(table.boxes[A].sealed.items())[:2])
    with refused("letters of 2 neighbours, allowed are at least 3"):
        table.parties[A].mask(Box(A, few), table.rows[A])


@pytest.mark.parametrize("row", [np.zeros(4, np.int32), np.zeros(5, np.uint32), np.zeros((2, 2), np.uint32)])
def test_a_row_of_another_kind_is_refused(row):
    table = Table(FIVE, until="share")
    with pytest.raises(DataError, match="allowed is uint32"):
        table.parties[A].mask(table.boxes[A], row)


# ----------------------------------------------------------------------------------------------------------- survivors


def split():
    """A server that shows three parties one list of survivors and the other two another."""
    table = Table(FIVE)
    lists = {name: Survivors((A, B, C, D)) if name in (A, B, C) else table.survivors for name in FIVE.clients}
    signed = {name: table.parties[name].confirm(lists[name]).signature for name in FIVE.clients}
    return table, signed


def test_a_list_that_others_did_not_sign_is_refused():
    table, signed = split()
    for name, party in table.parties.items():
        with refused("under another list of survivors"):
            party.unmask(Confirmations({peer: one for peer, one in signed.items() if peer != name and peer != E}))


def test_fewer_equal_lists_than_the_threshold_are_refused():
    table, signed = split()
    for same in ((A, B, C), (D, E)):
        for name in same:
            equal = {peer: signed[peer] for peer in same if peer != name}
            with refused(f"found {len(same)} equal lists of survivors, allowed are at least 4"):
                table.parties[name].unmask(Confirmations(equal))


def test_my_own_signature_does_not_count_twice():
    table = Table(FIVE)
    signed = {name: party.confirm(table.survivors).signature for name, party in table.parties.items()}
    with refused("found 3 equal lists"):
        table.parties[A].unmask(Confirmations({A: signed[A], B: signed[B], C: signed[C]}))


def test_signatures_of_the_lost_or_of_strangers_are_refused():
    table = Table(FIVE, until="confirm", lost=(E,))
    body = table.survivors.body(FIVE, table.roster.digest(FIVE))
    more = {**table.confirmations[A].signatures, E: signs(E)(body)}
    with refused("signatures of others"):
        table.parties[A].unmask(Confirmations(more))


def test_a_signature_under_equal_names_of_another_roster_is_another():
    """Else two lists over different keys would count as equal."""
    table = Table(FIVE)
    digest = table.roster.digest(FIVE)
    assert table.roster.digest(FIVE) != Table(FIVE, seed=1).roster.digest(FIVE)
    table.parties[A].confirm(table.survivors)
    foreign = signs(B)(table.survivors.body(FIVE, flipped(digest)))
    with refused("under another list"):
        table.parties[A].unmask(Confirmations({B: foreign}))


def test_signatures_of_another_round_are_refused():
    table, old = Table(FIVE), Table(replace(FIVE, round=1), until="confirm")
    table.parties[A].confirm(table.survivors)
    with refused("under another list"):
        table.parties[A].unmask(old.confirmations[A])


def test_a_sum_over_too_few_is_refused_by_the_party():
    terms = terms_of(5, threshold=2, min_clients=4)
    table = Table(terms)
    with refused("a sum over 3 clients, allowed are at least 4"):
        table.parties[A].confirm(Survivors((A, B, C)))


def test_a_sum_over_too_few_is_refused_by_the_collector():
    terms = terms_of(5, threshold=2, min_clients=4)
    with refused("rows of 3 clients"):
        Table(terms, lost=(D, E))


def test_survivors_without_me_are_refused():
    table = Table(FIVE)
    with refused("without me"):
        table.parties[A].confirm(Survivors((B, C, D)))


def test_a_survivor_whose_letter_i_never_had_is_refused():
    """Else a server could leave the honest out of my masks and still have my own mask opened."""
    table = Table(FIVE, until="share")
    table.parties[A].mask(Box(A, {peer: table.boxes[A].sealed[peer] for peer in (B, C, D)}), table.rows[A])
    with refused("surviving neighbour without a letter"):
        table.parties[A].confirm(Survivors(FIVE.clients))


# -------------------------------------------------------------------------------------------------- shares and secrets


@pytest.mark.parametrize("lost", [(), (B,), (E,)])
def test_never_are_both_shares_of_one_peer_opened(lost):
    table = Table(FIVE, until="confirm", lost=lost)
    opened = {name: party.unmask(table.confirmations[name]) for name, party in table.left.items()}
    for one in opened.values():
        assert not set(one.seeds) & set(one.keys)
        assert set(one.keys) == set(lost)
        assert set(one.seeds) == set(table.left)
    for name, party in table.left.items():
        with refused("no more calls"):
            party.unmask(table.confirmations[name])


@pytest.mark.parametrize("phase", PHASES)
def test_each_call_happens_once(phase):
    table = Table(FIVE, until="confirm")
    party = Party(FIVE, A, sign=signs(A), verify=verify, random=seeded(0))
    calls = {
        "advertise": party.advertise,
        "share": lambda: party.share(table.roster),
        "mask": lambda: party.mask(table.boxes[A], table.rows[A]),
        "confirm": lambda: party.confirm(table.survivors),
        "unmask": lambda: party.unmask(table.confirmations[A]),
    }
    for name in PHASES[: PHASES.index(phase) + 1]:
        calls[name]()
    with refused(f"a call of {phase}"):
        calls[phase]()
    for name in PHASES:
        with refused("no more calls"):
            calls[name]()


@pytest.mark.parametrize("phase", PHASES[1:])
def test_no_call_happens_before_its_turn(phase):
    party = Party(FIVE, A, sign=signs(A), verify=verify)
    arguments = {"mask": (Box(A, {}), np.zeros(4, np.uint32))}.get(phase, (None,))
    with refused("a call of advertise"):
        vars(Party)[phase](party, *arguments)


def secrets_of(party):
    return [vars(party)[name] for name in ("_seed", "_mask_secret", "_mask_key", "_seal_key", "_letters")]


def test_a_party_knows_no_secret_after_a_refusal_or_the_end():
    table = Table(FIVE, until="confirm")
    party = table.parties[A]
    assert all(secrets_of(party))
    party.unmask(table.confirmations[A])
    assert not any(secrets_of(party))
    with refused("under another list"):
        table.parties[B].unmask(Confirmations({C: bytes(32)}))
    assert not any(secrets_of(table.parties[B]))


def test_two_parties_of_one_client_have_different_keys():
    first, second = (Party(FIVE, A, sign=signs(A), verify=verify).advertise() for _ in range(2))
    assert not {first.mask_key, first.seal_key, first.seed_hash} & {second.mask_key, second.seal_key, second.seed_hash}


def test_a_party_of_nobody_is_refused():
    with pytest.raises(DataError, match="which is not of it"):
        Party(FIVE, "somebody", sign=signs("somebody"), verify=verify)


@pytest.mark.parametrize(("kind", "lost"), [("seeds", ()), ("keys", (E,))])
def test_altered_shares_are_found_out_and_the_sum_stays_masked(kind, lost):
    table = Table(FIVE, until="confirm", lost=lost)
    for name, party in table.left.items():
        opened = party.unmask(table.confirmations[name])
        if name == A:
            shares = vars(opened)[kind]
            opened = replace(opened, **{kind: {peer: flipped(one, 32) for peer, one in shares.items()}})
        table.collector.take_opened(opened)
    masked = sum(one.row_S for one in table.masked.values())
    with refused("altered shares"):
        table.collector.total()
    assert (vars(table.collector)["_sum_S"] == masked).all()


# ----------------------------------------------------------------------------------------------------------- collector


def test_the_collector_refuses_second_and_foreign_messages_and_goes_on():
    table = Table(FIVE, until="share")
    collector, rows = table.collector, table.rows
    masked = {name: party.mask(table.boxes[name], rows[name]) for name, party in table.parties.items()}
    collector.take_row(masked[A])
    with refused("a second message"):
        collector.take_row(masked[A])
    with refused("without a part"):
        collector.take_row(MaskedRow("somebody", rows[A]))
    with refused("found a row of shape"):
        collector.take_row(MaskedRow(B, rows[B][:2]))
    with refused("a message of phase share"):
        collector.take_shares(table.shares[A])
    for name in (B, C, D, E):
        collector.take_row(masked[name])
    survivors = collector.survivors()
    signed = {name: party.confirm(survivors) for name, party in table.parties.items()}
    with refused("under something else"):
        collector.take_confirmation(Confirmation(A, signed[B].signature))
    for one in signed.values():
        collector.take_confirmation(one)
    told = collector.confirmations()
    opened = {name: party.unmask(told[name]) for name, party in table.parties.items()}
    with refused("other shares"):
        collector.take_opened(replace(opened[A], keys={B: bytes(33)}))
    for one in opened.values():
        collector.take_opened(one)
    assert collector.total().tolist() == exact(rows, FIVE.clients, FIVE.size)
    with refused("found the end of unmask, allowed is that of nothing"):
        collector.total()


def test_a_sum_whose_phase_could_not_be_closed_is_over():
    table = Table(FIVE, until="advertise")
    few = Collector(FIVE, verify)
    for advert in table.roster.adverts[:2]:
        few.take_advert(advert)
    with refused("found 2 clients, allowed are at least 4"):
        few.roster()
    with refused("ones of phase none"):
        few.take_shares(table.parties[A].share(table.roster))


def test_the_collector_refuses_letters_to_strangers():
    table = Table(FIVE, until="advertise")
    shares = table.parties[A].share(table.roster)
    with refused("letters to others"):
        table.collector.take_shares(replace(shares, sealed={B: bytes(82)}))


def test_the_collector_refuses_messages_before_their_phase():
    table = Table(FIVE, until="confirm")
    opened = table.parties[A].unmask(table.confirmations[A])
    early = Collector(FIVE, verify)
    for take, message in (
        (early.take_shares, table.shares[A]),
        (early.take_row, table.masked[A]),
        (early.take_confirmation, table.confirmed[A]),
        (early.take_opened, opened),
    ):
        with refused("allowed are ones of phase advertise"):
            take(message)


def test_the_collector_refuses_phases_out_of_order():
    with refused("found the end of share, allowed is that of advertise"):
        Collector(FIVE, verify).boxes()


# ---------------------------------------------------------------------------------------------- identities of real keys


def ecdsa():
    key = ec.generate_private_key(ec.SECP256R1())
    return key, lambda message: key.sign(message, ec.ECDSA(hashes.SHA256()))


def edwards():
    key = ed25519.Ed25519PrivateKey.generate()
    return key, key.sign


@pytest.mark.parametrize("kind", [ecdsa, edwards])
def test_identities_of_real_keys(kind):
    terms = terms_of(3, threshold=2)
    rows = rows_of(terms)
    keys = {name: kind() for name in terms.clients}

    def checks(name, message, signature):
        arguments = (ec.ECDSA(hashes.SHA256()),) if kind is ecdsa else ()
        try:
            keys[name][0].public_key().verify(signature, message, *arguments)
        except InvalidSignature:
            return False
        return True

    parties = {name: Party(terms, name, sign=keys[name][1], verify=checks) for name in terms.clients}
    collector = Collector(terms, checks)
    for party in parties.values():
        collector.take_advert(party.advertise())
    roster = collector.roster()
    for party in parties.values():
        collector.take_shares(party.share(roster))
    for name, box in collector.boxes().items():
        collector.take_row(parties[name].mask(box, rows[name]))
    survivors = collector.survivors()
    for party in parties.values():
        collector.take_confirmation(party.confirm(survivors))
    for name, told in collector.confirmations().items():
        collector.take_opened(parties[name].unmask(told))
    assert collector.total().tolist() == exact(rows, terms.clients, terms.size)
    swapped = Party(terms, terms.clients[0], sign=keys[terms.clients[1]][1], verify=checks).advertise()
    with refused("did not sign"):
        Collector(terms, checks).take_advert(swapped)

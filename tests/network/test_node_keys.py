"""Identities: who may be who, and what of keys and certificates is refused."""

import datetime as dt
import stat

import pytest

from fedloom.base.errors import ConfigError, MissingFileError
from fedloom.network import keys as k

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    k.make_authority(folder / "ca", "trial")
    k.make_authority(folder / "other", "another")
    k.make_key(folder / "north.key")
    return folder


def certificate(home, kind="node", name="north", **more):
    return k.sign_request(home / "ca", k.make_request(home / "north.key", kind, name), kind, **more)


def authority(home, which="ca"):
    return (home / which / "ca.pem").read_text()


def test_a_certificate_names_one_identity_and_its_authority(home):
    text, who = certificate(home)
    assert (who.kind, who.name) == ("node", "north") and len(who.fingerprint) == 64
    assert k.check(text, authority(home), "node") == who
    assert 89 <= (who.not_after - NOW).days <= 90


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda home: (certificate(home)[0], authority(home, "other"), "node", NOW), "not signed by this federation"),
        (lambda home: (certificate(home)[0], authority(home), "server", NOW), "is a node's, allowed is a server's"),
        (lambda home: (certificate(home)[0], authority(home), "node", NOW + dt.timedelta(days=91)), "renew it, or set"),
        (lambda home: (certificate(home)[0], authority(home), "node", NOW - dt.timedelta(days=1)), "renew it, or set"),
        (lambda home: ("no certificate", authority(home), "node", NOW), "is no certificate in PEM"),
        (lambda home: (authority(home), authority(home), "node", NOW), "names 0 identities"),
    ],
)
def test_other_certificates_are_refused(home, make, text):
    found, trusted, kind, now = make(home)
    with pytest.raises(ConfigError, match=text):
        k.check(found, trusted, kind, now=now)


def test_clocks_may_differ_by_minutes(home):
    k.check(certificate(home, now=NOW)[0], authority(home), "node", now=NOW - dt.timedelta(minutes=4))


def test_a_node_is_not_given_a_servers_certificate(home):
    request = k.make_request(home / "north.key", "server", "study")
    with pytest.raises(ConfigError, match="asks for a server's certificate, allowed is a node's"):
        k.sign_request(home / "ca", request, "node")


@pytest.mark.parametrize("request_text", ["nonsense", ""])
def test_what_is_no_request_is_not_signed(home, request_text):
    with pytest.raises(ConfigError, match="no certificate request"):
        k.sign_request(home / "ca", request_text, "node")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "-a", "a" * 64, "ä"])
def test_odd_names_are_refused(home, name):
    with pytest.raises(ConfigError, match="name: found"):
        k.make_request(home / "north.key", "node", name)


def test_a_key_is_its_owners_alone_and_never_replaced(home):
    path = home / "own.key"
    k.make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="a key is there already"):
        k.make_key(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(home, mode):
    path = home / f"loose{mode}.key"
    k.make_key(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"found mode {mode:04o}, allowed is 0600"):
        k.read_private(path)


def test_a_missing_key_is_named(home):
    with pytest.raises(MissingFileError, match="no such key"):
        k.read_private(home / "none.key")


def test_a_signature_is_of_one_key_and_one_message(home):
    text, _ = certificate(home)
    signature = k.sign_bytes(home / "north.key", b"yes")
    assert k.verify_bytes(text, b"yes", signature)
    assert not k.verify_bytes(text, b"no", signature)
    k.make_key(home / "forger.key")
    assert not k.verify_bytes(text, b"yes", k.sign_bytes(home / "forger.key", b"yes"))
    assert not k.verify_bytes(text, b"yes", b"junk")


def test_revoked_certificates_are_a_list_of_fingerprints(home, tmp_path):
    listing = tmp_path / "revoked.txt"
    assert k.revoked(listing) == k.revoked(None) == frozenset()
    _, who = certificate(home)
    k.revoke(listing, who.fingerprint.upper())
    k.revoke(listing, "ab" * 32)
    assert k.revoked(listing) == {who.fingerprint, "ab" * 32}
    listing.write_text("half a fingerprint\n")
    with pytest.raises(ConfigError, match="allowed are 64 hexadecimal digits"):
        k.revoked(listing)

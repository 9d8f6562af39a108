"""Who is who: a certificate authority for one federation, keys that are made where they stay, what certificates say.

Keys are EC P-256. An identity is the one URI among a certificate's alternative names, `fedloom:node/north`; a common
name is none. A server's certificate names a host besides, `<name>.fedloom`, which a node's never does: with a node's
certificate nobody can play the server. What is revoked is a list of fingerprints.
"""

import datetime as dt
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedloom.base.errors import ConfigError, MissingFileError
from fedloom.base.extras import library
from fedloom.base.files import write_atomic

__all__ = [
    "DAYS",
    "Identity",
    "Keys",
    "check",
    "host_of",
    "identity_of",
    "make_authority",
    "make_key",
    "make_request",
    "read_private",
    "revoke",
    "revoked",
    "sign_bytes",
    "sign_request",
    "sign_with",
    "verify_bytes",
    "write_private",
]

Kind = Literal["node", "server"]
DAYS = 90
_AUTHORITY_DAYS = 5 * 365
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_URI = re.compile(rf"fedloom:(node|server)/({_NAME.pattern})")
_SKEW = dt.timedelta(minutes=5)
"""How far clocks may differ: a new certificate is valid this long before it is made."""


@dataclass(frozen=True)
class Identity:
    """Whom a certificate names."""

    kind: Kind
    name: str
    fingerprint: str
    """SHA-256 of the certificate, in hexadecimal."""
    not_after: dt.datetime


@dataclass(frozen=True)
class Keys:
    """A certificate, its key, and the authority that both sides trust: PEM."""

    certificate: str
    key: bytes = field(repr=False)
    authority: str


def _x509() -> Any:
    return library("cryptography.x509", "keys")


def _primitives(name: str) -> Any:
    return library(f"cryptography.hazmat.primitives.{name}", "keys")


def make_key(path: Path) -> None:
    """Make a private key that only its owner reads; one that is there is not replaced: ConfigError."""
    serialization, ec = _primitives("serialization"), _primitives("asymmetric.ec")
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(path, text)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads; one that is there is not replaced: ConfigError."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise ConfigError(f"{path}: a key is there already; it is not replaced: choose another folder.") from error


def read_private(path: Path) -> bytes:
    """Return the bytes of a private key's file; one that others may read is refused: ConfigError."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such key; `fedloom keys request` or `fedloom keys ca` makes one.")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"{path}: found mode {mode:04o}, allowed is 0600: others may read this key; chmod 600 it.")
    return path.read_bytes()


def _private(path: Path) -> Any:
    return _loaded(read_private(path), str(path))


def _loaded(key: bytes, where: str) -> Any:
    try:
        return _primitives("serialization").load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: is no private key in PEM ({error}).") from error


def make_authority(folder: Path, name: str, *, now: dt.datetime | None = None) -> Path:
    """Make a certificate authority in a folder, `ca.key` and `ca.pem`, and return the certificate's path."""
    _refuse_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    make_key(folder / "ca.key")
    x509, key, now = _x509(), _private(folder / "ca.key"), now or dt.datetime.now(dt.UTC)
    subject = _subject(f"fedloom {name}")
    builder = (
        _dated(x509.CertificateBuilder(), now, _AUTHORITY_DAYS)
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    write_atomic(folder / "ca.pem", _pem(builder.sign(key, _primitives("hashes").SHA256())))
    return folder / "ca.pem"


def make_request(key: Path, kind: Kind, name: str) -> str:
    """Return what a certificate authority is sent, PEM: the identity that is asked for, and the key's public half."""
    _refuse_name(name)
    x509 = _x509()
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name))
    builder = builder.add_extension(_names(kind, name), critical=False)
    return _pem(builder.sign(_private(key), _primitives("hashes").SHA256()))


def sign_request(
    authority: Path, request: str, kind: Kind, *, days: int = DAYS, now: dt.datetime | None = None
) -> tuple[str, Identity]:
    """Return the certificate, PEM, of a request, signed by the authority in a folder, and whom it names."""
    x509, now = _x509(), now or dt.datetime.now(dt.UTC)
    try:
        asked = x509.load_pem_x509_csr(request.encode())
    except ValueError as error:
        raise ConfigError(f"request: is no certificate request in PEM ({error}).") from error
    if not asked.is_signature_valid:
        raise ConfigError("request: its signature does not fit its key; ask for a new one.")
    found, name = _identity_in(asked.extensions, "request")
    if found != kind:
        raise ConfigError(f"request: asks for a {found}'s certificate, allowed is a {kind}'s: sign it with --{found}.")
    own = _certificate((authority / "ca.pem").read_text(encoding="utf-8"), str(authority / "ca.pem"))
    key, oid = _private(authority / "ca.key"), x509.oid.ExtendedKeyUsageOID
    builder = (
        _dated(x509.CertificateBuilder(), now, days)
        .subject_name(_subject(name))
        .issuer_name(own.subject)
        .public_key(asked.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([oid.CLIENT_AUTH if kind == "node" else oid.SERVER_AUTH]), critical=True)
        .add_extension(_names(kind, name), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    text = _pem(builder.sign(key, _primitives("hashes").SHA256()))
    return text, identity_of(text)


def identity_of(certificate: str, where: str = "certificate") -> Identity:
    """Return whom a certificate names; one with no identity, or with several, is refused: ConfigError."""
    found = _certificate(certificate, where)
    kind, name = _identity_in(found.extensions, where)
    return Identity(kind, name, found.fingerprint(_primitives("hashes").SHA256()).hex(), found.not_valid_after_utc)


def check(certificate: str, authority: str, kind: Kind, *, now: dt.datetime | None = None) -> Identity:
    """Return whom a certificate names; one of another authority or kind, or not valid now, is refused: ConfigError."""
    found, own = _certificate(certificate, "certificate"), _certificate(authority, "authority")
    who, now = identity_of(certificate), now or dt.datetime.now(dt.UTC)
    try:
        found.verify_directly_issued_by(own)
    except (ValueError, TypeError, library("cryptography.exceptions", "keys").InvalidSignature) as error:
        raise ConfigError(f"certificate of '{who.name}': not signed by this federation's authority.") from error
    if who.kind != kind:
        raise ConfigError(f"certificate of '{who.name}': is a {who.kind}'s, allowed is a {kind}'s.")
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        raise ConfigError(
            f"certificate of '{who.name}': valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, it is {now:%Y-%m-%d %H:%M}; renew it, or set the clock."
        )
    return who


def sign_bytes(key: Path, message: bytes) -> bytes:
    """Return a signature of a message by the key in a file."""
    return sign_with(read_private(key), message, str(key))


def sign_with(key: bytes, message: bytes, where: str = "key") -> bytes:
    """Return a signature of a message by a key in PEM."""
    ec, hashes = _primitives("asymmetric.ec"), _primitives("hashes")
    return _loaded(key, where).sign(message, ec.ECDSA(hashes.SHA256()))


def verify_bytes(certificate: str, message: bytes, signature: bytes) -> bool:
    """Return whether the owner of a certificate has signed a message."""
    ec, hashes = _primitives("asymmetric.ec"), _primitives("hashes")
    try:
        _certificate(certificate, "certificate").public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except library("cryptography.exceptions", "keys").InvalidSignature:
        return False
    return True


def host_of(server: str) -> str:
    """Return the host that a server's certificate names, by which nodes know it wherever it is.

    >>> host_of("study")
    'study.fedloom'
    """
    return f"{server}.fedloom"


def revoke(listing: Path, fingerprint: str) -> None:
    """Add a certificate's fingerprint to a list of revoked ones."""
    write_atomic(listing, "".join(f"{one}\n" for one in sorted({*revoked(listing), _fingerprint(fingerprint)})))


def revoked(listing: Path | None) -> frozenset[str]:
    """Return the fingerprints in a list of revoked certificates; without a list there are none."""
    if listing is None or not listing.is_file():
        return frozenset()
    lines = listing.read_text(encoding="utf-8").splitlines()
    return frozenset(_fingerprint(line) for line in lines if line.strip())


def _fingerprint(text: str) -> str:
    found = text.strip().lower().replace(":", "")
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise ConfigError(f"fingerprint: found '{text.strip()[:80]}', allowed are 64 hexadecimal digits.")
    return found


def _refuse_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name: found '{name[:80]}', allowed are up to 63 letters, digits, - and _.")


def _subject(name: str) -> Any:
    x509 = _x509()
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])


def _names(kind: Kind, name: str) -> Any:
    x509 = _x509()
    host = [x509.DNSName(host_of(name))] if kind == "server" else []
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"fedloom:{kind}/{name}"), *host])


def _identity_in(extensions: Any, where: str) -> tuple[Kind, str]:
    x509 = _x509()
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    match = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is None:
        raise ConfigError(f"{where}: names {len(uris)} identities, allowed is one, fedloom:node/NAME or server/NAME.")
    return ("node" if match[1] == "node" else "server"), match[2]


def _dated(builder: Any, now: dt.datetime, days: int) -> Any:
    return (
        builder.serial_number(_x509().random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, authority: bool) -> Any:
    others = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return _x509().KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **others)


def _certificate(text: str, where: str) -> Any:
    try:
        return _x509().load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise ConfigError(f"{where}: is no certificate in PEM ({error}).") from error


def _pem(signed: Any) -> str:
    return signed.public_bytes(_primitives("serialization").Encoding.PEM).decode()

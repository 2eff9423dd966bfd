"""A certificate authority for development: enough to run every service with mutual TLS on machines of one's own."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from service_kit.errors import AlreadyExists, InvalidArgument
from service_kit.given_files import unwritable

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Names that a server's certificate always carries."""

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class _Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificates(folder: Path, hosts: Sequence[str] = (), days: int = 365) -> list[Path]:
    """Write ``ca.pem``, and ``server`` and ``client`` as ``.pem`` and ``.key``, into ``folder``; returns the paths.

    The server's certificate is for ``hosts`` and the local names. The authority's own key is thrown away: nobody can
    issue further certificates with it. Raises :class:`InvalidArgument`, and :class:`AlreadyExists` rather than
    replacing a file.
    """
    if not 1 <= days <= 3650:
        raise InvalidArgument.of("--days", f"must be 1 to 3650; got {days}")
    files = [folder / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")]
    for file in files:
        if file.exists():
            raise AlreadyExists("file", str(file), "Name another folder with --out, or remove the old files.")
    alternatives = [_alternative(host) for host in dict.fromkeys((*hosts, *LOCAL_HOSTS))]
    until = datetime.now(UTC) + timedelta(days=days)
    authority = _authority(until)
    server = _leaf("bilevel server", authority, until, ExtendedKeyUsageOID.SERVER_AUTH, alternatives)
    client = _leaf("bilevel client", authority, until, ExtendedKeyUsageOID.CLIENT_AUTH, [])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.pem").write_bytes(_pem(authority.certificate))
        for name, issued in (("server", server), ("client", client)):
            (folder / f"{name}.pem").write_bytes(_pem(issued.certificate))
            _write_secret(folder / f"{name}.key", issued.key)
    except OSError as error:
        raise unwritable(folder, "--out", error, hint="Name another folder with --out.") from None
    return files


def _authority(until: datetime) -> _Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("bilevel development CA")
    builder = (
        _builder(name, name, key, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _Issued(builder.sign(key, hashes.SHA256()), key)


def _leaf(
    name: str,
    authority: _Issued,
    until: datetime,
    purpose: x509.ObjectIdentifier,
    alternatives: Sequence[x509.GeneralName],
) -> _Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(name), authority.certificate.subject, key, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return _Issued(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A machine whose clock is a little behind must not find the certificate too young.
        .not_valid_before(datetime.now(UTC) - timedelta(minutes=5))
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    name = host.removeprefix("*.")
    last = name.rpartition(".")[2]
    if len(host) > 253 or not all(map(_LABEL.fullmatch, name.split("."))) or last.isdigit():
        raise InvalidArgument.of(
            "--host",
            f"must be a host name, such as inner or inner.example.org, or an IP address; got {host!r}",
            hint="A name of other letters is written in its ASCII form, xn--....",
        )
    return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_secret(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )

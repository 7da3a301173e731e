"""The federation's own CA: issues leaves, writes revocation lists. Nobody trusts any other CA, and it trusts nobody.

Its name is made of the federation's id alone, so no release of fedbus makes another one. A rotated CA has the next
generation's number in its name: two CAs never share a name, nor the file name of their lists.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedbus.errors import TrustError
from fedbus.trust.certificates import (
    PrivateKey,
    PublicKey,
    certificate_pem,
    name_of,
    new_key,
    public_key,
    read_certificates,
    read_key,
)
from fedbus.trust.subjects import Role, Subject

SKEW = timedelta(minutes=5)
CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=30)
CRL_LIFE = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A certificate that is good no more: its serial number and since when."""

    serial: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA with its key. `certificate` is what everybody gets, the key stays in the federation's folder."""

    federation: str
    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    @classmethod
    def new(cls, federation: str, *, generation: int = 1, at: datetime) -> Authority:
        """A CA for ten years that may sign leaves only."""
        key = new_key()
        cn = f"{federation} CA" if generation == 1 else f"{federation} CA {generation}"
        name = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation), x509.NameAttribute(NameOID.COMMON_NAME, cn)]
        )
        certificate = (
            _builder(name, name, key.public_key(), at, CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(federation=federation, certificate=certificate, key=key)

    @classmethod
    def read(cls, certificate: bytes, key: bytes) -> Authority:
        """From PEM. TrustError when they are no CA, or do not fit each other."""
        found, private = read_certificates(certificate, what="ca.pem")[-1], read_key(key, what="the CA's key")
        if public_key(found) != private.public_key():
            raise TrustError("the CA's key does not fit its certificate: one of the two files is of another federation")
        names = found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        if len(names) != 1:
            raise TrustError("the CA's certificate does not name a federation")
        return cls(federation=str(names[0].value), certificate=found, key=private)

    def issue(
        self,
        key: PublicKey,
        subject: Subject,
        *,
        at: datetime,
        hosts: Sequence[str] = (),
        life: timedelta = LEAF_LIFE,
    ) -> x509.Certificate:
        """A leaf for this key. `hosts` are DNS names or IP addresses of a broker; others carry their own name."""
        if subject.federation != self.federation:
            raise TrustError(f"{subject} is of another federation than this CA ({self.federation})")
        use = ExtendedKeyUsageOID.SERVER_AUTH if subject.role is Role.BROKER else ExtendedKeyUsageOID.CLIENT_AUTH
        return (
            _builder(name_of(subject), self.certificate.subject, key, at, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([_alternative(host) for host in hosts or (subject.name,)]), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )

    def endorsed_pem(self, successor: x509.Certificate) -> str:
        """The key and name of the CA that follows, signed by this one: for those who know only this one."""
        key = public_key(successor)
        signed = (
            x509.CertificateBuilder()
            .subject_name(successor.subject)
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(successor.not_valid_before_utc)
            .not_valid_after(successor.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        return certificate_pem(signed).decode()

    def revocation_list(
        self, revoked: Sequence[Revoked], *, number: int, at: datetime, life: timedelta = CRL_LIFE
    ) -> bytes:
        """The list (PEM) of what is revoked, `number` higher than the last one's; past its life nobody gets in."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(at - SKEW)
            .next_update(at + life)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        for each in sorted(revoked, key=lambda each: each.serial):
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(each.since).build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def list_file(authority: x509.Certificate) -> str:
    """Name of an authority's list in a folder that OpenSSL or Erlang searches: `<hash of the name>.r0`.

    The hash: SHA-1 over the name's attributes in lower case UTF-8, without the outermost tag; its first four bytes,
    lowest first (OpenSSL, X509_NAME_hash). It finds a file and protects nothing.
    """
    lower = x509.Name([x509.NameAttribute(a.oid, str(a.value).lower()) for a in authority.subject])
    der = lower.public_bytes()
    head = 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)
    digest = hashlib.sha1(der[head:], usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}.r0"


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, at: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - SKEW)
        .not_valid_after(at + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)

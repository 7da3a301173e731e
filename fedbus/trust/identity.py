"""Who I am, from my kit, and who somebody else is, from a certificate.

    kit    cert.pem, key.pem (0600), ca.pem (one certificate, two while the CA rotates), crl.pem (optional)

Expiry governs logins: the broker and `Identity.load` look at the dates. Revocation governs signatures: `Verifier` looks
at the list, and at the dates only where it is given a time, because what was signed before a renewal counts on.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from fedbus.errors import TrustError
from fedbus.trust.certificates import (
    MAX_PEM_BYTES,
    PARSE_ERRORS,
    SIGNATURE,
    PrivateKey,
    PublicKey,
    certificate_der,
    check_dates,
    check_use,
    fingerprint,
    issuer_of,
    public_key,
    read_certificate,
    read_certificates,
    read_key,
    subject_of,
)
from fedbus.trust.subjects import Role, Subject

CERTIFICATE, KEY, AUTHORITIES, REVOKED = "cert.pem", "key.pem", "ca.pem", "crl.pem"
REMEMBERED_CERTIFICATES = 1024
MAX_LIST_BYTES = 4 * 1024 * 1024
MAX_SIGNATURE_BYTES = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A participant: name, role, number (sites), federation, certificate (DER), fingerprint of its key."""

    kit: Path
    subject: Subject
    certificate: bytes = field(repr=False)
    fingerprint: str
    expires: datetime
    _key: PrivateKey = field(repr=False)

    @classmethod
    def load(cls, kit: Path, *, role: Role | None = None, at: datetime | None = None) -> Identity:
        """Read a kit and check it whole before anything connects. TrustError says what is wrong and what to do.

        `at` is the time to check the dates against: now, when it is not given.
        """
        key = read_private_key(kit / KEY)
        certificate = read_certificates(_read(kit / CERTIFICATE), what=str(kit / CERTIFICATE))[0]
        authorities = authorities_of(kit)
        if public_key(certificate) != key.public_key():
            raise TrustError(
                f"{kit / KEY} does not fit {kit / CERTIFICATE}: the certificate was made for key "
                f"{fingerprint(public_key(certificate))}, this is key {fingerprint(key.public_key())}"
            )
        if issuer_of(certificate, authorities) is None:
            raise TrustError(f"{kit / CERTIFICATE} is not of the CA in {kit / AUTHORITIES}: unpack the kit again")
        subject = subject_of(certificate)
        check_use(certificate, subject.role)
        if role is not None and subject.role is not role:
            raise TrustError(f"{kit} is the kit of {subject}: expected that of the role {role}")
        check_dates(certificate, at or datetime.now(UTC))
        return cls(
            kit=kit,
            subject=subject,
            certificate=certificate_der(certificate),
            fingerprint=fingerprint(key.public_key()),
            expires=certificate.not_valid_after_utc,
            _key=key,
        )

    @property
    def name(self) -> str:
        return self.subject.name

    @property
    def role(self) -> Role:
        return self.subject.role

    @property
    def facts(self) -> dict[str, str]:
        """What an audit log says of a certificate: whose it is, the fingerprint of its key, when it expires."""
        return {"name": self.name, "key": self.fingerprint, "expires": f"{self.expires:%Y-%m-%dT%H:%M:%SZ}"}

    @property
    def number(self) -> int | None:
        return self.subject.number

    @property
    def federation(self) -> str:
        return self.subject.federation

    def sign(self, statement: bytes) -> bytes:
        """ECDSA P-256 over SHA-256 of a statement (DER, at most 72 bytes)."""
        return self._key.sign(statement, SIGNATURE)

    def ssl_context(self) -> ssl.SSLContext:
        """For a connection to the broker: our CA only, TLS 1.2 or later, host name checked, our certificate shown."""
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.kit / AUTHORITIES))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.kit / CERTIFICATE, self.kit / KEY)
        except OSError as exc:  # ssl.SSLError is one
            raise TrustError(f"{self.kit} cannot be used for TLS: {exc.strerror or exc.__class__.__name__}") from exc
        return context

    def verifier(self) -> Verifier:
        """Whom this participant believes: the CA and the revocation list of its own kit, read now."""
        return Verifier.load(self.kit, federation=self.federation)


class Verifier:
    """Whom one federation's CA has named. It remembers certificates, so a change of CA or list takes a new one.

    A certificate's bytes are no name for it, its serial number is: the signature can be written in more than one way.

    `lists_end` is the end of the revocation list that ends first; None without a list.
    """

    def __init__(
        self,
        federation: str,
        authorities: Sequence[x509.Certificate],
        lists: Sequence[x509.CertificateRevocationList] = (),
    ) -> None:
        self._federation = federation
        self._authorities = tuple(authorities)
        self._revoked = _revoked(self._authorities, lists)
        names = {each.subject for each in self._authorities}
        ends = [each.next_update_utc for each in lists if each.issuer in names and each.next_update_utc is not None]
        self.lists_end: datetime | None = min(ends, default=None)
        self._known = lru_cache(maxsize=REMEMBERED_CERTIFICATES)(self._identified)

    @classmethod
    def load(cls, kit: Path, *, federation: str) -> Verifier:
        """From `ca.pem` and, where there is one, `crl.pem` of a kit. TrustError when one cannot be read."""
        return cls(federation, authorities_of(kit), lists_of(kit))

    def verify(self, certificate: bytes, *, role: Role | None = None, at: datetime | None = None) -> Subject:
        """Whom a certificate (DER) names. TrustError when our CA did not issue it, it is revoked, or of another role.

        With `at`, which has a time zone, the dates are checked too.
        """
        return self._verified(certificate, role, at)[0]

    def check(
        self,
        certificate: bytes,
        statement: bytes,
        signature: bytes,
        *,
        role: Role | None = None,
        at: datetime | None = None,
    ) -> Subject:
        """Who signed a statement. TrustError when it does not fit, or its certificate is not to be believed."""
        subject, key, _ = self._verified(certificate, role, at)
        try:
            if len(signature) > MAX_SIGNATURE_BYTES:
                raise InvalidSignature
            key.verify(signature, statement, SIGNATURE)
        except InvalidSignature as exc:
            raise TrustError(f"the signature of {subject} does not fit what it signs") from exc
        return subject

    def _verified(
        self, certificate: bytes, role: Role | None, at: datetime | None
    ) -> tuple[Subject, PublicKey, x509.Certificate]:
        subject, key, parsed = self._known(certificate)
        if role is not None and subject.role is not role:
            raise TrustError(f"this is the certificate of {subject}: expected that of the role {role}")
        if at is not None:
            check_dates(parsed, at)
        return subject, key, parsed

    def _identified(self, der: bytes) -> tuple[Subject, PublicKey, x509.Certificate]:
        certificate = read_certificate(der)
        issuer = issuer_of(certificate, self._authorities)
        if issuer is None:
            raise TrustError("the certificate was not issued by this federation's CA")
        subject = subject_of(certificate)
        if subject.federation != self._federation:
            raise TrustError(f"this is the certificate of {subject}: expected one of federation {self._federation}")
        check_use(certificate, subject.role)
        if certificate.serial_number in self._revoked.get(issuer.subject, ()):
            raise TrustError(f"the certificate of {subject} is revoked")
        return subject, public_key(certificate), certificate


def authorities_of(kit: Path) -> list[x509.Certificate]:
    """The CA certificates that a kit believes. TrustError when there is none."""
    return read_certificates(_read(kit / AUTHORITIES), what=str(kit / AUTHORITIES))


def lists_of(kit: Path) -> list[x509.CertificateRevocationList]:
    """The revocation lists in a kit, none without a file of them. TrustError when it cannot be read."""
    path = kit / REVOKED
    return read_lists(_read(path, MAX_LIST_BYTES), path) if path.exists() else []


def read_lists(pem: bytes, path: Path) -> list[x509.CertificateRevocationList]:
    """All revocation lists of a PEM file, one per CA. TrustError when there is none, or one cannot be read."""
    end = b"-----END X509 CRL-----"
    try:
        return [x509.load_pem_x509_crl(part + end) for part in pem.split(end)[:-1]] or _no_list(path)
    except PARSE_ERRORS as exc:
        raise TrustError(f"{path} holds what is no revocation list: copy it again from the federation") from exc


def _no_list(path: Path) -> list[x509.CertificateRevocationList]:
    raise TrustError(f"{path} holds no revocation list: copy it again from the federation")


def _revoked(
    authorities: Sequence[x509.Certificate], lists: Sequence[x509.CertificateRevocationList]
) -> dict[x509.Name, frozenset[int]]:
    """Serial numbers by the name of the CA. TrustError for a list in the name of one that did not sign it.

    A list of a CA that is not believed says nothing here: while the CA rotates it comes before its certificate.
    """
    found: dict[x509.Name, frozenset[int]] = {}
    names = {each.subject for each in authorities}
    for each in (each for each in lists if each.issuer in names):
        signer = next((a for a in authorities if each.issuer == a.subject and _signed(each, a)), None)
        if signer is None:
            raise TrustError("a revocation list is not signed by this federation's CA: copy it again")
        found[signer.subject] = found.get(signer.subject, frozenset()) | {entry.serial_number for entry in each}
    return found


def _signed(each: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    return each.is_signature_valid(public_key(authority))


def read_private_key(path: Path) -> PrivateKey:
    """The key of a kit. TrustError when it is missing, no P-256 key, or can be read or changed by others."""
    pem = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise TrustError(f"{path} can be read or changed by others (mode {mode:04o}): chmod 600 {path}")
    return read_key(pem, what=str(path))


def _read(path: Path, limit: int = MAX_PEM_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError as exc:
        raise TrustError(f"{path} is missing: expected a kit with {CERTIFICATE}, {KEY} and {AUTHORITIES}") from exc
    except OSError as exc:
        raise TrustError(f"{path} cannot be read: {exc.strerror}; run as the owner of the kit") from exc
    if len(content) > limit:
        raise TrustError(f"{path} is larger than {limit:,} bytes: that is no file of a kit")
    return content

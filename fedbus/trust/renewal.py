"""A certificate renewed for the key that its owner has: what makes it one. And how long a revocation list lasts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateRevocationList as RevocationList
from cryptography.x509 import CRLNumber, ExtensionNotFound

from fedbus.errors import TrustError
from fedbus.trust.certificates import (
    PARSE_ERRORS,
    Certificate,
    certificate_der,
    certificate_pem,
    is_authority,
    issuer_of,
    public_key,
    read_certificate,
    read_certificates,
)
from fedbus.trust.identity import Identity, Verifier, authorities_of, lists_of, read_lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a federation hands to a participant, as PEM. Nobody needs to be believed for it: every part is signed.

    authorities: the CAs that count now. endorsement: the newest one's key, signed by the one before; may be empty.
    """

    certificate: str
    authorities: str = ""
    endorsement: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What is to stand in `cert.pem` and `ca.pem` from now on (PEM); None: what stands there."""

    certificate: str | None
    authorities: str | None


def renewal(identity: Identity, offer: Offer, *, at: datetime) -> Renewal | None:
    """What an offer changes in a kit; None when nothing. `at` has a time zone.

    Another CA counts when one that the kit believes has endorsed it; one that counts no more is dropped. Raises
    TrustError unless the certificate is of the same participant and key, of a CA that counts, and valid at that
    time.
    """
    (found, *more) = read_certificates(offer.certificate.encode(), what="the renewed certificate")
    if more:
        raise TrustError(f"{1 + len(more)} certificates came where one renewed was expected")
    present, known = read_certificate(identity.certificate), authorities_of(identity.kit)
    counting = _counting(known, offer)
    subject = Verifier(identity.federation, counting).verify(certificate_der(found), role=identity.role, at=at)
    if subject != identity.subject:
        raise TrustError(f"a certificate of {subject} came, expected a renewed one of {identity.subject}")
    if public_key(found) != public_key(present):
        raise TrustError(f"the renewed certificate of {subject} is for another key than the one in {identity.kit}")
    newer = _rank(found, counting) > _rank(present, counting)
    changed = Renewal(
        certificate=certificate_pem(found).decode() if newer else None,
        authorities=None if counting == known else "".join(certificate_pem(each).decode() for each in counting),
    )
    return changed if changed != Renewal(certificate=None, authorities=None) else None


def _rank(certificate: Certificate, counting: list[Certificate]) -> tuple[int, datetime]:
    """Of two certificates of one participant the higher one counts: of the later CA, then that which lasts longer."""
    issuer = issuer_of(certificate, counting)
    return -1 if issuer is None else counting.index(issuer), certificate.not_valid_after_utc


def _counting(known: list[Certificate], offer: Offer) -> list[Certificate]:
    """The CAs to believe from now on: of those offered the ones that are known, or endorsed by one that is."""
    if not offer.authorities:
        return known
    offered = read_certificates(offer.authorities.encode(), what="the federation's CAs")
    endorsed = read_certificates(offer.endorsement.encode(), what="the endorsement") if offer.endorsement else []
    keys = [
        (each.subject, public_key(each))
        for each in endorsed
        if is_authority(each) and issuer_of(each, known) is not None  # the CA issues certificates of participants, too
    ]
    new = [each for each in offered if is_authority(each) and (each.subject, public_key(each)) in keys]
    counting = [each for each in offered if each in known or each in new]
    return counting or known


def newer_lists(identity: Identity, pem: str) -> str | None:
    """The revocation lists of a kit (PEM) after these have come, of each CA the newest; None: as they are.

    TrustError when one is not signed by its CA. One that is older than what the kit has, or of a CA that the kit does
    not know, changes nothing.
    """
    known, authorities = lists_of(identity.kit), authorities_of(identity.kit)
    offered = read_lists(pem.encode("utf-8", "replace"), Path("what came"))
    Verifier(identity.federation, authorities, offered)
    names = {each.subject for each in authorities}
    newest = {each.issuer: each for each in known}
    for each in offered:
        before = newest.get(each.issuer)
        if each.issuer in names and (before is None or _number(each) > _number(before)):
            newest[each.issuer] = each
    if list(newest.values()) == known:
        return None
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in newest.values())


def _number(revoked: RevocationList) -> int:
    """CRL number, RFC 5280: it goes up with each list of a CA."""
    try:
        return revoked.extensions.get_extension_for_class(CRLNumber).value.crl_number
    except (*PARSE_ERRORS, ExtensionNotFound) as exc:
        raise TrustError("a revocation list without a number came: it was not made by `fedbus provision`") from exc


def renewed_for(pem: bytes, verifier: Verifier, *, at: datetime) -> str:
    """Whose renewed certificate this is. Raises TrustError when it is none of this federation's, or not valid."""
    (found, *_) = read_certificates(pem, what="a renewed certificate")
    return verifier.verify(certificate_der(found), at=at).name


@dataclass(frozen=True, slots=True, kw_only=True)
class ListLife:
    """From when to when a revocation list counts; past its end the broker lets nobody in."""

    begins: datetime
    ends: datetime

    @classmethod
    def of_kit(cls, kit: Path) -> ListLife | None:
        """Of the list in a kit that ends first; None without one. Raises TrustError when it cannot be read."""
        lives = [
            cls(begins=each.last_update_utc, ends=each.next_update_utc)
            for each in lists_of(kit)
            if each.next_update_utc is not None
        ]
        return min(lives, key=lambda life: life.ends, default=None)

    @property
    def half_time(self) -> datetime:
        """From when on it is to be renewed."""
        return self.begins + (self.ends - self.begins) / 2

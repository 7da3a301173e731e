"""A certificate renewed for the key that its owner has: what makes it one. And how long a revocation list lasts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedbus.errors import TrustError
from fedbus.trust.certificates import (
    MAX_PEM_BYTES,
    certificate_der,
    check_dates,
    public_key,
    read_certificate,
    read_certificates,
)
from fedbus.trust.identity import MAX_LIST_BYTES, REVOKED, Identity, Verifier, read_lists


def renewal(identity: Identity, pem: str, *, at: datetime) -> bytes | None:
    """The certificate (DER) that is to stand in the kit from now on; None when the one there is as new.

    `at` has a time zone. Raises TrustError unless it is of the same participant and key, of a CA of the kit, valid at
    that time, and not revoked.
    """
    data = pem.encode()
    if len(data) > MAX_PEM_BYTES:
        raise TrustError(f"a renewed certificate of {len(data):,} bytes came, expected at most {MAX_PEM_BYTES:,}")
    (found, *more) = read_certificates(data, what="the renewed certificate")
    if more:
        raise TrustError(f"{1 + len(more)} certificates came where one renewed was expected")
    der, present = certificate_der(found), read_certificate(identity.certificate)
    subject = identity.verifier().verify(der, role=identity.role)
    if subject != identity.subject:
        raise TrustError(f"a certificate of {subject} came, expected a renewed one of {identity.subject}")
    if public_key(found) != public_key(present):
        raise TrustError(f"the renewed certificate of {subject} is for another key than the one in {identity.kit}")
    check_dates(found, at)
    return der if found.not_valid_after_utc > present.not_valid_after_utc else None


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
        path = kit / REVOKED
        try:
            with path.open("rb") as file:
                pem = file.read(MAX_LIST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise TrustError(f"{path} cannot be read: {exc.strerror}") from exc
        if len(pem) > MAX_LIST_BYTES:
            raise TrustError(f"{path} is larger than {MAX_LIST_BYTES:,} bytes: that is no revocation list")
        lives = [
            cls(begins=each.last_update_utc, ends=each.next_update_utc)
            for each in read_lists(pem, path)
            if each.next_update_utc is not None
        ]
        return min(lives, key=lambda life: life.ends, default=None)

    @property
    def half_time(self) -> datetime:
        """From when on it is to be renewed."""
        return self.begins + (self.ends - self.begins) / 2

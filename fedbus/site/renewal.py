"""What the aggregator hands over of the federation: checked, put into the kit, used from then on.

A renewed certificate is used from the next connect on, revocation lists at once.
"""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from fedbus.core.protocol.messages import CertificateRenewed, RevocationLists
from fedbus.errors import StoreError, TrustError
from fedbus.store.kit import renew_kit
from fedbus.trust.identity import Identity
from fedbus.trust.renewal import Offer, newer_lists, renewal

log = structlog.get_logger()


def take_in(identity: Identity, message: CertificateRenewed) -> Identity:
    """Who this site is from now on: by the new certificate, or by its old one when that must stay, which is logged."""
    offer = Offer(certificate=message.certificate, authorities=message.authorities, endorsement=message.endorsement)
    try:
        change = renewal(identity, offer, at=datetime.now(UTC))
        if change is None:
            return identity
        renew_kit(identity.kit, certificate=change.certificate, authorities=change.authorities)
        renewed = Identity.load(identity.kit, role=identity.role)
    except (TrustError, StoreError) as exc:
        log.error("certificate-not-renewed", text=f"a renewed certificate came and is not used: {exc}")
        return identity
    log.info(
        "certificate-renewed", expires=renewed.expires.isoformat(timespec="seconds"), ca=change.authorities is not None
    )
    return renewed


def take_lists(identity: Identity, message: RevocationLists) -> bool:
    """Whether others are revoked from now on than were before; what is not used is logged."""
    try:
        lists = newer_lists(identity, message.lists)
        if lists is None:
            return False
        renew_kit(identity.kit, lists=lists)
    except (TrustError, StoreError) as exc:
        log.error("revocation-lists-not-used", text=f"revocation lists came and are not used: {exc}")
        return False
    log.info("revocation-lists")
    return True

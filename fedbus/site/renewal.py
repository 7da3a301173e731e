"""A renewed certificate that the aggregator hands over: checked, put into the kit, used from the next connect on."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from fedbus.errors import StoreError, TrustError
from fedbus.store.kit import put_certificate
from fedbus.trust.identity import Identity
from fedbus.trust.renewal import renewal

log = structlog.get_logger()


def take_in(identity: Identity, pem: str) -> Identity:
    """Who this site is from now on: by the new certificate, or by its old one when that must stay, which is logged."""
    try:
        if renewal(identity, pem, at=datetime.now(UTC)) is None:
            return identity
        put_certificate(identity.kit, pem)
        renewed = Identity.load(identity.kit, role=identity.role)
    except (TrustError, StoreError) as exc:
        log.error("certificate-not-renewed", text=f"a renewed certificate came and is not used: {exc}")
        return identity
    log.info("certificate-renewed", expires=renewed.expires.isoformat(timespec="seconds"))
    return renewed

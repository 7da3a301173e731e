"""Certificates that are none of ours, read for words alone: nothing here is believed."""

from __future__ import annotations

from cryptography import x509

from fedbus.trust.certificates import PARSE_ERRORS

MAX_DER_BYTES = 64 * 1024


def issuer_name(der: bytes) -> str | None:
    """Who says to have issued a certificate, such as `CN=Inspecting Proxy,O=Example`; None when it cannot be read."""
    if len(der) > MAX_DER_BYTES:
        return None
    try:
        return x509.load_der_x509_certificate(der).issuer.rfc4514_string()
    except PARSE_ERRORS:
        return None

"""Why TLS with a broker does not come about, in words: for the session whose connect failed, and for `fedbus doctor`.

A broker that refuses a certificate says why in an alert. In TLS 1.3 it comes after the client's part of the handshake,
and the reset that follows the client's first write destroys it: so the probe shakes hands, writes nothing, and reads.
Silence means that the certificate is good. RFC 8446, section 6.2.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fedbus.bus.url import BrokerUrl
from fedbus.errors import TrustError

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity

HANDSHAKE_LIMIT_S = 5.0
# A broker on the other side of the world answers a handshake in less; one that is content waits for AMQP for 10 s.
ALERT_LIMIT_S = 1.5
# Of OpenSSL's X509_verify_cert, as `ssl.SSLCertVerificationError.verify_code` has them.
NOT_YET_VALID, EXPIRED, NO_ISSUER, NAMES = 9, 10, frozenset({2, 18, 19, 20, 21}), frozenset({62, 63, 64})


class TlsTrouble(StrEnum):
    """What is wrong, one word each; in the second half it is the broker's certificate, or no TLS at all."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    OTHER_CA = "other-ca"
    REVOKED = "revoked"
    WRONG_USE = "wrong-use"
    NO_CERTIFICATE = "no-certificate"
    UNKNOWN_NAME = "unknown-name"
    REFUSED = "refused"
    BROKER_NAME = "broker-name"
    BROKER_CA = "broker-ca"
    BROKER_DATES = "broker-dates"
    INSPECTED = "inspected"
    VERSION = "version"
    NO_TLS = "no-tls"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFinding:
    """What is wrong and what to do."""

    trouble: TlsTrouble
    text: str


def context_for(identity: Identity | None) -> ssl.SSLContext:
    """How a connection is made: by the kit's certificate and CA, else with the CAs that this system trusts.

    The kit's files are read now. Raises TrustError.
    """
    if identity is not None:
        return identity.ssl_context()
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def look(url: BrokerUrl, context: ssl.SSLContext, identity: Identity | None) -> TlsFinding | None:
    """What hinders TLS with the broker at `url`; None when nothing does, or no TCP connection comes about."""
    try:
        async with asyncio.timeout(HANDSHAKE_LIMIT_S):
            reader, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
    except ssl.SSLCertVerificationError as exc:
        return await _of_broker(url, exc, identity)
    except ssl.SSLError as exc:
        return _of_handshake(url, exc, identity)
    except (OSError, TimeoutError):
        return None
    try:
        async with asyncio.timeout(ALERT_LIMIT_S):
            await reader.read(1)
    except ssl.SSLError as exc:
        return _of_alert(_reason(exc), identity)
    except (OSError, TimeoutError):
        return None
    finally:
        writer.transport.abort()
    return None


def unknown_name(identity: Identity) -> TlsFinding:
    """The broker believes the certificate, and has no login of its name."""
    return TlsFinding(
        trouble=TlsTrouble.UNKNOWN_NAME,
        text=f"the certificate is good and the broker has no login {identity.name!r}: the federation's operator enrols "
        f"it (`fedbus provision add {identity.name}`), or has taken it away",
    )


# ------------------------------------------------------------------ what the broker says of us


def _of_alert(alert: str, identity: Identity | None) -> TlsFinding:
    """Of an alert that came after the handshake: the broker does not take our certificate."""
    if identity is None:
        return TlsFinding(
            trouble=TlsTrouble.NO_CERTIFICATE,
            text="this broker asks for a certificate and none is shown: set FEDBUS_KIT (or --kit) to the folder of the "
            "kit, and take user:password@ out of the broker URL",
        )
    trouble = next((trouble for sign, trouble in _ALERTS.items() if sign in alert), TlsTrouble.REFUSED)
    said = f"the broker does not take the certificate of {identity.kit} ({identity.name})"
    if own := _own_trouble(identity):
        return TlsFinding(trouble=_of_dates(trouble, own), text=f"{said}: {own}")
    return TlsFinding(trouble=trouble, text=f"{said}: {_WORDS[trouble].format(alert=alert.lower().replace('_', ' '))}")


_ALERTS = {
    "CERTIFICATE_EXPIRED": TlsTrouble.EXPIRED,
    "CERTIFICATE_REVOKED": TlsTrouble.REVOKED,
    "CERTIFICATE_REQUIRED": TlsTrouble.NO_CERTIFICATE,
    "UNKNOWN_CA": TlsTrouble.OTHER_CA,
    "UNSUPPORTED_CERTIFICATE": TlsTrouble.WRONG_USE,
    "HANDSHAKE_FAILURE": TlsTrouble.WRONG_USE,
}
_WORDS = {
    TlsTrouble.EXPIRED: "it calls it expired or not yet valid, and by this machine's clock it is valid: one of the two "
    "clocks is wrong, compare both with a time server",
    TlsTrouble.REVOKED: "it is revoked; ask the federation, then for a new one with a new key, in a new "
    "folder (`fedbus kit request NAME --kit NEW`)",
    TlsTrouble.NO_CERTIFICATE: "none arrived; is something on the way that ends TLS?",
    TlsTrouble.OTHER_CA: "another CA has issued it than those that the broker knows. Ask the federation for a "
    "certificate of its present CA, and check that the address is that of your federation's broker",
    TlsTrouble.WRONG_USE: "it is made for another use, such as that of a broker; or no cipher suite is known to both",
    TlsTrouble.REFUSED: "it says {alert!r}. The broker's own revocation list may have run out, which keeps everybody "
    "out: any `fedbus provision` command renews it",
}


def _own_trouble(identity: Identity) -> str:
    """What can be seen of the kit's files by themselves, in words: the dates above all."""
    try:
        type(identity).load(identity.kit)
    except TrustError as exc:
        return str(exc)
    return ""


def _of_dates(trouble: TlsTrouble, own: str) -> TlsTrouble:
    return TlsTrouble.NOT_YET_VALID if trouble is TlsTrouble.EXPIRED and "not valid before" in own else trouble


def _of_handshake(url: BrokerUrl, exc: ssl.SSLError, identity: Identity | None) -> TlsFinding | None:
    reason = _reason(exc)
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
        return TlsFinding(
            trouble=TlsTrouble.NO_TLS,
            text=f"what answers on port {url.port} speaks no TLS: give the broker's TLS port (usually 5671)",
        )
    if any(sign in reason for sign in ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "INSUFFICIENT_SECURITY")):
        return TlsFinding(
            trouble=TlsTrouble.VERSION,
            text="the two sides share no version of TLS or no cipher suite: fedbus speaks TLS 1.2 and 1.3; something "
            "on the way that ends TLS may speak less",
        )
    return _of_alert(reason, identity) if "ALERT" in reason else None


# ------------------------------------------------------------------ what we find of the broker


async def _of_broker(url: BrokerUrl, exc: ssl.SSLCertVerificationError, identity: Identity | None) -> TlsFinding:
    """The check of the broker's certificate failed at this side."""
    code, detail = exc.verify_code, exc.verify_message
    if code in NAMES:
        return TlsFinding(
            trouble=TlsTrouble.BROKER_NAME,
            text=f"the certificate of the broker is not made for {url.host!r} ({detail}): write the name in the broker "
            "URL that stands in federation.yaml, or have the broker's certificate made for this one",
        )
    if code in (NOT_YET_VALID, EXPIRED):
        return TlsFinding(
            trouble=TlsTrouble.BROKER_DATES,
            text=f"the broker's own certificate is not valid now ({detail}): the federation's operator renews it "
            "(`fedbus provision renew`), unless this machine's clock is wrong",
        )
    return await _of_other_issuer(url, detail, identity)


async def _of_other_issuer(url: BrokerUrl, detail: str, identity: Identity | None) -> TlsFinding:
    """Another CA has issued what the broker shows: by its name it is a former CA of ours, or somebody on the way."""
    if identity is None:
        return TlsFinding(
            trouble=TlsTrouble.BROKER_CA,
            text=f"this system trusts no CA of the broker's certificate ({detail}): a federation's own CA is in its "
            "kit, set FEDBUS_KIT (or --kit)",
        )
    issuer = await _issuer(url)
    if issuer is None or identity.federation in issuer:
        return TlsFinding(
            trouble=TlsTrouble.BROKER_CA,
            text=f"another CA has issued the broker's certificate than that in {identity.kit / 'ca.pem'} ({detail}): "
            "ask the federation for its present ca.pem; or this is the address of another federation's broker",
        )
    return TlsFinding(
        trouble=TlsTrouble.INSPECTED,
        text=f"a certificate of {issuer[:200]!r} comes back where the broker's is expected: something on the way "
        "opens TLS (a proxy or antivirus that inspects it). Ask your IT to let this connection through untouched: "
        f"{url.address}",
    )


async def _issuer(url: BrokerUrl) -> str | None:
    """Who has issued what is shown at this address. Nothing is sent and nothing believed: this is for words alone."""
    from fedbus.trust.foreign import issuer_name

    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(HANDSHAKE_LIMIT_S):
            _, writer = await asyncio.open_connection(url.host, url.port, ssl=blind)
    except (OSError, TimeoutError):
        return None
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return issuer_name(shown) if shown else None


def _reason(exc: ssl.SSLError) -> str:
    return str(exc.reason or "")

"""TLS with the broker: what hinders it, else what it is like and how long the broker's certificate is good.

The words for what hinders it are those of `fedbus.bus.tls_probe`, which a daemon's own log has too.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedbus.bus.tls_probe import context_for, look
from fedbus.bus.url import BrokerUrl
from fedbus.doctor.finding import Area, Finding, Reporter
from fedbus.doctor.kit import span

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity

TLS = Reporter(Area.TLS, "tls")
BROKER_CERTIFICATE = Reporter(Area.TLS, "broker certificate")
RENEW = "tell the federation's operator: `fedbus provision renew`"


async def examine_tls(url: BrokerUrl, identity: Identity | None, *, now: datetime, within_s: float) -> list[Finding]:
    """One finding when TLS does not come about, two when it does. Raises TrustError for a kit that cannot be used."""
    if not url.tls:
        return [TLS.ok("none: the broker is on this machine's loopback")]
    context = context_for(identity)
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
    except TimeoutError:
        return [
            TLS.fail(
                f"{url.address} takes the connection and does not answer the TLS handshake",
                "correct the port (amqps: 5671), or ask IT for what is on the way: a proxy that holds it back",
            )
        ]
    except OSError as exc:  # ssl.SSLError is one
        hindered = await look(url, context, identity)
        return [TLS.fail(hindered.text if hindered else f"{url.address}: {exc.strerror or exc}", "")]
    tls, certificate = writer.get_extra_info("ssl_object"), writer.get_extra_info("peercert")
    writer.transport.abort()
    if hindered := await look(url, context, identity):
        return [TLS.fail(hindered.text, "")]
    return [
        TLS.ok(f"{tls.version()}, {tls.cipher()[0]}; {_believed(identity)}"),
        broker_dates(_time(certificate["notBefore"]), _time(certificate["notAfter"]), now),
    ]


def broker_dates(starts: datetime, ends: datetime, now: datetime) -> Finding:
    """How long the broker's certificate is good; one that is not any more has ended the handshake before."""
    if ends - now < (ends - starts) / 3:
        return BROKER_CERTIFICATE.warn(f"ends in {span(ends - now)}; then nobody connects", RENEW)
    return BROKER_CERTIFICATE.ok(f"good for {span(ends - now)} more")


def _believed(identity: Identity | None) -> str:
    return "the broker takes our certificate" if identity else "the broker's certificate is of a CA this system trusts"


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)

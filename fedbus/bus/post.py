"""From messages to envelopes and back: where each message goes, how long it lives, who may have sent it.

message                                                   exchange         key
Join SiteStatus Leave                                     fedbus.sites     <site>.join|status|leave
OfferAnswer ScoreAnswer StatisticsAnswer                  fedbus.sites     <site>.answer
ResyncRequest TrainerTrouble                              fedbus.sites     <site>.answer
UpdateManifest, chunks of an update                       fedbus.updates   <job>.<site>
VersionManifest, chunks of a version                      fedbus.models    <job>
Event                                                     fedbus.events    <job>.<site>.<kind>
RollCall JobOffer ...                                     fedbus.control   chosen by the caller: see `control`
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from datetime import timedelta

from fedbus.bus import topology as t
from fedbus.bus.envelope import Envelope
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.errors import DecodeError, ProtocolError

SiteMessage = (
    m.Join
    | m.SiteStatus
    | m.Leave
    | m.OfferAnswer
    | m.ScoreAnswer
    | m.StatisticsAnswer
    | m.ResyncRequest
    | m.TrainerTrouble
)
ControlMessage = (
    m.RollCall
    | m.JobOffer
    | m.InitialParamsRequest
    | m.JobStarted
    | m.Receipt
    | m.StepBudget
    | m.ResendRequest
    | m.ScoreRequest
    | m.StatisticsRequest
    | m.JobEnded
    | m.JobForgotten
    | m.CertificateRenewed
)


MAX_SITE_MESSAGE_BYTES = 1 << 18
"""What a site says is kept in memory, told to watchers and shown: an error or a list of metrics is far shorter."""


class Post:
    """Addresses and reads the messages of one daemon; the place for its keys, of which there are none yet.

    Every message that leaves is put in its envelope by `_envelope`, every one that comes is read by `from_envelope`, so
    that sealing and opening will each be one call there. What people ask and are answered goes another way, see `rpc`.
    """

    def from_site(self, message: SiteMessage) -> Envelope:
        """Address what a site says to the aggregator."""
        expiration = t.STATUS_TTL if isinstance(message, m.SiteStatus) else None
        return self._envelope(message, t.SITES, site_key(message), expiration=expiration)

    def from_trainer(self, message: m.Chunk | m.UpdateManifest, *, site: str) -> Envelope:
        """Address a chunk or the manifest of a site's update."""
        part = f"{message.transfer}/{message.index}" if isinstance(message, m.Chunk) else message.update_id
        return self._envelope(message, t.UPDATES, t.update_key(message.job, site), message_id=part)

    def to_model_log(self, message: m.Chunk | m.VersionManifest) -> Envelope:
        """Address a chunk or the manifest of a version."""
        if isinstance(message, m.Chunk):
            part = f"{message.job}/{message.transfer}/{message.part}/{message.index}"
        else:
            part = f"{message.job}/{message.version}"
        return self._envelope(message, t.MODELS, t.models_key(message.job), message_id=part)

    def control(self, message: ControlMessage, *, site: str | None) -> Envelope:
        """Address a message to one site, or to all."""
        key = t.control_key_all() if site is None else t.control_key_site(site)
        return self._envelope(message, t.CONTROL, key, expiration=t.CONTROL_TTL)

    def event(self, message: m.Event) -> Envelope:
        """Address an event."""
        return self._envelope(message, t.EVENTS, t.event_key(message.job, message.site, message.kind))

    def from_login(self, envelope: Envelope) -> SiteMessage:
        """Read what a site says; its login, checked by the broker, must be the site it speaks for.

        Raises ProtocolError, also for more than MAX_SITE_MESSAGE_BYTES.
        """
        size = envelope.refused_bytes or len(envelope.body)
        if size > MAX_SITE_MESSAGE_BYTES:
            raise ProtocolError(
                f"message {envelope.type!r} has {size} bytes: a site says at most {MAX_SITE_MESSAGE_BYTES}"
            )
        message = self.from_envelope(envelope)
        if not isinstance(message, SiteMessage):
            raise DecodeError(f"message {envelope.type!r} does not belong on {t.SITES}")
        if message.site != envelope.user_id:
            raise ProtocolError(f"login {envelope.user_id!r} speaks for site {message.site!r}")
        check_key(envelope, site_key(message))
        return message

    def from_envelope(self, envelope: Envelope) -> wire.Message:
        """Read a message. DecodeError when it is none, ProtocolError when it names no sender, or asks for copies."""
        if not envelope.user_id:
            raise ProtocolError(f"message {envelope.type!r} has no user_id: every fedbus message carries its login")
        if envelope.copied:
            raise ProtocolError(f"message {envelope.type!r} has a header CC: a message goes where its one key says")
        if envelope.refused_bytes:
            raise ProtocolError(
                f"message {envelope.type!r} has {envelope.refused_bytes} bytes, more than may come here:"
                " it was not kept"
            )
        return wire.decode(envelope.type, envelope.headers, envelope.body)

    def _envelope(
        self,
        message: wire.Message,
        exchange: str,
        key: str,
        *,
        message_id: str | None = None,
        expiration: timedelta | None = None,
    ) -> Envelope:
        encoded = wire.encode(message)
        return Envelope(
            exchange=exchange,
            routing_key=key,
            type=encoded.type,
            body=encoded.body,
            message_id=message_id or str(uuid.uuid4()),
            content_type=encoded.content_type,
            headers={**encoded.headers, "traceparent": _traceparent(message)},
            expiration=expiration,
        )


def site_key(message: SiteMessage) -> str:
    """The key under which a site says this."""
    match message:
        case m.Join():
            kind = t.SiteKind.JOIN
        case m.SiteStatus():
            kind = t.SiteKind.STATUS
        case m.Leave():
            kind = t.SiteKind.LEAVE
        case _:
            kind = t.SiteKind.ANSWER
    return t.site_key(message.site, kind)


def check_key(envelope: Envelope, key: str) -> None:
    """Raise ProtocolError unless a message came under its own key: a copy (BCC) of another one has that one's."""
    if envelope.routing_key != key:
        raise ProtocolError(f"message {envelope.type!r} came under key {envelope.routing_key!r}, its own is {key!r}")


def _traceparent(message: wire.Message) -> str:
    """W3C trace context; chunks, manifest and receipt of one update share a trace, as do those of one version."""
    match message:
        case m.Chunk(job=job, transfer=transfer):
            trace = f"{job}/{transfer}"
        case m.UpdateManifest(job=job, update_id=update_id) | m.Receipt(job=job, update_id=update_id):
            trace = f"{job}/{update_id}"
        case m.VersionManifest(job=job, version=version):
            trace = f"{job}/{version}"
        case _:
            return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    return f"00-{hashlib.blake2b(trace.encode(), digest_size=16).hexdigest()}-{secrets.token_hex(8)}-01"

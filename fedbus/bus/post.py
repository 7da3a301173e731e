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
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fedbus.bus import topology as t
from fedbus.bus.envelope import Envelope
from fedbus.core.job.hospital import Submission
from fedbus.core.job.submissions import not_as_submitted
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.errors import DecodeError, ProtocolError, SignatureError

if TYPE_CHECKING:
    from fedbus.bus.guard import Guard
    from fedbus.trust.epochs import LogKeys, PartSeal
    from fedbus.trust.identity import Identity, Verifier
    from fedbus.trust.sealed_updates import UpdateSeal
    from fedbus.trust.suites import SealSuite

Opened = Callable[[str, Mapping[str, str | int], bytes], bytes]
"""From a record's type, headers and body to its body as it was before sealing."""
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
    | m.RevocationLists
)


SEAL_KEY = "seal.key"
"""The file of a daemon's seal keys, in its state folder."""
MAX_SITE_MESSAGE_BYTES = 1 << 18
"""What a site says is kept in memory, told to watchers and shown: an error or a list of metrics is far shorter."""


def as_it_came(type: str, headers: Mapping[str, str | int], body: bytes) -> bytes:
    """Of what is not sealed."""
    return body


def _untraced(key: str) -> str:
    return ""


class Post:
    """Addresses and reads the messages of one daemon, and holds its keys: without a kit there are none.

    With an `identity` everything is signed and updates are sealed, and nothing is believed that is not, see `guard`.
    The sessions of the daemon get `outgoing`. `seal_key`: the file of its seal keys, made when it is not there; without
    one they are gone with the process. `suite`: what an aggregator has sites seal to. `trace` gives the `traceparent`
    of what is traced, `job/update` or `job/version`; "" for what is not. Raises TrustError.
    """

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        seal_key: Path | None = None,
        suite: SealSuite = "x25519",
        trace: Callable[[str], str] = _untraced,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.guard: Guard | None = None
        self._trace = trace
        if identity is not None:
            from fedbus.bus.guard import Guard
            from fedbus.trust.sealing import SealKeys
            from fedbus.trust.suites import SUITES

            keys = SealKeys.make() if seal_key is None else SealKeys.load_or_make(seal_key)
            self.guard = Guard(identity, seal_keys=keys, suite=SUITES[suite], clock=clock)

    @property
    def certificate_ends(self) -> datetime | None:
        """When the kit's certificate ends; None without a kit."""
        return None if self.guard is None else self.guard.identity.expires

    @property
    def lists_end(self) -> datetime | None:
        """When the revocation list that ends first ends; None without one."""
        return None if self.guard is None else self.guard.lists_end

    def believe(self, identity: Identity, verifier: Verifier) -> None:
        """The kit has changed: this is who we are from now on, and whom we believe."""
        if self.guard is not None:
            self.guard.believe(identity, verifier)

    def outgoing(self, envelope: Envelope) -> Envelope:
        """What is put on the wire for it, signed at this moment."""
        return envelope if self.guard is None else self.guard.outgoing(envelope)

    def from_site(self, message: SiteMessage) -> Envelope:
        """Address what a site says to the aggregator."""
        expiration = t.STATUS_TTL if isinstance(message, m.SiteStatus) else None
        return self._envelope(message, t.SITES, site_key(message), expiration=expiration)

    def update_seal(self, manifest: m.UpdateManifest, key: bytes) -> UpdateSeal | None:
        """What seals the chunks of an update; `key` was drawn for it alone. None without a kit."""
        return None if self.guard is None else self.guard.update_seal(manifest, key)

    def from_trainer(
        self, message: m.Chunk | m.UpdateManifest, *, site: str, seal: UpdateSeal | None = None
    ) -> Envelope:
        """Address a chunk, sealed, or the manifest of a site's update."""
        if isinstance(message, m.UpdateManifest):
            return self._envelope(message, t.UPDATES, t.update_key(message.job, site), message_id=message.update_id)
        if seal is None and self.guard is not None:
            raise ValueError(f"a chunk of {message.transfer} was about to leave without a seal")
        if seal is not None:
            message = replace(message, body=seal.chunks.seal(message.body, message.index, message.count))
        envelope = self._envelope(
            message, t.UPDATES, t.update_key(message.job, site), message_id=f"{message.transfer}/{message.index}"
        )
        return envelope if seal is None else replace(envelope, headers={**envelope.headers, **seal.headers})

    def to_model_log(self, message: m.Chunk | m.VersionManifest, *, seal: PartSeal | None = None) -> Envelope:
        """Address a chunk or the manifest of a version; `seal` seals its part."""
        if isinstance(message, m.Chunk):
            part, index, count = f"{message.transfer}/{message.part}/{message.index}", message.index, message.count
        else:
            part, index, count = f"{message.version}", 0, 1
        key = t.models_key(message.job)
        envelope = self._envelope(message, t.MODELS, key, message_id=f"{message.job}/{part}")
        if seal is None:
            return envelope
        headers = {**envelope.headers, **seal.headers}
        return replace(envelope, body=seal.seal(envelope.body, index, count), headers=headers)

    def control(self, message: ControlMessage, *, site: str | None) -> Envelope:
        """Address a message to one site, or to all."""
        key = t.control_key_all() if site is None else t.control_key_site(site)
        if isinstance(message, m.JobOffer) and self.guard is not None:
            message = replace(message, seal_keys=self.guard.offered)
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
        message = self.from_envelope(envelope, over=t.SITES)
        if not isinstance(message, SiteMessage):
            raise DecodeError(f"message {envelope.type!r} does not belong on {t.SITES}")
        if message.site != envelope.user_id:
            raise ProtocolError(f"login {envelope.user_id!r} speaks for site {message.site!r}")
        check_key(envelope, site_key(message))
        return message

    def from_aggregator(self, envelope: Envelope, *, site: str) -> wire.Message:
        """Read a control message, which must be for all or for this site: another's comes by the broker's fault alone.

        Raises ProtocolError.
        """
        if envelope.routing_key != t.control_key_all():
            check_key(envelope, t.control_key_site(site))
        return self.from_envelope(envelope, over=t.CONTROL)

    def asked(self, envelope: Envelope) -> m.SignedSubmission | None:
        """A request as its submitter has signed it; None without a kit. Raises SignatureError, DecodeError."""
        return None if self.guard is None else self.guard.asked(envelope)

    def answered(self, envelope: Envelope) -> Envelope:
        """A reply, which with a kit only the aggregator can have given. Raises SignatureError."""
        if self.guard is not None:
            self.guard.answered(envelope)
        return envelope

    def submission(self, offer: m.JobOffer) -> Submission:
        """Who submitted what is offered. With a kit ProtocolError, unless just that was signed by a submitter."""
        if self.guard is None:
            return Submission(submitter=offer.submitter)
        if offer.submission is None:
            raise SignatureError("no submitter has signed this job: one from before the federation had kits?")
        key = self.guard.submitted_by(offer.submission, offer.submitter)
        if problem := not_as_submitted(offer, offer.submission):
            raise SignatureError(problem)
        return Submission(submitter=offer.submitter, fingerprint=key)

    def from_model_log(self, envelope: Envelope, keys: LogKeys | None) -> wire.Message:
        """Read a record of a model log, opened with the job's keys; None: it is not sealed. Raises as `from_envelope`.

        SealError, a ProtocolError, when it does not open, or is not sealed where it should be.
        """
        return self.from_envelope(envelope, over=t.MODELS, opened=as_it_came if keys is None else keys.opened)

    def from_envelope(
        self, envelope: Envelope, *, over: str | None = None, opened: Opened = as_it_came
    ) -> wire.Message:
        """Read a message. DecodeError when it is none, ProtocolError when it names no sender, or asks for copies.

        `over`: the exchange that messages come here over. With a kit one from another is refused, since each exchange
        has rules of its own for who signs and what is sealed, and the broker may put any message into any queue.
        `opened` turns the body, once its signer is known, into one that is not sealed.
        """
        if not envelope.user_id:
            raise ProtocolError(f"message {envelope.type!r} has no user_id: every fedbus message carries its login")
        if envelope.copied:
            raise ProtocolError(f"message {envelope.type!r} has a header CC: a message goes where its one key says")
        if envelope.refused_bytes:
            raise ProtocolError(
                f"message {envelope.type!r} has {envelope.refused_bytes} bytes, more than may come here:"
                " it was not kept"
            )
        if self.guard is not None:
            envelope = self.guard.incoming(envelope, over=over)
        body = opened(envelope.type, envelope.headers, envelope.body)
        message = wire.decode(envelope.type, envelope.headers, body)
        if isinstance(message, m.JobOffer) and self.guard is not None:
            self.guard.take_offered(message.seal_keys)
        return message

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
            headers={**encoded.headers, "traceparent": self._traceparent(message)},
            expiration=expiration,
        )

    def _traceparent(self, message: wire.Message) -> str:
        """W3C trace context; chunks, manifest and receipt of one update share a trace, as do those of one version."""
        match message:
            case m.Chunk(job=job, transfer=transfer):
                key = f"{job}/{transfer}"
            case m.UpdateManifest(job=job, update_id=update_id) | m.Receipt(job=job, update_id=update_id):
                key = f"{job}/{update_id}"
            case m.VersionManifest(job=job, version=version):
                key = f"{job}/{version}"
            case _:
                return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        trace = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return self._trace(key) or f"00-{trace}-{secrets.token_hex(8)}-01"


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

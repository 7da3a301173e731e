"""Signs and seals what leaves, checks and opens what comes: what a kit adds to the post, envelope by envelope.

    exchange         signed by                       sealed to the aggregator        refused when it comes again
    fedbus.sites     the site                        score and statistics answers    yes
    fedbus.updates   the site, chunks by their key   chunks by a key, manifests      no: an update id counts once
    fedbus.control   the aggregator                  no                              yes
    fedbus.models    the aggregator: manifests       no                              no: it is read again, in order
    fedbus.events    the aggregator                  no                              no: it is read again
    fedbus.jobs      the submitter                   no                              done once, see `desk.requests`
    replies          the aggregator                  no                              no: each question has its own id

A message is signed when it is sent, not when it is written: it may wait for the broker for hours in between.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from fedbus.bus import topology as t
from fedbus.bus.envelope import Envelope
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.errors import DecodeError, ProtocolError, SealError, SignatureError
from fedbus.trust.identity import Identity, Verifier
from fedbus.trust.sealed_updates import About, UpdateOpener, UpdateSeal, sealed_by
from fedbus.trust.sealing import NUMBERS, PublicKey, SealKeys, announced, framed
from fedbus.trust.signing import Carrier, Repeats, check, check_age, is_said, sign
from fedbus.trust.subjects import Role
from fedbus.trust.suites import X25519

SEALED = "application/vnd.fedbus.sealed"
SEALED_TYPES = frozenset(wire.NAMES[cls] for cls in (m.ScoreAnswer, m.StatisticsAnswer, m.UpdateManifest))
REPLY = ""
"""The exchange of replies. Their routing key is the broker's: which question they answer is signed."""
_CHUNK = wire.NAMES[m.Chunk]
_SIGNERS: Mapping[str, Role] = {
    t.SITES: Role.SITE,
    t.UPDATES: Role.SITE,
    t.CONTROL: Role.AGGREGATOR,
    t.MODELS: Role.AGGREGATOR,
    t.EVENTS: Role.AGGREGATOR,
    t.JOBS: Role.SUBMITTER,
    REPLY: Role.AGGREGATOR,
}
_ONCE = frozenset({t.SITES, t.CONTROL})
ANSWERS_WAIT = timedelta(days=7)
"""Answers of sites wait on the broker while the aggregator is away; what else counts once is said anew when it is back.

So long one of them counts, and may count a second time to an aggregator that was started since: each names what it
answers, and says it again.
"""

REQUESTS_WAIT = timedelta(days=7)
"""What was asked longer ago nobody waits for any more: whoever kept it back makes no job of it."""


class Guard:
    """Of one participant. `seal_keys` are the aggregator's and a site's own, `clock` gives nanoseconds since the epoch.

    `suite`: of the key that the aggregator offers. `aggregator_key`: what a site seals to, None until an offer tells.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        seal_keys: SealKeys,
        suite: int = X25519,
        verifier: Verifier | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.seal_keys = seal_keys
        self.suite = suite
        self.offered = seal_keys.texts(suite)
        self.aggregator_key: PublicKey | None = None
        self._clock = clock
        self._repeats = Repeats(lifetime=t.CONTROL_TTL)
        self._answers = Repeats(lifetime=ANSWERS_WAIT)
        self.believe(identity, verifier or identity.verifier())

    @property
    def lists_end(self) -> datetime | None:
        """When the revocation list that ends first ends; None without one."""
        return self._verifier.lists_end

    def believe(self, identity: Identity, verifier: Verifier) -> None:
        """From now on this is who we are, and whom we believe: a renewed certificate, another CA, somebody revoked."""
        self.identity = identity
        self._verifier = verifier
        self._opener = UpdateOpener(self.identity.federation, self.seal_keys, verifier)

    # -------------------------------------------------------------- what leaves

    def outgoing(self, envelope: Envelope) -> Envelope:
        """As it goes on the wire now. Raises SealError when the aggregator's key is not known yet."""
        if envelope.exchange not in _SIGNERS or envelope.type == _CHUNK:
            return envelope
        if envelope.type in SEALED_TYPES:
            to, info = self._to_aggregator(), self._about_body(envelope, self.identity.name)
            envelope = dataclasses.replace(envelope, body=to.seal(envelope.body, info), content_type=SEALED)
        signed = sign(self.identity, _carrier(envelope), at_ns=self._clock())
        return dataclasses.replace(envelope, headers={**envelope.headers, **signed})

    def update_seal(self, manifest: m.UpdateManifest, key: bytes) -> UpdateSeal:
        """What seals the chunks of an update of ours, `key` being drawn for it alone."""
        about = About(
            federation=self.identity.federation,
            job=manifest.job,
            site=self.identity.name,
            update_id=manifest.update_id,
            base_version=manifest.base_version,
            layout_digest=manifest.layout_digest,
        )
        return sealed_by(self.identity, about, key, to=self._to_aggregator())

    def take_offered(self, keys: Mapping[str, str]) -> None:
        """Seal to this key of the aggregator from now on: the one of the highest suite. Raises SealError."""
        known = [suite for suite in NUMBERS if str(suite) in keys]
        self.aggregator_key = announced(keys, max(known, default=X25519))

    def _to_aggregator(self) -> PublicKey:
        if self.aggregator_key is None:
            raise SealError("the aggregator's seal key is not known: it is told in a job offer, and none came yet")
        return self.aggregator_key

    # -------------------------------------------------------------- what comes

    def incoming(self, envelope: Envelope, *, over: str | None = None) -> Envelope:
        """A message whose signer is checked, opened; `over`: the exchange that it must have come by, None: any.

        Raises ProtocolError, of which SignatureError and SealError are kinds.
        """
        if over is not None and envelope.exchange != over:
            raise ProtocolError(f"message {envelope.type!r:.60} came over {envelope.exchange!r:.60}, expected {over}")
        role = _SIGNERS.get(envelope.exchange)
        if role is None:
            raise ProtocolError(f"message {envelope.type!r} came over {envelope.exchange!r}: nobody signs there")
        if envelope.type == _CHUNK:
            return self._chunk(envelope)
        name = envelope.user_id or ""
        signed = check(self._verifier, _carrier(envelope), federation=self.identity.federation, role=role, name=name)
        if envelope.exchange == t.JOBS:
            check_age(signed, oldest=REQUESTS_WAIT, now_ns=self._clock())
        if envelope.exchange in _ONCE:
            answers = envelope.exchange == t.SITES and envelope.routing_key == t.site_key(name, t.SiteKind.ANSWER)
            (self._answers if answers else self._repeats).check(signed, envelope.message_id, now_ns=self._clock())
        if envelope.type in SEALED_TYPES:
            body = self.seal_keys.open(envelope.body, self._about_body(envelope, signed.subject.name))
            return dataclasses.replace(envelope, body=body)
        return envelope

    def asked(self, envelope: Envelope) -> m.SignedSubmission:
        """A request whose signer is checked, as others can check it again. Raises SignatureError, DecodeError."""
        self.incoming(envelope, over=t.JOBS)
        if envelope.routing_key.startswith("submit.") and envelope.routing_key != f"submit.{envelope.user_id}":
            raise SignatureError(
                f"login {envelope.user_id} submits under its own key, not {envelope.routing_key!r:.40}"
            )
        try:
            body = envelope.body.decode()
        except UnicodeDecodeError as exc:
            raise DecodeError(f"message {envelope.type!r:.60}: expected JSON in UTF-8") from exc
        carrier = _carrier(envelope)
        return m.SignedSubmission(
            routing_key=carrier.routing_key,
            type=carrier.type,
            message_id=carrier.message_id,
            correlation_id=carrier.correlation_id,
            headers={key: value for key, value in carrier.headers.items() if is_said(key)},
            body=body,
        )

    def submitted_by(self, submission: m.SignedSubmission, name: str) -> str:
        """The fingerprint of the submitter's key. Raises SignatureError unless this one has signed it, as a submit."""
        if not name or submission.routing_key != f"submit.{name}":
            raise SignatureError(f"what came under key {submission.routing_key!r:.60} is no submit of {name!r:.60}")
        carrier = Carrier(
            exchange=t.JOBS,
            routing_key=submission.routing_key,
            type=submission.type,
            message_id=submission.message_id,
            correlation_id=submission.correlation_id,
            headers=submission.headers,
            body=submission.body.encode("utf-8", "surrogatepass"),
        )
        federation = self.identity.federation
        return check(self._verifier, carrier, federation=federation, role=Role.SUBMITTER, name=name).fingerprint

    def answered(self, envelope: Envelope) -> None:
        """Raise SignatureError unless the aggregator has signed this reply, to the question with its correlation id."""
        check(self._verifier, _carrier(envelope), federation=self.identity.federation, role=Role.AGGREGATOR)

    def _chunk(self, envelope: Envelope) -> Envelope:
        if envelope.exchange == t.MODELS:
            return envelope  # a version's: its manifest signs their hash
        body = self._opener.open(envelope.headers, envelope.body, site=envelope.user_id or "")
        return dataclasses.replace(envelope, body=body)

    def _about_body(self, envelope: Envelope, signer: str) -> bytes:
        at = envelope.exchange, envelope.routing_key, envelope.type, envelope.message_id
        return framed("fedbus/body/1", self.identity.federation, signer, *at)


def _carrier(envelope: Envelope) -> Carrier:
    return Carrier(
        exchange=envelope.exchange,
        routing_key=envelope.routing_key if envelope.exchange != REPLY else "",
        type=envelope.type,
        message_id=envelope.message_id,
        correlation_id=envelope.correlation_id or "",
        headers=envelope.headers,
        body=envelope.body,
    )

"""The one error tree of fedbus. A message says what was expected, what came, and what to do.

A room's name in brackets: the class stands there, with the types that it needs; all others stand below.

FedbusError
├── SettingsError        a flag, FEDBUS_* variable or TOML key is wrong
├── PolicyError          a site's policy.toml cannot be read or is wrong; `.said` may leave the site
├── WithheldError        an update may not leave the site, by its policy; `.said` may leave the site
├── JobSpecError         a job spec was refused; `.problems` lists every error with its path
├── ProtocolError        a message that breaks the protocol; it changes nothing
│   ├── DecodeError      bytes that are no valid frame or message
│   ├── SealError        what is sealed does not open, or a seal key is none
│   └── SignatureError   a message is not signed by whom it must be, or is too old
│       ├── ClockError       it was signed at a time that cannot be; `.ahead_s`
│       └── RepeatedError    a signed message that came before; what it says was done
├── LayoutError          params that do not fit the job's layout
├── TaskError            a task is unknown, or failed while loading, training or scoring
│   ├── DataError        the site's data folder is missing, empty or malformed
│   │   ├── MissingPackageError  an extra of fedbus is not installed here; `.said` may leave the site
│   │   └── StudyError       one study, or all of them, cannot be used; `.kind` and `.said` may leave the site
│   ├── ContractError    a task or its task_config breaks the contract; `.said` may leave the site
│   │   └── NotTogetherError     a task cannot be trained by several ranks: one process alone can
│   ├── TrainerDiedError     the trainer process ended while it was needed (site)
│   └── TrainerFailedError   the trainer answered that it could not do what was asked (site)
├── SourceError          a site's data source cannot be used, or what it gives is no study; `.kind` is a fixed word
├── StoreError           spool, ledger, checkpoint or outbox cannot be read or written
│   ├── FolderInUseError     another process works on this state folder
│   ├── IdTakenError         a job of this id is there already; nothing was written
│   └── DiskFullError        nothing was written; the same call works again once there is room
├── BusError             the broker cannot be used
│   ├── LoginError           wrong user, password, virtual host or permission
│   │   └── TlsError             this side or the broker refuses the other's certificate or TLS; `.kind` says which
│   ├── UnreachableError     nothing answers at the broker's address
│   ├── ConnectionLostError  the link broke; what was under way may or may not have happened
│   ├── NameTakenError       another connection consumes a queue that has one owner: a second site of one name
│   ├── NoSuchQueueError     the queue or stream does not exist (any more)
│   ├── NoAnswerError        a request got no reply in time
│   │   └── UnansweredError      the broker has confirmed the request, which waits there for whoever answers
│   └── PublishError         a publish was refused and would be refused again
│       ├── UnroutableError  no queue takes messages with this exchange and routing key
│       ├── NotTakenError    the queue is full, for now (bus)
│       └── RefusedError     the broker closed the channel because of a publish (bus)
├── TrustError           a certificate, key, revocation list or kit is missing, does not fit, or is not to be believed
├── NotOverError         a job cannot be forgotten: it does not exist, or is not over (aggregator)
├── AskedInVainError     the aggregator has refused what was asked (console)
├── ExportError          a model cannot be exported in this format, or differs when it is read back; nothing is left
├── NodeError            the private RabbitMQ node cannot be started or stopped
└── OutputError          what a command prints cannot be written
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


class FedbusError(Exception):
    """Base of every error that fedbus raises on purpose."""


class SettingsError(FedbusError):
    """A setting is missing or wrong."""


class PolicyError(FedbusError):
    """A site's policy cannot be read: the site takes part in nothing until it can. `said` has no word of the file."""

    def __init__(self, text: str, *, said: str) -> None:
        self.said = said
        super().__init__(text)


class WithheldError(FedbusError):
    """What may never leave the site as it is; `said` is made of the policy's numbers alone."""

    def __init__(self, said: str) -> None:
        self.said = said
        super().__init__(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong in a job spec: where (`local.steps`) and what."""

    path: str
    message: str


class JobSpecError(FedbusError):
    """A job spec was refused.

    `problems` holds every error found, each with the path of its key.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.path or 'job spec'}: {p.message}" for p in self.problems))


class ProtocolError(FedbusError):
    """A message that breaks the protocol."""


class DecodeError(ProtocolError):
    """Bytes that are no valid frame or message."""


class SealError(ProtocolError):
    """What is sealed does not open: another key, another purpose, or it was changed; or a seal key is none."""


class SignatureError(ProtocolError):
    """A message is not signed by whom it must be, was changed or is too old."""


class ClockError(SignatureError):
    """A message was signed at a time that cannot be: its signer's clock, or ours, is wrong.

    `ahead_s`: seconds that the signer's clock is ahead of ours, by this message; negative when it is behind.
    """

    def __init__(self, message: str, *, ahead_s: float) -> None:
        super().__init__(message)
        self.ahead_s = ahead_s


class RepeatedError(SignatureError):
    """A signed message that was taken before: the link broke and the broker brings it again, or somebody repeats it."""


class LayoutError(FedbusError):
    """Params whose names, shapes or dtypes differ from the job's layout."""


class TaskError(FedbusError):
    """A task is unknown or failed."""


class DataError(TaskError):
    """The site's data are missing, empty or malformed."""


class MissingPackageError(DataError):
    """Data cannot be read without a package that an extra of fedbus brings: trying again cannot help.

    `said` names what it is for and the extra: what is told outside the site.
    """

    def __init__(self, what: str, *, extra: str, why: Exception) -> None:
        self.said = f"{what} needs a package that is not installed here: pip install 'fedbus[{extra}]'"
        super().__init__(f"{self.said} ({why})")


class StudyError(DataError):
    """A study cannot be used. The text names its file and stays at the site; `said` is made of kinds and counts.

    kind: a fixed word such as `truncated`, see `fedbus.imaging.problems`.
    """

    def __init__(self, kind: str, text: str, *, said: str | None = None) -> None:
        self.kind = kind
        self.said = said or f"a study cannot be used: {kind}"
        super().__init__(text)


class ContractError(TaskError):
    """A task, or what a job configures it with, does not keep to `fedbus.training.task`: trying again cannot help.

    `said` is the text without any value that may be of the site's data: what is told outside the site.
    """

    def __init__(self, text: str, *, said: str) -> None:
        self.said = said
        super().__init__(text)

    @classmethod
    def of_job(cls, text: str) -> Self:
        """Words made of numbers and of the job's own content: all of them may leave."""
        return cls(text, said=text)


class NotTogetherError(ContractError):
    """Several ranks would each train another model of this task."""


class SourceError(FedbusError):
    """A data source of a site cannot be used, or gave what is no study. `kind` names the trouble without any name."""

    def __init__(self, text: str, *, kind: str) -> None:
        self.kind = kind
        super().__init__(text)


class StoreError(FedbusError):
    """Durable state cannot be read or written."""


class FolderInUseError(StoreError):
    """Another process holds the state folder; the message names it."""


class IdTakenError(StoreError):
    """A job of this id is there already, of another submit."""


class DiskFullError(StoreError):
    """There is no room; nothing was changed, and the same call may be made again."""


class BusError(FedbusError):
    """The broker cannot be used."""


class LoginError(BusError):
    """The broker refused user, password, virtual host or permission."""


class TlsError(LoginError):
    """TLS with the broker does not come about. `kind` is a word of `fedbus.bus.tls_probe.TlsTrouble`, or `kit`."""

    def __init__(self, text: str, *, kind: str) -> None:
        self.kind = kind
        super().__init__(text)


class UnreachableError(BusError):
    """Nothing answers at the broker's address."""


class ConnectionLostError(BusError):
    """The connection or channel broke; what was under way may or may not have happened."""


class NameTakenError(BusError):
    """Somebody else already consumes a queue that has one owner."""


class NoSuchQueueError(BusError):
    """The queue or stream does not exist, or was deleted while it was read."""


class NoAnswerError(BusError):
    """A request got no reply in time; it may still be acted on."""


class UnansweredError(NoAnswerError):
    """The broker has confirmed the request and nobody has answered yet: what was asked for is done later."""


class PublishError(BusError):
    """A publish was refused and would be refused again."""


class UnroutableError(PublishError):
    """No queue takes messages with this exchange and routing key."""


class TrustError(FedbusError):
    """A certificate, key, revocation list or kit is missing, does not fit, or is not to be believed."""


class ExportError(FedbusError):
    """A model cannot be exported like this, or the export is not the model; nothing of it is left."""


class NodeError(FedbusError):
    """The private RabbitMQ node cannot be started or stopped."""


class OutputError(FedbusError):
    """Standard output is full, closed or broken."""

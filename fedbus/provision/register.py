"""What a federation has issued, and to whom: `ca/register.json`, the operator's own.

It is written in one step and everything that leaves the folder follows from it: a command that was killed in the middle
is finished by the next one, and no certificate can be out there that `revoke` does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedbus.errors import TrustError
from fedbus.provision.federation_file import BrokerPart
from fedbus.provision.files import PRIVATE, present, put
from fedbus.trust.authority import Revoked
from fedbus.trust.roster import Roster
from fedbus.trust.subjects import Role, Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate: serial number in hex, generation of the CA, dates, fingerprint of its key; PEM of the newest."""

    serial: str
    authority: int
    start: datetime
    end: datetime
    fingerprint: str
    pem: str = ""
    revoked: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A participant. `key` is the public key (PEM) that has a certificate now; `revoked` since when it is out."""

    name: str
    role: Role
    number: int | None = None
    key: str | None = None
    certificates: tuple[Issued, ...] = ()
    revoked: datetime | None = None

    def subject(self, federation: str) -> Subject:
        return Subject(federation=federation, name=self.name, role=self.role, number=self.number)

    @property
    def newest(self) -> Issued | None:
        return self.certificates[-1] if self.certificates else None

    @property
    def renewed(self) -> bool:
        """Whether the newest certificate follows an earlier one of the same key: who has that one can be given it."""
        *earlier, newest = self.certificates or (None,)
        return newest is not None and any(each and each.fingerprint == newest.fingerprint for each in earlier)

    def with_certificate(self, issued: Issued, key: str) -> Member:
        earlier = tuple(replace(each, pem="") for each in self.certificates)
        return replace(self, key=key, certificates=(*earlier, issued))

    def out(self, at: datetime) -> Member:
        """The same without any certificate that is good."""
        certificates = tuple(replace(each, pem="", revoked=each.revoked or at) for each in self.certificates)
        return replace(self, key=None, certificates=certificates, revoked=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """`authorities` are the CA generations that are trusted: two while the CA rotates.

    lists: the newest revocation list (PEM) of each of them, all of `list_number`, made at `listed_at`.
    former: how the broker was reached before its address changed: kits that nobody has changed follow.
    endorsement: the newest CA certificate's key, signed by the one before, for those who know only that one.
    """

    federation: str
    broker: BrokerPart
    former: BrokerPart | None = None
    authorities: tuple[int, ...] = (1,)
    next_number: int = 0
    list_number: int = 0
    listed_at: datetime | None = None
    lists: dict[int, str] = field(default_factory=dict)
    endorsement: str = ""
    members: dict[str, Member] = field(default_factory=dict)

    def issuer_of(self, role: Role) -> int:
        """The CA generation that issues for a role.

        While the CA rotates, what everybody must believe stays with the old one until all have the new one.
        """
        return self.authorities[0 if role in (Role.BROKER, Role.AGGREGATOR) else -1]

    def with_member(self, member: Member) -> Register:
        return replace(self, members=self.members | {member.name: member})

    def enrolled(self, name: str, role: Role) -> Register:
        """With this member; its number is one that nobody ever had. TrustError for a name of another role."""
        known = self.members.get(name)
        if known is not None:
            if known.role is not role:
                raise TrustError(f"{name!r} is a {known.role} of this federation: choose another name for a {role}")
            return self.with_member(replace(known, revoked=None))
        number = self.next_number if role is Role.SITE else None
        try:
            Subject(federation=self.federation, name=name, role=role, number=number)
        except ValueError as exc:
            raise TrustError(str(exc)) from exc
        grown = replace(self, next_number=self.next_number + (number is not None))
        return grown.with_member(Member(name=name, role=role, number=number))

    def active(self) -> Iterable[Member]:
        """Members that are not out."""
        return (member for member in self.members.values() if member.revoked is None)

    def revoked_of(self, authority: int) -> list[Revoked]:
        return [
            Revoked(serial=int(each.serial, 16), since=each.revoked)
            for member in self.members.values()
            for each in member.certificates
            if each.revoked is not None and each.authority == authority
        ]

    def roster(self) -> Roster:
        sites = [member for member in self.members.values() if member.number is not None]
        return Roster(
            federation=self.federation,
            numbers={site.name: site.number for site in sites if site.number is not None},
            revoked={site.name: site.revoked for site in sites if site.revoked is not None},
        )


_FORM = TypeAdapter(Register)


def read_register(path: Path) -> Register | None:
    """None when there is none. TrustError when it is damaged."""
    content = present(path)
    if content is None:
        return None
    try:
        return _FORM.validate_json(content)
    except ValidationError as exc:
        raise TrustError(
            f"{path} is damaged ({exc.errors()[0]['msg']}): take it from your backup; without it nobody can be revoked"
        ) from exc


def write_register(path: Path, register: Register) -> None:
    put(path, _FORM.dump_json(register, indent=1) + b"\n", mode=PRIVATE)

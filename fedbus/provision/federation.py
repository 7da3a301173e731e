"""The folder of a federation at its operator: one command changes the register, then every file that follows from it.

    ca/            register.json, the CA's keys and certificates: nobody else's        aggregator/   a kit
    broker/        what RabbitMQ reads                     submitters/NAME/, sites/NAME/, and NAME.zip of each: kits

A command that was killed, at any moment, is finished by the next one of any kind. What a running broker must be told
is in the `Change` that a command returns, see `live`.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from fedbus.broker.definitions import Login
from fedbus.errors import FolderInUseError, TrustError
from fedbus.provision import issuing
from fedbus.provision.authorities import Authorities
from fedbus.provision.contents import kit_folder, packed_kit, write_contents
from fedbus.provision.federation_file import FederationFile
from fedbus.provision.files import PRIVATE, present, put, take_away
from fedbus.provision.register import Member, Register, read_register, write_register
from fedbus.store.files import disk_errors, drop_leftovers, opened_folder
from fedbus.trust.certificates import fingerprint, key_pem, new_key, public_pem, read_key, read_request
from fedbus.trust.identity import KEY
from fedbus.trust.subjects import Role

OWN = (Role.BROKER, Role.AGGREGATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a command has changed, for a running broker and for its operator.

    `added` are logins that it must know; `revoked` are put out now; with `reload` its certificate or CA may be another.
    """

    register: Register
    added: tuple[Login, ...] = ()
    revoked: tuple[str, ...] = ()
    reload: bool = False
    renewed: tuple[str, ...] = ()


class FederationFolder:
    """A federation in `base`. Raises TrustError, StoreError; FolderInUseError while another command runs there."""

    def __init__(self, base: Path) -> None:
        self.base = base.absolute()
        self._path = self.base / "ca" / "register.json"

    @classmethod
    def found(cls, given: Path | None) -> FederationFolder:
        """The one of these flags: the folder given, this one, or the only one inside it. TrustError otherwise."""
        here = given or Path()
        inside = [here, *sorted(path.parent.parent for path in here.glob("*/ca/register.json"))]
        those = [path for path in inside if (path / "ca" / "register.json").exists()]
        if len(those) != 1 and not (those and those[0] == here):
            many = ", ".join(str(path) for path in those)
            raise TrustError(
                f"{'several federations' if those else 'no federation'} in {here.absolute()}"
                f"{f' ({many})' if those else ''}: give its folder with --dir (`fedbus provision FILE.yaml` makes one)"
            )
        return cls(those[0])

    def register(self) -> Register:
        register = read_register(self._path)
        if register is None:
            raise TrustError(f"{self.base} holds no federation: `fedbus provision federation.yaml --dir {self.base}`")
        return register

    # -------------------------------------------------------------- commands

    def provision(self, file: FederationFile, *, now: datetime, with_keys: bool = False) -> Change:
        """Make what is missing. Nothing that is there and right is written again; nobody is taken away."""
        with self._locked():
            before = read_register(self._path)
            register = before or Register(federation=file.federation, broker=file.broker)
            if register.federation != file.federation:
                raise TrustError(
                    f"{self.base} is federation {register.federation!r}, the file says {file.federation!r}: the id of "
                    "a federation never changes; choose another folder with --dir"
                )
            authorities = self._authorities(register)
            if before is None:
                authorities.make(1, at=now)
            another_host = register.broker.hosts != file.broker.hosts
            if register.broker != file.broker:
                register = replace(register, broker=file.broker, former=register.broker)
            register = issuing.enrol_all(register, file)
            if issuing.lists_are_due(register, now):
                register = issuing.listed(register, authorities, at=now)
            register = self._keys_made_here(register, authorities, now, with_keys=with_keys)
            if another_host:
                broker = register.members[Role.BROKER]
                register = issuing.certify(register, broker, broker.key or "", authorities, at=now)
            self._finish(register, authorities)
            everybody = [member.name for member in register.active()]
            return Change(register=register, added=_logins(register, everybody), reload=True)

    def add(self, name: str, role: Role, *, now: datetime, with_keys: bool = False) -> Change:
        """Enrol one more; one that was revoked may come back with a new key. Nothing is new for one that is there."""
        if role in OWN:
            raise TrustError(f"a federation has one {role}: roles to add are site and submitter")
        with self._changing(now) as (begun, authorities):
            register = begun
            if name in (Role.BROKER, Role.AGGREGATOR) or (name == Role.SUBMITTER and role is Role.SITE):
                raise TrustError(f"{name!r} is the login of the {name}: choose another name")
            register = register.enrolled(name, role)
            register = self._keys_made_here(register, authorities, now, with_keys=with_keys, only=name)
            self._finish(register, authorities)
            return Change(register=register, added=_logins(register, [name]))

    def sign(self, request: bytes, *, confirmed: Callable[[Member, str], bool], now: datetime) -> tuple[Change, Member]:
        """Issue a certificate for a request whose fingerprint was `confirmed`, and pack the kit.

        TrustError when it was not, or when nobody of this name waits for one.
        """
        name, role, key = read_request(request)
        with self._changing(now) as (begun, authorities):
            register = begun
            member = issuing.check_request(register, name, role, fingerprint(key))
            if not confirmed(member, fingerprint(key)):
                raise TrustError(
                    f"the request has key {fingerprint(key)}: when {name} reads another fingerprint, somebody has "
                    "changed the request on its way; nothing was signed"
                )
            if member.key is None:
                register = issuing.certify(register, member, public_pem(key), authorities, at=now)
            self._finish(register, authorities)
            return Change(register=register), register.members[name]

    def revoke(self, name: str, *, now: datetime) -> Change:
        """Put out: its certificates are on the list before anything else is written. Its number stays its own.

        The broker and the aggregator get new keys at once: the federation goes on without the old ones.
        """
        with self._changing(now, lists=False) as (begun, authorities):
            register = begun
            member = register.members.get(name)
            if member is None:
                raise TrustError(f"there is no {name!r}: known are {', '.join(sorted(register.members))}")
            register = register.with_member(member.out(member.revoked or now))
            register = issuing.listed(register, authorities, at=now)
            write_register(self._path, register)
            take_away(kit_folder(self.base, member) / KEY)
            if member.role in OWN:
                register = register.enrolled(name, member.role)
                register = self._keys_made_here(register, authorities, now, with_keys=False)
            self._finish(register, authorities)
            return Change(
                register=register,
                revoked=(name,) if member.role is not Role.BROKER else (),
                added=_logins(register, [name] if member.role is Role.AGGREGATOR else []),
                reload=member.role is Role.BROKER,
            )

    def renew(self, name: str | None, *, now: datetime) -> Change:
        """New certificates of the same keys: of `name`, or of all past half of their life."""
        with self._changing(now) as (begun, authorities):
            register = begun
            if name is not None:
                member = register.members.get(name)
                if member is None or member.key is None or member.revoked is not None:
                    raise TrustError(f"{name!r} has no certificate to renew")
            due = issuing.past_half_life(now) if name is None else lambda member: member.name == name
            register, names = issuing.renew(register, authorities, due, at=now)
            self._finish(register, authorities)
            return Change(register=register, renewed=tuple(names), reload=True)

    def rotate_start(self, *, now: datetime) -> Change:
        """Another CA beside the old one: everybody is to believe both; sites and submitters get certificates of it."""
        with self._changing(now, lists=False) as (begun, authorities):
            register = begun
            if len(register.authorities) > 1:
                raise TrustError(
                    "the CA is being rotated already: finish it with `fedbus provision rotate-ca --finish`"
                )
            old = register.authorities[-1]
            made = authorities.make(old + 1, at=now)
            endorsement = authorities[old].endorsed_pem(made.certificate)
            register = replace(register, authorities=(old, old + 1), endorsement=endorsement)
            return self._reissued(register, authorities, now)

    def rotate_finish(self, *, now: datetime) -> Change:
        """The new CA alone: the broker and the aggregator get its certificates, the old one is believed no more."""
        with self._changing(now, lists=False) as (begun, authorities):
            register = begun
            if len(register.authorities) == 1:
                raise TrustError("no rotation of the CA is under way: `fedbus provision rotate-ca` begins one")
            return self._reissued(replace(register, authorities=register.authorities[1:]), authorities, now)

    # -------------------------------------------------------------- their parts

    def _reissued(self, register: Register, authorities: Authorities, now: datetime) -> Change:
        def of_another(member: Member) -> bool:
            return member.newest is not None and member.newest.authority != register.issuer_of(member.role)

        register = issuing.listed(register, authorities, at=now)
        register, names = issuing.renew(register, authorities, of_another, at=now)
        self._finish(register, authorities)
        return Change(register=register, renewed=tuple(names), reload=True)

    def _keys_made_here(
        self, register: Register, authorities: Authorities, now: datetime, *, with_keys: bool, only: str | None = None
    ) -> Register:
        """Keys and first certificates of the broker, the aggregator and, `with_keys`, of those that have none."""
        for member in list(register.active()):
            wanted = with_keys and only in (None, member.name)
            if not (member.role in OWN or (wanted and member.key is None)):
                continue
            path = kit_folder(self.base, member) / KEY
            pem = present(path)
            if pem is None:
                pem = key_pem(new_key())
                put(path, pem, mode=PRIVATE)
            public = public_pem(read_key(pem, what=str(path)).public_key())
            if public != member.key:
                register = issuing.certify(register, member, public, authorities, at=now)
        return register

    def _authorities(self, register: Register) -> Authorities:
        return Authorities(self.base / "ca", register.federation)

    def _finish(self, register: Register, authorities: Authorities) -> None:
        write_register(self._path, register)
        write_contents(self.base, register, authorities)

    @contextmanager
    def _changing(self, now: datetime, *, lists: bool = True) -> Iterator[tuple[Register, Authorities]]:
        """The register, with revocation lists good for another 30 days unless the command makes its own."""
        self.register()
        with self._locked():
            register = self.register()
            authorities = self._authorities(register)
            yield (issuing.listed(register, authorities, at=now) if lists else register), authorities

    def _drop_leftovers(self) -> None:
        """What a command that was killed has left beside the files: it may be half of a key."""
        groups = [self.base / name for name in ("ca", "broker", "broker/crl", "aggregator", "aggregator/renewed")]
        kits = [self.base / name for name in ("sites", "submitters")]
        for folder in (*groups, *kits, *(kit for group in kits for kit in group.glob("*") if kit.is_dir())):
            drop_leftovers(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self.base / "ca"
        with disk_errors("cannot use folder", folder):
            folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE | 0o100)
        with opened_folder(folder) as fd:  # the folder itself is the lock: a file would be one more that changes
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise FolderInUseError(f"another `fedbus provision` works in {self.base}: try again later") from exc
            self._drop_leftovers()
            yield


def _logins(register: Register, names: Collection[str]) -> tuple[Login, ...]:
    found = [register.members[name] for name in sorted(names)]
    return tuple(Login.certified(m.subject(register.federation)) for m in found if m.role is not Role.BROKER)


def waiting(register: Register) -> list[Member]:
    """Those that have no certificate yet, for want of a request."""
    return [member for member in register.active() if member.newest is None or member.key is None]


def kits(folder: FederationFolder, register: Register) -> list[Path]:
    """The packed kits that are ready to travel."""
    paths = [packed_kit(folder.base, member) for member in register.active() if member.role not in OWN]
    return [path for path in paths if path.exists()]

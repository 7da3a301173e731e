"""The files of a federation's folder, as they follow from the register and from texts that their owners change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fedbus.broker.definitions import Login, definitions
from fedbus.broker.tls_files import LISTS, tls_files
from fedbus.errors import SettingsError
from fedbus.provision.authorities import Authorities
from fedbus.provision.federation_file import PLAIN_PATH
from fedbus.provision.files import PUBLIC, present, put, put_once, take_away
from fedbus.provision.packing import packed
from fedbus.provision.register import Member, Register
from fedbus.provision.texts import broker_readme, texts
from fedbus.trust.authority import list_file
from fedbus.trust.identity import AUTHORITIES, CERTIFICATE, KEY, REVOKED
from fedbus.trust.roster import ROSTER
from fedbus.trust.subjects import Role

RENEWED = "renewed"
ENDORSEMENT = "endorsement.pem"
_GROUPS = {Role.SITE: "sites", Role.SUBMITTER: "submitters"}


def kit_folder(base: Path, member: Member) -> Path:
    group = _GROUPS.get(member.role)
    return base / member.name if group is None else base / group / member.name


def packed_kit(base: Path, member: Member) -> Path:
    """The one file that travels to a participant."""
    folder = kit_folder(base, member)
    return folder.with_name(f"{folder.name}.zip")


def logins(register: Register) -> list[Login]:
    """Who may log in, in the order of the register; a site's queue exists before it has a certificate."""
    return [Login.certified(m.subject(register.federation)) for m in register.active() if m.role is not Role.BROKER]


def write_contents(base: Path, register: Register, authorities: Authorities) -> None:
    """Bring every file in line; the revocation list comes first and the broker's logins before the kits.

    Texts that their owners may have changed are written again only where they are as the register's `former` broker
    made them.
    """
    _write_lists(base, register, authorities)
    bundle = authorities.bundle(register.authorities)
    _write_broker(base / "broker", register)
    for member in register.members.values():
        _write_kit(base, member, register, bundle)
    aggregator = base / Role.AGGREGATOR
    put(aggregator / ROSTER, register.roster().text())
    if register.endorsement:
        put(aggregator / ENDORSEMENT, register.endorsement)
    else:
        take_away(aggregator / ENDORSEMENT)


def _write_lists(base: Path, register: Register, authorities: Authorities) -> None:
    folder = base / "broker" / LISTS
    names = {list_file(authorities[generation].certificate): text for generation, text in register.lists.items()}
    for name, text in names.items():
        put(folder / name, text)
    put(base / Role.AGGREGATOR / REVOKED, "".join(register.lists.values()))
    for path in folder.glob("*.r0"):
        if path.name not in names:
            take_away(path)


def _write_broker(folder: Path, register: Register) -> None:
    broker, place = register.broker, broker_folder(folder, register)
    files = tls_files(place, listener=str(broker.port), version=broker.version)
    if broker.also:
        files["rabbitmq.conf"] = f"# Reached at {broker.address}\n{files['rabbitmq.conf']}"
    files["definitions.json"] = json.dumps(definitions(logins(register)), indent=1) + "\n"
    files["README.md"] = broker_readme(broker, str(place))
    for name, text in files.items():
        put(folder / name, text)


def broker_folder(folder: Path, register: Register) -> Path:
    """Where the broker finds its files: as federation.yaml says, else where they are written."""
    place = register.broker.folder or str(folder.absolute())
    if not PLAIN_PATH.fullmatch(place):
        raise SettingsError(f"{place} cannot stand in RabbitMQ's configuration: choose another folder")
    return Path(place)


def _write_kit(base: Path, member: Member, register: Register, bundle: bytes) -> None:
    folder, newest = kit_folder(base, member), member.newest
    if member.revoked is not None or newest is None:
        for path in (folder / CERTIFICATE, packed_kit(base, member), _renewed(base, member)):
            take_away(path)
        if member.revoked is not None:
            return
    put(folder / AUTHORITIES, bundle)
    if newest is not None:
        put(folder / CERTIFICATE, newest.pem)
    if member.role is Role.BROKER:
        return
    made_here = (folder / KEY).exists()
    former, now = (
        texts(member.subject(register.federation), broker, made_here=made_here)
        for broker in (register.former or register.broker, register.broker)
    )
    for name, text in now.items():
        if not put_once(folder / name, text) and present(folder / name) == former[name].encode():
            put(folder / name, text)
    if newest is not None and member.role in _GROUPS:
        put(packed_kit(base, member), packed(dict(_kit_files(folder))), mode=0o600 if made_here else PUBLIC)
        if member.renewed or register.endorsement:  # who has the newest certificate may believe an old CA
            put(_renewed(base, member), newest.pem)


def _renewed(base: Path, member: Member) -> Path:
    return base / Role.AGGREGATOR / RENEWED / f"{member.name}.pem"


def _kit_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        content = present(path) if path.is_file() and not path.name.startswith(".") else None
        if content is not None:
            yield path.name, content

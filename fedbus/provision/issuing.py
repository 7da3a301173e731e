"""What changes the register: enrolling, issuing, revoking, revocation lists. Functions return another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from fedbus.errors import TrustError
from fedbus.provision.authorities import Authorities
from fedbus.provision.federation_file import FederationFile
from fedbus.provision.register import Issued, Member, Register
from fedbus.trust.authority import CRL_LIFE
from fedbus.trust.certificates import certificate_pem, fingerprint, public_pem, read_public
from fedbus.trust.subjects import Role

# A broker is asked for on its own machine too, by `fedbus doctor` and by health checks.
OWN_HOSTS = ("localhost", "127.0.0.1")


def enrol_all(register: Register, file: FederationFile) -> Register:
    """Everybody that federation.yaml names. Who was revoked stays out until it is enrolled by name again."""
    members = [(role.value, role) for role in (Role.BROKER, Role.AGGREGATOR)]
    members += [(name, Role.SUBMITTER) for name in file.submitters] + [(name, Role.SITE) for name in file.sites]
    for name, role in members:
        known = register.members.get(name)
        if known is None or known.role is not role:
            register = register.enrolled(name, role)
    return register


def certify(register: Register, member: Member, public: str, authorities: Authorities, *, at: datetime) -> Register:
    """A new certificate for the public key (PEM) of a member."""
    generation, key = register.issuer_of(member.role), read_public(public)
    names = tuple(dict.fromkeys((*register.broker.hosts, *OWN_HOSTS))) if member.role is Role.BROKER else ()
    made = authorities[generation].issue(key, member.subject(register.federation), at=at, hosts=names)
    issued = Issued(
        serial=f"{made.serial_number:x}",
        authority=generation,
        start=made.not_valid_before_utc,
        end=made.not_valid_after_utc,
        fingerprint=fingerprint(key),
        pem=certificate_pem(made).decode(),
    )
    return register.with_member(member.with_certificate(issued, public_pem(key)))


def renew(
    register: Register, authorities: Authorities, due: Callable[[Member], bool], *, at: datetime
) -> tuple[Register, list[str]]:
    """New certificates of the same keys for all that are due; returns their names too."""
    names = []
    for member in list(register.active()):
        if member.key is not None and due(member):
            register = certify(register, member, member.key, authorities, at=at)
            names.append(member.name)
    return register, names


def past_half_life(at: datetime) -> Callable[[Member], bool]:
    def due(member: Member) -> bool:
        newest = member.newest
        return newest is not None and at > newest.start + (newest.end - newest.start) / 2

    return due


def listed(register: Register, authorities: Authorities, *, at: datetime) -> Register:
    """With new revocation lists, good for 30 days from now."""
    number = register.list_number + 1
    lists = {
        generation: authorities[generation]
        .revocation_list(register.revoked_of(generation), number=number, at=at)
        .decode()
        for generation in register.authorities
    }
    return replace(register, list_number=number, listed_at=at, lists=lists)


def lists_are_due(register: Register, at: datetime) -> bool:
    """Whether the lists are past half of their life, or not there."""
    return register.listed_at is None or at > register.listed_at + CRL_LIFE / 2 or at < register.listed_at


def check_request(register: Register, name: str, role: Role, key_fingerprint: str) -> Member:
    """The member that a request is for. TrustError when nobody of this name waits for a certificate."""
    member = register.members.get(name)
    if member is None or member.role is not role:
        known = ", ".join(sorted(m.name for m in register.active() if m.role is role)) or "none"
        raise TrustError(
            f"no {role} {name!r} is enrolled (known: {known}): `fedbus provision add {name}"
            f"{'' if role is Role.SITE else f' --role {role}'}` first"
        )
    if role in (Role.BROKER, Role.AGGREGATOR):
        raise TrustError(f"the {role}'s key is made by `fedbus provision` itself: nothing is signed for it")
    if any(each.revoked and each.fingerprint == key_fingerprint for each in member.certificates):
        raise TrustError(
            f"key {key_fingerprint} of {name} was revoked: a new one is made there, in a new folder "
            f"(`fedbus kit request {name} --kit NEW`)"
        )
    of_others = [m.name for m in register.members.values() for c in m.certificates if c.fingerprint == key_fingerprint]
    if set(of_others) - {name}:
        raise TrustError(f"key {key_fingerprint} is that of {of_others[0]}: everybody has a key of their own")
    if member.revoked is not None:
        raise TrustError(f"{name} was revoked on {member.revoked:%Y-%m-%d}: first `fedbus provision add {name}`")
    if member.newest is not None and member.key is not None and member.newest.fingerprint != key_fingerprint:
        raise TrustError(
            f"{name} has a certificate for another key, {member.newest.fingerprint}: if that key is lost, "
            f"`fedbus provision revoke {name}` and `add` it again"
        )
    return member

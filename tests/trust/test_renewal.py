"""A renewed certificate at the site: what makes it one, and how another CA of the federation becomes known."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from fedbus.core.protocol.messages import CertificateRenewed, RevocationLists
from fedbus.errors import TrustError
from fedbus.site.renewal import take_in, take_lists
from fedbus.trust.authority import Authority, Revoked
from fedbus.trust.certificates import certificate_der, certificate_pem, name_of, new_key, public_key, read_certificates
from fedbus.trust.identity import Identity, read_private_key
from fedbus.trust.renewal import ListLife, Offer, Renewal, renewal
from fedbus.trust.subjects import Role
from tests.small_federation import subject, write_kit

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=15)


def pem(*authorities: Authority) -> str:
    return "".join(certificate_pem(each.certificate).decode() for each in authorities)


def issued(authority: Authority, kit: Path, *, name: str = "site-a", number: int = 0, at: datetime = LATER) -> str:
    """A certificate for the key of a kit."""
    key = public_key(read_certificates((kit / "cert.pem").read_bytes(), what="test")[0])
    whom = subject(name, number=number, federation=authority.federation)
    return certificate_pem(authority.issue(key, whom, at=at)).decode()


@pytest.fixture
def identity(kit: Path) -> Identity:
    return Identity.load(kit)


def test_a_newer_certificate_of_the_same_key_takes_the_place_of_the_old_one(authority, kit, identity):
    new = issued(authority, kit)
    assert renewal(identity, Offer(certificate=new), at=LATER) == Renewal(certificate=new, authorities=None)


def test_the_certificate_that_is_there_changes_nothing(authority, kit, identity):
    old = (kit / "cert.pem").read_text()
    offer = Offer(certificate=old, authorities=pem(authority))
    assert renewal(identity, offer, at=LATER) is None


@pytest.mark.parametrize(
    ("offered", "says"),
    [
        (lambda ca, kit: issued(ca, kit, name="site-b", number=1), "a certificate of site site-b"),
        (lambda ca, kit: issued(ca, kit, number=7), "expected a renewed one of"),
        (lambda ca, kit: issued(ca, kit, at=LATER + timedelta(days=3)), "is not valid before"),
        (lambda ca, kit: issued(ca, kit, at=NOW - timedelta(days=30)), "expired on"),
        (lambda ca, kit: issued(Authority.new("hearts", at=NOW), kit), "not issued by this federation's CA"),
        (lambda ca, kit: issued(ca, kit) * 2, "2 certificates came"),
        (lambda ca, kit: "nonsense", "holds no certificate"),
        (lambda ca, kit: "A" * 100_000, "bytes"),
    ],
    ids=["another site's", "another number", "of the future", "of the past", "another CA's", "two", "none", "too long"],
)
def test_anything_else_is_refused(authority, kit, identity, offered, says):
    with pytest.raises(TrustError, match=says):
        renewal(identity, Offer(certificate=offered(authority, kit)), at=LATER)


def test_a_certificate_for_another_key_is_refused(authority, kit, identity, tmp_path):
    write_kit(tmp_path / "other", authority, subject())
    with pytest.raises(TrustError, match="another key"):
        renewal(identity, Offer(certificate=issued(authority, tmp_path / "other")), at=LATER)


# ------------------------------------------------------------------ another CA


@pytest.fixture
def successor() -> Authority:
    return Authority.new("hearts", generation=2, at=NOW)


def test_a_ca_that_the_known_one_has_endorsed_is_known_from_then_on(authority, successor, kit, identity):
    new, both = issued(successor, kit, at=NOW), pem(authority, successor)
    endorsement = authority.endorsed_pem(successor.certificate)
    offer = Offer(certificate=new, authorities=both, endorsement=endorsement)
    assert renewal(identity, offer, at=NOW) == Renewal(certificate=new, authorities=both)


@pytest.mark.parametrize("endorsed", ["nobody", "another", "by itself"])
def test_a_ca_that_nobody_known_has_endorsed_is_not_believed(authority, successor, kit, identity, endorsed):
    stranger = Authority.new("hearts", generation=2, at=NOW)
    by = {
        "nobody": "",
        "another": authority.endorsed_pem(stranger.certificate),
        "by itself": successor.endorsed_pem(successor.certificate),
    }[endorsed]
    offer = Offer(certificate=issued(successor, kit), authorities=pem(authority, successor), endorsement=by)
    with pytest.raises(TrustError, match="not issued by this federation's CA"):
        renewal(identity, offer, at=LATER)


def test_the_old_ca_is_dropped_when_the_new_one_counts_alone(authority, successor, kit, identity):
    # given a site that knows both, with a certificate of the new one
    (kit / "ca.pem").write_text(pem(authority, successor))
    (kit / "cert.pem").write_text(issued(successor, kit, at=NOW))
    offer = Offer(certificate=(kit / "cert.pem").read_text(), authorities=pem(successor))
    assert renewal(Identity.load(kit), offer, at=NOW) == Renewal(certificate=None, authorities=pem(successor))


def test_a_list_of_strangers_takes_nothing_away(authority, successor, kit, identity):
    offer = Offer(certificate=(kit / "cert.pem").read_text(), authorities=pem(successor))
    assert renewal(identity, offer, at=LATER) is None


# ------------------------------------------------------------------ somebody who is no CA


def test_the_certificate_of_a_participant_endorses_no_ca(authority, kit, identity, tmp_path):
    """The aggregator hands these over: its own certificate, issued by the CA, must not make a CA of its key."""
    whom = subject("aggregator", Role.AGGREGATOR)
    write_kit(tmp_path / "aggregator", authority, whom)
    leaf = (tmp_path / "aggregator" / "cert.pem").read_bytes()
    key = read_private_key(tmp_path / "aggregator" / "key.pem")
    own = (
        x509.CertificateBuilder()
        .subject_name(name_of(whom))
        .issuer_name(name_of(whom))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=100))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    new = issued(Authority(federation="hearts", certificate=own, key=key), kit)
    offer = Offer(certificate=new, authorities=certificate_pem(own).decode(), endorsement=leaf.decode())
    with pytest.raises(TrustError):
        renewal(identity, offer, at=LATER)


def test_the_certificate_of_a_participant_is_no_ca_though_it_was_endorsed(authority, successor, kit, identity):
    """Nor is what has the name and key of the next CA, and does not say that it is one."""
    leaf = authority.issue(successor.key.public_key(), subject(), at=NOW)
    endorsement = authority.endorsed_pem(successor.certificate)
    new, no_ca = issued(successor, kit), certificate_pem(leaf).decode()
    offer = Offer(certificate=new, authorities=no_ca, endorsement=endorsement)
    with pytest.raises(TrustError):
        renewal(identity, offer, at=LATER)


# ------------------------------------------------------------------ the site's kit


def test_a_site_puts_it_into_its_kit_and_is_who_it_was(authority, kit, identity):
    key = (kit / "key.pem").read_bytes()
    new = issued(authority, kit, at=datetime.now(UTC) + timedelta(minutes=1))
    renewed = take_in(identity, CertificateRenewed(site="site-a", certificate=new))
    assert (kit / "cert.pem").read_text() == new
    assert (kit / "key.pem").read_bytes() == key
    assert renewed.subject == identity.subject
    assert renewed.expires > identity.expires
    renewed.ssl_context()


def test_a_site_keeps_its_kit_when_what_came_is_no_renewal(authority, kit, identity):
    before = {path.name: path.read_bytes() for path in kit.iterdir()}
    assert take_in(identity, CertificateRenewed(site="site-a", certificate="nonsense")) is identity
    assert {path.name: path.read_bytes() for path in kit.iterdir()} == before


# ------------------------------------------------------------------ who is revoked


def listed(authority: Authority, number: int, *serials: int) -> RevocationLists:
    revoked = [Revoked(serial=serial, since=NOW) for serial in serials]
    return RevocationLists(lists=authority.revocation_list(revoked, number=number, at=NOW).decode())


def test_a_site_believes_nobody_more_whom_the_federation_has_revoked(authority, kit, identity):
    alice = authority.issue(new_key().public_key(), subject("alice", Role.SUBMITTER), at=NOW)
    assert identity.verifier().verify(certificate_der(alice)).name == "alice"

    assert take_lists(identity, listed(authority, 2, alice.serial_number))
    assert not take_lists(identity, listed(authority, 2, alice.serial_number))  # it has that one

    with pytest.raises(TrustError, match="revoked"):
        identity.verifier().verify(certificate_der(alice))


def test_no_list_brings_back_who_was_revoked(authority, successor, kit, identity):
    take_lists(identity, listed(authority, 2, 7))
    before = (kit / "crl.pem").read_bytes()
    unsigned = listed(dataclasses.replace(authority, key=successor.key), 3)
    for older in (listed(authority, 1), unsigned, listed(successor, 9), RevocationLists(lists="nonsense")):
        assert not take_lists(identity, older)
    assert (kit / "crl.pem").read_bytes() == before


def test_a_revocation_list_is_to_be_renewed_from_half_its_time(authority, kit):
    assert ListLife.of_kit(kit) is None
    text = authority.revocation_list([], number=1, at=NOW, life=timedelta(days=30))
    (kit / "crl.pem").write_bytes(text)
    life = ListLife.of_kit(kit)
    assert life is not None
    assert timedelta(days=14) < life.half_time - NOW < timedelta(days=15)

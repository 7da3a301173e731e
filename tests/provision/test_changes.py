"""What changes in a federation later: who is out stays out, numbers are given once, a CA follows another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedbus.errors import NodeError, TrustError
from fedbus.provision.federation import FederationFolder
from fedbus.provision.live import by_hand, tell
from fedbus.provision.participant import unpack
from fedbus.trust.identity import Identity, Verifier
from fedbus.trust.renewal import Offer, renewal
from fedbus.trust.roster import Roster
from fedbus.trust.subjects import Role
from tests.provisioned_federation import contents, enrol, federation_file

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=16)


def verifier(folder: FederationFolder) -> Verifier:
    return Verifier.load(folder.base / "aggregator", federation="hearts")


def test_who_is_revoked_stays_out_and_its_next_key_is_let_in(folder: FederationFolder, tmp_path: Path) -> None:
    old = enrol(folder, tmp_path / "old", "mercy")
    folder.revoke("mercy", now=NOW)
    assert set(Roster.load(folder.base / "aggregator").revoked) == {"mercy"}
    assert not (folder.base / "sites" / "mercy.zip").exists()
    with pytest.raises(TrustError, match="provision add mercy"):
        enrol(folder, tmp_path / "new", "mercy")
    folder.add("mercy", Role.SITE, now=NOW)
    with pytest.raises(TrustError, match="was revoked"):
        enrol(folder, tmp_path / "old", "mercy")
    new = enrol(folder, tmp_path / "new", "mercy")
    assert new.number == old.number == 0
    assert verifier(folder).verify(new.certificate) == new.subject
    with pytest.raises(TrustError, match="revoked"):
        verifier(folder).verify(old.certificate)


def test_every_certificate_of_a_name_is_revoked_also_those_before_a_renewal(
    folder: FederationFolder, tmp_path: Path
) -> None:
    first = enrol(folder, tmp_path / "kit", "mercy")
    folder.renew("mercy", now=NOW)
    second = unpack(folder.base / "sites" / "mercy.zip", tmp_path / "kit")
    folder.revoke("mercy", now=NOW)
    for each in (first, second):
        with pytest.raises(TrustError, match="revoked"):
            verifier(folder).verify(each.certificate)


def test_a_file_that_still_names_who_was_revoked_lets_it_not_in_again(folder: FederationFolder) -> None:
    folder.revoke("mercy", now=NOW)
    folder.provision(federation_file("mercy", "ucsf"), now=NOW)
    assert folder.register().members["mercy"].revoked is not None
    assert '"mercy"' not in (folder.base / "broker" / "definitions.json").read_text()


def test_a_number_is_never_given_again(folder: FederationFolder) -> None:
    folder.revoke("ucsf", now=NOW)
    folder.add("kaiser", Role.SITE, now=NOW)
    folder.add("ucsf", Role.SITE, now=NOW)
    assert Roster.load(folder.base / "aggregator").numbers == {"mercy": 0, "ucsf": 1, "kaiser": 2}


@pytest.mark.parametrize(
    ("name", "role", "word"),
    [
        ("aggregator", Role.SITE, "login of the aggregator"),
        ("submitter", Role.SITE, "login of the submitter"),
        ("mercy", Role.SUBMITTER, "is a site"),
        ("Big Site", Role.SITE, "1 to 40"),
        ("a", Role.BROKER, "has one broker"),
    ],
)
def test_who_cannot_be_added(folder: FederationFolder, name: str, role: Role, word: str) -> None:
    before = contents(folder.base)
    with pytest.raises(TrustError, match=word):
        folder.add(name, role, now=NOW)
    assert contents(folder.base) == before


def test_renewing_takes_those_past_half_of_their_life(folder: FederationFolder, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    before = enrol(folder, kit, "mercy")
    assert folder.renew(None, now=NOW + timedelta(days=14)).renewed == ()
    assert set(folder.renew(None, now=LATER).renewed) == {"broker", "aggregator", "mercy"}
    # then the aggregator has what it hands to the site, which takes it
    offer = Offer(certificate=(folder.base / "aggregator" / "renewed" / "mercy.pem").read_text())
    found = renewal(before, offer, at=LATER)
    assert found is not None
    assert found.certificate == offer.certificate
    assert folder.renew(None, now=LATER).renewed == ()
    with pytest.raises(TrustError, match="no certificate to renew"):
        folder.renew("ucsf", now=NOW)


def test_the_list_is_good_for_thirty_days_from_every_command(folder: FederationFolder) -> None:
    first = verifier(folder).lists_end
    folder.provision(federation_file("mercy", "ucsf"), now=NOW + timedelta(days=14))
    assert verifier(folder).lists_end == first
    folder.provision(federation_file("mercy", "ucsf"), now=LATER)
    end = verifier(folder).lists_end
    assert end is not None
    assert abs(end - LATER - timedelta(days=30)) < timedelta(minutes=1)
    folder.renew(None, now=NOW + timedelta(days=40))
    assert (verifier(folder).lists_end or NOW) > NOW + timedelta(days=69)


def test_a_rotation_of_the_ca_leaves_nobody_behind_who_takes_part(folder: FederationFolder, tmp_path: Path) -> None:
    kit, aggregator = tmp_path / "kit", folder.base / "aggregator"
    site = enrol(folder, kit, "mercy", ago=timedelta(days=1))
    old_broker = (folder.base / "broker" / "cert.pem").read_bytes()
    # when a second CA is believed beside the first
    folder.rotate_start(now=NOW)
    assert (folder.base / "broker" / "cert.pem").read_bytes() == old_broker
    assert Identity.load(aggregator).verifier().verify(site.certificate) == site.subject
    _take_over(kit, aggregator)
    both = Identity.load(kit)
    assert both.certificate != site.certificate
    assert verifier(folder).verify(both.certificate) == site.subject
    # and then alone
    folder.rotate_finish(now=NOW)
    assert both.verifier().verify(Identity.load(aggregator).certificate).role is Role.AGGREGATOR
    _take_over(kit, aggregator)
    assert (kit / "ca.pem").read_bytes() == (aggregator / "ca.pem").read_bytes()
    with pytest.raises(TrustError, match="not issued by"):
        verifier(folder).verify(site.certificate)
    assert len(list((folder.base / "broker" / "crl").iterdir())) == 1


def _take_over(kit: Path, aggregator: Path) -> None:
    """What a site's daemon does with a renewal that the aggregator hands to it."""
    offer = Offer(
        certificate=(aggregator / "renewed" / "mercy.pem").read_text(),
        authorities=(aggregator / "ca.pem").read_text(),
        endorsement=(aggregator / "endorsement.pem").read_text(),
    )
    found = renewal(Identity.load(kit), offer, at=NOW)
    assert found is not None
    (kit / "ca.pem").write_text(found.authorities or (kit / "ca.pem").read_text())
    (kit / "cert.pem").write_text(found.certificate or (kit / "cert.pem").read_text())


def test_a_rotation_is_begun_once_and_finished_once(folder: FederationFolder) -> None:
    with pytest.raises(TrustError, match="no rotation"):
        folder.rotate_finish(now=NOW)
    folder.rotate_start(now=NOW)
    with pytest.raises(TrustError, match="already"):
        folder.rotate_start(now=NOW)


def test_a_stolen_key_of_the_aggregator_is_replaced_at_once(folder: FederationFolder) -> None:
    old = Identity.load(folder.base / "aggregator")
    folder.revoke("aggregator", now=NOW)
    new = Identity.load(folder.base / "aggregator")
    assert new.fingerprint != old.fingerprint
    with pytest.raises(TrustError, match="revoked"):
        new.verifier().verify(old.certificate)


def test_for_a_broker_elsewhere_the_commands_are_said(folder: FederationFolder) -> None:
    said = by_hand(folder, folder.revoke("mercy", now=NOW))
    assert said == [
        "rabbitmqctl delete_user mercy",
        "rabbitmqctl close_all_user_connections mercy revoked",
        "rabbitmqctl delete_queue fedbus.site.mercy -p fedbus",
    ]


class OtherFunctions:
    """The rabbitmqctl of a broker whose functions are not those that we have read: it knows commands alone."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, *arguments: str) -> str:
        self.told.append(arguments[0])
        if arguments[0] == "eval":
            raise NodeError("rabbitmqctl eval failed: undefined function")
        return ""


def test_a_broker_of_other_functions_is_given_the_commands(folder: FederationFolder) -> None:
    ctl = OtherFunctions()
    tell(folder, folder.revoke("mercy", now=NOW), ctl)
    assert ctl.told == ["eval", "delete_user", "close_all_user_connections", "delete_queue"]

"""A kit that is wrong in one way is told apart from a kit that is wrong in another, before anything connects."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedbus.doctor.finding import Finding, Status
from fedbus.doctor.kit import examine_kit, list_age, seal_key
from fedbus.trust.authority import Authority, Revoked
from fedbus.trust.certificates import certificate_pem, key_pem, new_key, read_certificates
from fedbus.trust.sealing import SealKeys
from fedbus.trust.subjects import Role
from tests.small_federation import subject, write_kit

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("hearts", at=NOW - 100 * DAY)


@pytest.fixture
def kit(tmp_path: Path, authority: Authority) -> Path:
    write_kit(tmp_path / "kit", authority, subject("mercy"), at=NOW)
    return tmp_path / "kit"


def found(kit: Path, *, role: Role = Role.SITE, name: str = "mercy", now: datetime = NOW) -> dict[str, Finding]:
    """What is not fine, by check."""
    findings = examine_kit(kit, role=role, name=name, now=now)
    return {each.check: each for each in findings if each.status in (Status.WARN, Status.FAIL)}


def write_list(kit: Path, authority: Authority, *, at: datetime, revoked: tuple[int, ...] = ()) -> None:
    entries = [Revoked(serial=serial, since=at) for serial in revoked]
    (kit / "crl.pem").write_bytes(authority.revocation_list(entries, number=1, at=at))


def serial(kit: Path) -> int:
    return read_certificates((kit / "cert.pem").read_bytes(), what="cert.pem")[0].serial_number


def test_a_good_kit_is_fine(kit, authority):
    write_list(kit, authority, at=NOW)
    assert found(kit) == {}
    fine = {each.check: each.text for each in examine_kit(kit, role=Role.SITE, name="mercy", now=NOW)}
    assert fine["certificate"].startswith("site mercy of federation hearts, key ")
    assert fine["revocation list"].endswith("good for 30 days more")


def test_a_folder_without_files_is_no_kit(tmp_path):
    assert "lacks cert.pem, key.pem, ca.pem" in found(tmp_path)["kit files"].text
    assert "there is no such folder" in found(tmp_path / "nowhere")["kit files"].text


def test_a_key_that_others_may_read(kit):
    (kit / "key.pem").chmod(0o640)
    assert found(kit)["key files"].fix == f"chmod 600 {kit / 'key.pem'}"


def test_a_seal_key_is_made_later_is_whole_or_is_damaged(tmp_path):
    path = tmp_path / "seal.key"
    assert seal_key(path).status is Status.SKIPPED
    SealKeys.load_or_make(path)
    assert seal_key(path).status is Status.OK
    path.chmod(0o644)
    assert f"chmod 600 {path}" in seal_key(path).text
    path.chmod(0o600)
    path.write_text("{}")
    assert "do not delete it" in seal_key(path).fix


def test_an_expired_certificate(kit):
    problem = found(kit, now=NOW + 33 * DAY)["certificate"]
    assert "expired on" in problem.text
    assert problem.text.endswith("3 days ago")
    assert "renew" in problem.fix


def test_a_certificate_of_tomorrow_is_a_wrong_clock(kit):
    problem = found(kit, now=NOW - DAY)["certificate"]
    assert "not valid before" in problem.text
    assert "clock" in problem.fix


def test_a_certificate_that_ends_soon_is_a_warning(kit):
    assert found(kit, now=NOW + 25 * DAY)["certificate"].status is Status.WARN


def test_a_certificate_of_another_ca_of_the_same_name(kit, tmp_path):
    other = Authority.new("hearts", at=NOW)
    write_kit(tmp_path / "other", other, subject("mercy"), at=NOW)
    shutil.copy(tmp_path / "other" / "ca.pem", kit / "ca.pem")
    assert "which is not the CA in ca.pem" in found(kit)["certificate"].text


def test_a_key_that_does_not_fit(kit):
    (kit / "key.pem").write_bytes(key_pem(new_key()))
    assert "key.pem does not fit cert.pem" in found(kit)["certificate"].text


def test_a_name_that_differs_from_the_settings(kit):
    problem = found(kit, name="ucsf")["certificate"]
    assert "the certificate names mercy, the settings name ucsf" in problem.text
    assert 'site_name = "mercy"' in problem.fix


def test_a_kit_of_another_role(kit):
    assert "this is to be the aggregator" in found(kit, role=Role.AGGREGATOR, name="aggregator")["certificate"].text


def test_the_brokers_certificate_in_a_sites_kit(kit, authority):
    # given a certificate that names a site and is made for the other side of TLS
    key = new_key()
    broker = authority.issue(key.public_key(), subject("mercy", Role.BROKER), at=NOW)
    (kit / "cert.pem").write_bytes(certificate_pem(broker))
    (kit / "key.pem").write_bytes(key_pem(key))
    assert "this is the certificate of broker mercy" in found(kit)["certificate"].text


@pytest.mark.parametrize("file", ["cert.pem", "key.pem", "ca.pem", "crl.pem"])
def test_a_file_that_is_none(kit, file):
    (kit / file).write_text("no PEM")
    assert found(kit)["certificate"].status is Status.FAIL


def test_a_revoked_certificate(kit, authority):
    write_list(kit, authority, at=NOW, revoked=(serial(kit),))
    assert found(kit)["revocation list"].text == "this certificate is revoked"


def test_a_list_of_somebody_else(kit):
    write_list(kit, Authority.new("lungs", at=NOW), at=NOW)
    assert "no list of the CA" in found(kit)["revocation list"].text


def test_the_list_of_a_revocation_is_warned_of_from_half_time_and_fails_past_its_end(kit, authority):
    write_list(kit, authority, at=NOW - 20 * DAY)
    assert "the list ends in 10 days" in found(kit)["revocation list"].text
    write_list(kit, authority, at=NOW - 31 * DAY)
    assert "the broker lets nobody in" in found(kit)["revocation list"].text


def test_a_list_of_tomorrow_is_a_wrong_clock():
    assert list_age(NOW + DAY, NOW + 31 * DAY, NOW).fix == "set this machine's clock"

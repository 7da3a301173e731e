"""What the aggregator does when its kit changes: once, at once, and whatever the files hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedbus.aggregator.desk.kit_watch import KitWatch
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.errors import TrustError
from fedbus.trust.authority import Authority, Revoked
from fedbus.trust.certificates import certificate_der, certificate_pem, new_key, read_certificates
from fedbus.trust.identity import Identity, Verifier
from fedbus.trust.roster import Roster
from fedbus.trust.subjects import Role
from tests.aggregator.test_site_desk import Desk
from tests.small_federation import subject, write_kit

NOW = datetime.now(UTC)
SITE_B = subject("site-b", number=1)


class Office:
    """A desk with jobs, a kit, and the operator who changes it."""

    def __init__(self, folder: Path, *jobs: str) -> None:
        self.authority = Authority.new("hearts", at=NOW)
        self.kit = folder / "kit"
        write_kit(self.kit, self.authority, subject("aggregator", Role.AGGREGATOR))
        self.now = NOW
        self.believed: list[Verifier] = []
        self.desk = Desk(folder, *jobs)
        self.enrol()
        self.lists()
        self.watch = self.begin()

    def begin(self) -> KitWatch:
        """The aggregator starts, or starts again on the same ledger."""
        return KitWatch(
            Identity.load(self.kit),
            tools=self.desk.tools,
            jobs=self.desk.jobs,  # type: ignore[arg-type]
            sites=self.desk.desk,
            believe=lambda identity, verifier: self.believed.append(verifier),
            wall=self.wall,
        )

    def wall(self) -> float:
        return self.now.timestamp()

    def enrol(self, **revoked: datetime) -> None:
        names = {"site-a": 0, "site-b": 1}
        gone = {name.replace("_", "-"): at for name, at in revoked.items()}
        (self.kit / "roster.json").write_text(Roster(federation="hearts", numbers=names, revoked=gone).text())

    def lists(self, *serials: int, life: timedelta = timedelta(days=30)) -> None:
        revoked = [Revoked(serial=serial, since=NOW) for serial in serials]
        text = self.authority.revocation_list(revoked, number=1 + len(serials), at=NOW, life=life)
        (self.kit / "crl.pem").write_bytes(text)

    def told(self, kind: type[events.Happened]) -> list[tuple[str, str]]:
        return [(job, text) for name, job, text in self.desk.announcer.events if name == kind.kind]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path, "job-1")


async def test_a_site_that_is_revoked_is_put_out_and_its_job_is_told_once(office):
    await office.desk.joins("site-b")
    await office.watch.look()
    # when it is revoked
    office.enrol(site_b=NOW)
    await office.watch.look()
    await office.watch.look()
    # then
    view = office.desk.tools.membership.get("site-b")
    assert (view.state, "was revoked at" in view.reason) == ("left", True)
    ((job, text),) = office.told(events.SiteRevoked)
    assert job == "job-1"
    assert NOW.isoformat(timespec="seconds") in text


async def test_what_a_job_was_told_before_a_restart_it_is_not_told_again(office):
    office.enrol(site_b=NOW)
    await office.watch.look()
    ((job, text),) = office.told(events.SiteRevoked)
    office.desk.ledger.add_incident(job, "site-revoked", text, at=NOW.timestamp())
    await office.begin().look()
    assert len(office.told(events.SiteRevoked)) == 1


async def test_a_revocation_while_the_aggregator_was_away_is_told_when_it_is_back(office):
    office.enrol(site_b=NOW)
    await office.begin().look()
    assert [job for job, _ in office.told(events.SiteRevoked)] == ["job-1"]


async def test_without_jobs_a_revocation_of_long_ago_is_no_news(tmp_path):
    office = Office(tmp_path)
    office.enrol(site_b=NOW)
    await office.watch.look()
    assert office.told(events.SiteRevoked) == []
    office.enrol(site_a=NOW, site_b=NOW)
    await office.watch.look()
    assert [job for job, _ in office.told(events.SiteRevoked)] == [events.NOBODY]


async def test_whom_the_aggregator_believes_follows_the_list(office):
    theirs = office.authority.issue(new_key().public_key(), SITE_B, at=NOW)
    await office.watch.look()
    assert office.believed[-1].verify(certificate_der(theirs)).name == "site-b"
    office.lists(theirs.serial_number)
    await office.watch.look()
    with pytest.raises(TrustError, match="revoked"):
        office.believed[-1].verify(certificate_der(theirs))


@pytest.mark.parametrize("file", ["crl.pem", "roster.json", "cert.pem", "ca.pem"])
async def test_a_file_that_cannot_be_read_changes_nothing_until_it_can(office, file):
    await office.watch.look()
    whole = (office.kit / file).read_bytes()
    (office.kit / file).write_bytes(b"half of")
    await office.watch.look()
    assert len(office.believed) == 1
    (office.kit / file).write_bytes(whole)
    await office.watch.look()
    assert len(office.believed) == 2


async def test_a_list_past_half_its_time_is_warned_of_once_and_once_more_at_its_end(office):
    for days, times in ((10, 0), (16, 1), (17, 1), (31, 2)):
        office.now = NOW + timedelta(days=days)
        await office.watch.look()
        assert len(office.told(events.RevocationListOld)) == times
    assert "no connection is taken any more" in office.told(events.RevocationListOld)[-1][1]


def renewed(office: Office, whom: Any = SITE_B, name: str = "site-b") -> str:
    made = office.authority.issue(new_key().public_key(), whom, at=NOW)
    (office.kit / "renewed").mkdir(exist_ok=True)
    (office.kit / "renewed" / f"{name}.pem").write_bytes(certificate_pem(made))
    return certificate_pem(made).decode()


def handed(office: Office) -> list[m.CertificateRenewed]:
    return [each for _, each in office.desk.announcer.answered if isinstance(each, m.CertificateRenewed)]


async def test_a_renewed_certificate_is_handed_to_its_site_when_it_is_there_once_a_session(office):
    # given a site that is away
    pem = renewed(office)
    await office.watch.look()
    assert handed(office) == []
    # when it joins, and joins anew
    for session in ("s1", "s2"):
        await office.desk.joins("site-b", session)
        await office.watch.look()
        await office.watch.look()
    # then each session of it gets the certificate, and the CAs that count
    first, second = handed(office)
    assert first == second
    assert (first.site, first.certificate) == ("site-b", pem)
    assert read_certificates(first.authorities.encode(), what="test") == [office.authority.certificate]


async def test_a_certificate_under_another_name_is_handed_to_nobody(office):
    renewed(office, name="site-a")
    for site in ("site-a", "site-b"):
        await office.desk.joins(site)
    await office.watch.look()
    assert handed(office) == []


async def test_each_session_of_a_site_gets_the_revocation_lists_and_again_when_they_change(office):
    def lists() -> list[str]:
        said = [each for _, each in office.desk.announcer.answered if isinstance(each, m.RevocationLists)]
        return [each.lists for each in said]

    await office.desk.joins("site-b")
    await office.watch.look()
    await office.watch.look()
    first = (office.kit / "crl.pem").read_text()
    office.lists(7)
    await office.watch.look()
    assert lists() == [first, (office.kit / "crl.pem").read_text()]

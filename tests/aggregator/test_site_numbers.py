"""Numbers of the sites from the kit's roster: who a model log is for, and why somebody may not read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbus.aggregator.site_numbers import SiteNumbers
from fedbus.bus.topology import new_models_stream
from fedbus.errors import TrustError
from fedbus.trust.roster import Roster


def enrol(kit: Path, **numbers: int) -> None:
    (kit / "roster.json").write_text(Roster(federation="hearts", numbers=numbers).text())


def test_a_log_is_for_the_sites_that_the_job_names_or_for_all(tmp_path: Path) -> None:
    enrol(tmp_path, mercy=0, ucsf=5)
    numbers = SiteNumbers(tmp_path)
    assert numbers.readers(["mercy", "ucsf"]) == "12"
    assert numbers.readers(["ucsf", "nobody"]) == "02"
    assert numbers.readers(None) == "all"


def test_who_is_enrolled_later_reads_new_logs_and_not_those_of_jobs_that_named_others(tmp_path: Path) -> None:
    enrol(tmp_path, mercy=0)
    numbers = SiteNumbers(tmp_path)
    named, for_all = (new_models_stream("heart", numbers.readers(sites)) for sites in (["mercy", "ucsf"], None))
    assert "is not in the federation's roster" in numbers.why_not("ucsf", for_all)
    enrol(tmp_path, mercy=0, ucsf=1)
    assert numbers.why_not("ucsf", for_all) == numbers.why_not("mercy", named) == ""
    assert "was enrolled after this job began" in numbers.why_not("ucsf", named)
    assert numbers.readers(["mercy", "ucsf"]) == "3"


def test_a_roster_that_cannot_be_read_changes_nothing_but_at_the_start(tmp_path: Path) -> None:
    enrol(tmp_path, mercy=0)
    numbers = SiteNumbers(tmp_path)
    (tmp_path / "roster.json").write_text("{")
    assert numbers.readers(["mercy"]) == "1"
    with pytest.raises(TrustError, match="roster"):
        SiteNumbers(tmp_path)

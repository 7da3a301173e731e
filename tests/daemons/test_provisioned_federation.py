"""A whole federation from provisioned files: hospitals train over TLS, one's certificate is renewed, one is put out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from fedbus.local.federation import LocalFederation, wait_until
from fedbus.tasks.heart_disease import write_site_data
from fedbus.trust.identity import Identity

SITES = ("cleveland", "hungary")
ALLOWED = {"heart_disease": ("local.steps", "local.batch_size", "local.learning_rate")}
LONG, SOON = 10**6, timedelta(seconds=60)
FEDBUS = Path(sys.executable).with_name("fedbus")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    """An aggregator and two hospitals, each with its kit, on a broker of their own."""
    folder = tmp_path_factory.mktemp("provisioned")
    with LocalFederation(folder, sites=SITES, tls=ALLOWED) as running:
        running.start_aggregator().wait_for("aggregator-ready")
        for site in SITES:
            write_site_data(folder / "data" / site, site)
            running.start_site(site, folder / "data" / site, status_interval_s=0.5)
        yield running


def fedbus(federation: LocalFederation, *arguments: str) -> str:
    """A command of the submitter, who has its kit and nothing else."""
    kit = federation.kit("submitter")
    assert kit is not None
    env = {"FEDBUS_KIT": str(kit), "PATH": "/usr/bin:/bin", "FEDBUS_HOME": str(federation.folder / "home")}
    done = run([FEDBUS, *arguments], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def job(federation) -> str:
    """One that does not end by itself."""
    spec = federation.folder / "heart.yaml"
    local = "local: {steps: 5, batch_size: 16, learning_rate: 0.1}"
    spec.write_text(f"name: heart\ntask: heart_disease\nmin_sites: 1\n{local}\nstop: {{versions: {LONG}}}\n")
    return fedbus(federation, "submit", str(spec)).strip()


def show(federation: LocalFederation, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fedbus(federation, "show", job, "-o", "json"))
    return found


def provision(federation: LocalFederation, *arguments: str) -> None:
    """A command of the federation's operator."""
    done = run(
        [FEDBUS, "provision", *arguments, "--dir", str(federation.federation)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_data_are_checked_where_the_broker_shows_no_log_that_is_not_named(federation):
    # a check has no model, so it has no log: its sites must not ask for one that they may not read
    spec = federation.folder / "check.yaml"
    spec.write_text("name: look\ntask: heart_disease\nkind: data-check\nmin_sites: 2\n")
    checked = fedbus(federation, "submit", str(spec)).strip()
    wait_until(lambda: show(federation, checked)["state"] == "finished", within=SOON, what="the end of the check")
    report = show(federation, checked)["result"]["check"]
    assert set(report["sites"]) == set(SITES)
    assert not report["cannot"]


def test_hospitals_train_the_heart_job_over_tls_sealed_and_signed(federation, job):
    aggregator = federation.daemons[0]
    for site in SITES:
        aggregator.wait_for("update-folded", within=SOON, job=job, site=site)
    aggregator.wait_for("version-committed", job=job, version=3)
    assert set(show(federation, job)["sites"]) == set(SITES)


def test_a_renewed_certificate_reaches_its_site_by_itself(federation):
    kit = federation.kit("hungary")
    before = Identity.load(kit)
    # when the operator renews it
    provision(federation, "renew", "hungary")
    # then the site has it in its kit, for the key that it had
    federation.daemons[2].wait_for("certificate-renewed")
    after = Identity.load(kit)
    assert after.certificate != before.certificate
    assert after.fingerprint == before.fingerprint


def test_a_site_that_is_revoked_is_put_out_and_the_job_says_so_and_goes_on(federation, job):
    aggregator, cleveland, hungary = federation.daemons
    aggregator.wait_for("version-committed", job=job)
    aggregator.wait_for("update-folded", job=job, site="hungary")
    # when one of the two that take part is revoked
    provision(federation, "revoke", "hungary")
    # then everybody is told who was put out and when, once
    event = aggregator.wait_for("site-revoked", job=job, site="hungary")
    incidents = [each for each in show(federation, job)["incidents"] if each["kind"] == "site-revoked"]
    assert [each["text"] for each in incidents] == [event["text"]]
    assert event["since"] in event["text"]
    # it is refused at the broker, in words
    assert "it is revoked" in hungary.wait_for("broker refused")["detail"]
    # and the other one goes on, on the connections that it has
    begun = max(each["version"] for each in aggregator.events() if each["event"] == "version-committed")
    wait_until(
        lambda: any(e["event"] == "version-committed" and e["version"] > begun + 1 for e in aggregator.events()),
        within=SOON,
        what="another version",
    )
    assert not [each for each in cleveland.events() if each["event"] == "broker lost"]
    fedbus(federation, "abort", job)
    aggregator.wait_for("job-ended", within=SOON, job=job)

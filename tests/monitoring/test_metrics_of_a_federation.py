"""What Prometheus sees of a real federation."""

from __future__ import annotations

import re
import socket
import subprocess
import urllib.error

import pytest

from fedbus.runtime.metrics import METRICS, Kind, Of
from tests.monitoring.conftest import Scrape, Seen, scrape

ALWAYS_THERE = {"fedbus_job_", "fedbus_certificate", "fedbus_revocation", "fedbus_trainer_restarts"}
"""Of an open job, of a kit, of trouble."""


def checked(page: Scrape) -> str:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page.text, text=True, capture_output=True, check=False
    )
    return done.stdout + done.stderr + ("" if done.returncode == 0 else f" exit code {done.returncode}")


def test_the_aggregator_counts_what_became_of_the_job(seen: Seen) -> None:
    page, job = seen.ended, seen.job
    assert page.value("fedbus_versions_total", job_id=job) == 4
    folded = [page.value("fedbus_updates_total", job_id=job, site=s, outcome="folded") for s in ("site-a", "site-b")]
    assert (
        sum(n or 0 for n in folded)
        == len(seen.house.folded(job))
        == page.value("fedbus_update_staleness_versions_count", job_id=job)
    )
    for name in ("fedbus_update_fold_seconds", "fedbus_update_read_seconds"):
        assert (page.value(f"{name}_count", job_id=job) or 0) >= 8
    assert page.value("fedbus_version_publish_seconds_count", job_id=job) == 4
    assert page.value("fedbus_version_commit_seconds_count", job_id=job) == 4
    assert (page.value("fedbus_received_bytes_total", job_id=job, site="site-a") or 0) > 100
    assert (page.value("fedbus_published_bytes_total", job_id=job) or 0) > 100
    assert page.value("fedbus_jobs", state="finished") == 1
    assert page.value("fedbus_sites", state="online") == 2
    assert page.value("fedbus_site_state", site="site-a", state="online") == 1
    assert (page.value("fedbus_site_lease_age_seconds", site="site-a") or 99) < 10
    assert page.value("fedbus_broker_connected", session="control") == 1
    assert page.value("fedbus_broker_blocked", session="models") == 0
    assert (page.value("fedbus_disk_free_bytes") or 0) > 0
    assert page.value("fedbus_disk_full") == 0
    # gauges of a job that is over say nothing
    assert not [name for name in page.names if name.startswith("fedbus_job_")]


def test_a_site_counts_its_own_share(seen: Seen) -> None:
    for page in seen.sites.values():
        trained = page.value("fedbus_local_train_seconds_count", job_id=seen.job) or 0
        assert trained >= page.value("fedbus_local_updates_total", job_id=seen.job, outcome="folded") >= 1  # type: ignore[operator]
        assert page.value("fedbus_local_encode_seconds_count", job_id=seen.job) == trained
        assert (page.value("fedbus_local_publish_seconds_sum", job_id=seen.job) or 0) > 0
        assert (page.value("fedbus_local_sent_bytes_total", job_id=seen.job) or 0) > 50
        assert (page.value("fedbus_local_received_bytes_total", job_id=seen.job) or 0) > 100
        assert page.value("fedbus_build_info", daemon="site") == 1


def test_promtool_finds_nothing_to_say(seen: Seen) -> None:
    pages = [seen.ended, *seen.sites.values()]
    assert [checked(page) for page in pages] == ["", "", ""]


def test_every_number_of_the_table_is_on_a_page(seen: Seen) -> None:
    def on(page: Scrape, of: Of) -> set[str]:
        ends = {Kind.HISTOGRAM: "_count"}
        wanted = (m for m in METRICS if m.of in (of, Of.BOTH))
        return {m.name for m in wanted if m.name + ends.get(m.kind, "") not in page.names}

    missing = on(seen.ended, Of.AGGREGATOR) | on(seen.sites["site-a"], Of.SITE)
    assert {name for name in missing if not name.startswith(tuple(ALWAYS_THERE))} == {"fedbus_local_version"} & missing


def test_series_have_few_labels_and_nothing_of_a_patient(seen: Seen) -> None:
    known = {"job_id", "site", "state", "outcome", "session", "daemon", "version", "le"}
    for page in (seen.ended, *seen.sites.values()):
        for sample in page.samples():
            assert sample.labels.keys() <= known
            for name, value in sample.labels.items():
                assert name == "le" or re.fullmatch(r"[a-z0-9.-]{1,64}|waiting for sites", value), (sample.name, value)


@pytest.mark.parametrize(("request_text", "status"), [
    (b"GET / HTTP/1.1\r\n\r\n", b"404"),
    (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
    (b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n", b"200"),
    (b"A" * 20_000 + b"\r\n\r\n", b""),
    (b"\xff\xfe\r\n\r\n", b"405"),
])  # fmt: skip
def test_the_page_answers_and_outlives_whatever_is_asked(seen: Seen, request_text: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", seen.ports["aggregator"]), timeout=10) as line:
        line.sendall(request_text)
        try:
            answer = line.recv(100_000)
        except ConnectionResetError:
            answer = b""
    assert answer.split(b" ")[1:2] == ([status] if status else [])
    with pytest.raises(urllib.error.HTTPError, match="404"):
        scrape(seen.ports["aggregator"], "/metricsx")


def test_what_is_lost_is_seen_and_what_is_forgotten_goes(after: Seen) -> None:
    page = after.forgotten
    assert page is not None
    assert page.value("fedbus_site_state", site="site-b", state="lost") == 1
    assert page.value("fedbus_site_lease_age_seconds", site="site-b") is None
    assert after.gone not in page.text
    assert after.job in page.text
    assert after.site_forgotten is not None
    assert "fedbus_build_info" in after.site_forgotten.names

"""A doctor with a kit at a real broker that speaks TLS alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedbus.trust.authority import Authority
from tests.small_federation import subject, write_kit

PROGRAM = Path(sys.executable).with_name("fedbus")


def doctor(kit: Path, url: str, home: Path, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code and findings by check."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("FEDBUS_")}
    settings = {"FEDBUS_HOME": str(home), "FEDBUS_SITE_DATA": str(home), "FEDBUS_BROKER_URL": url}
    done = subprocess.run(
        [PROGRAM, "doctor", "--kit", str(kit), "-o", "json", *arguments],
        env=ours | settings,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    found = json.loads(done.stdout)
    return done.returncode, {each["check"]: each for each in found["findings"]}


@pytest.mark.parametrize("place", ["sites/site-a", "submitters/submitter", "aggregator"])
def test_each_participants_kit_is_let_in_and_may_do_what_it_must(provisioned, tmp_path, place):
    kit = Path(shutil.copytree(provisioned.folder / place, tmp_path / "kit"))
    arguments = ("--as", "site") if place.startswith("sites") else ()
    _, found = doctor(kit, provisioned.url(Path(place).name), tmp_path, *arguments)
    lacking = {check: each for check, each in found.items() if each["area"] in ("network", "tls", "login", "broker")}
    assert {check: each["text"] for check, each in lacking.items() if each["status"] == "fail"} == {}
    assert "the broker takes our certificate" in found["tls"]["text"]
    assert found["permissions"]["status"] == "ok"


def test_a_certificate_of_nobody_is_good_and_has_no_login(provisioned, tmp_path):
    ca = provisioned.folder / "ca"
    authority = Authority.read((ca / "1.pem").read_bytes(), (ca / "1.key").read_bytes())
    write_kit(tmp_path / "kit", authority, subject("nobody"))
    (tmp_path / "kit" / "site.toml").write_text('[site]\nsite_name = "nobody"\n')
    _, found = doctor(tmp_path / "kit", provisioned.url("site-a"), tmp_path)
    assert "the broker has no login 'nobody'" in found["login"]["text"]

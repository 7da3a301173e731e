"""The systemd units: whole, locked up, installed by a script that was run; and what a site needs is let through."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .compose import ROOT
from .conftest import parse

UNITS = {path.stem.removeprefix("fedbus-"): path for path in (ROOT / "services").glob("*/*.service")}
CEILING = 2.0
"""Exposure by `systemd-analyze security`, 0 to 10; a site's GPUs cost what it has more than the aggregator."""
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")


def directives(unit: str) -> dict[str, list[str]]:
    """Of the section [Service], each with all its values."""
    found: dict[str, list[str]] = {}
    for line in UNITS[unit].read_text().partition("[Service]")[2].splitlines():
        name, sign, value = line.partition("=")
        if sign and not name.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_whole_and_below_the_ceiling(unit: str, tmp_path: Path) -> None:
    # its program is not installed on this machine: the one of this environment stands for it
    text = (
        UNITS[unit].read_text().replace("/opt/fedbus/.venv/bin/fedbus", str(Path(sys.executable).with_name("fedbus")))
    )
    (tmp_path / UNITS[unit].name).write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNITS[unit].name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={CEILING * 10:.0f}", str(UNITS[unit])]
    locked_up = subprocess.run(command, capture_output=True, text=True, check=False)
    assert locked_up.returncode == 0, locked_up.stdout.splitlines()[-1]


@pytest.mark.parametrize("unit", UNITS)
def test_its_command_and_its_variables_exist(unit: str, known_variables: set[str]) -> None:
    service = directives(unit)
    (command,) = service["ExecStart"]
    assert parse(command.split()[1:]) == f"fedbus {unit}"
    given = re.findall(r"\b(FEDBUS_\w+)=", " ".join(service["Environment"]))
    assert {*given} <= known_variables
    # what a unit names is made by the files that are installed with it
    made = (ROOT / "deploy/systemd/fedbus.tmpfiles").read_text()
    assert "/etc/fedbus/kit " in made
    assert service["User"] == ["fedbus"]


def test_a_site_reaches_its_gpus_its_kit_and_the_cage() -> None:
    site = directives("site")
    assert site["DeviceAllow"] == ["char-nvidia* rw", "char-drm rw", "char-kfd rw"]
    assert "PrivateDevices" not in site
    # renewed certificates are written there
    assert site["ReadWritePaths"] == ["-/etc/fedbus/kit"]
    assert "landlock_restrict_self" in site["SystemCallFilter"][0]


@needs_systemd
def test_the_install_script_makes_unit_user_and_folders(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    command = [str(ROOT / "deploy/systemd/install"), "--root", str(tmp_path)]
    done = subprocess.run([*command, *UNITS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in UNITS.values():
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read_string((tmp_path / "etc/systemd/system" / path.name).read_text())
        assert parser["Install"]["WantedBy"] == "multi-user.target"
    assert "fedbus:" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "etc/fedbus/kit").stat().st_mode & 0o777 == 0o700
    # and a name that is none installs nothing
    assert subprocess.run([*command, "site", "nope"], capture_output=True, check=False).returncode == 2

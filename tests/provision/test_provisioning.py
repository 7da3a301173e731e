"""From one file to a whole folder: the same bytes however often, finished after a kill, keys where they belong."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fedbus.core.job.hospital import Submission, reasons_against
from fedbus.core.spec.kinds import parse
from fedbus.core.spec.site_policy import HospitalPolicy, parse_policy
from fedbus.errors import FolderInUseError, SettingsError, TrustError
from fedbus.provision.federation import FederationFolder
from fedbus.provision.packing import packed
from fedbus.provision.participant import request, unpack
from fedbus.store.files import opened_folder
from fedbus.trust.identity import Identity
from fedbus.trust.roster import Roster
from fedbus.trust.subjects import Role
from tests.provisioned_federation import contents, enrol, federation_file

NOW = datetime.now(UTC)
README = Path(__file__).parents[2] / "README.md"
FILE = federation_file("mercy", "ucsf")


def test_a_second_time_no_byte_changes(folder: FederationFolder) -> None:
    enrol(folder, folder.base.parent / "kit", "mercy")
    before = contents(folder.base)
    folder.provision(FILE, now=NOW + timedelta(days=1))
    assert contents(folder.base) == before


def test_another_version_of_fedbus_changes_no_byte_either(folder: FederationFolder, tmp_path: Path) -> None:
    before = contents(folder.base)
    (tmp_path / "f.yaml").write_text("federation: hearts\nbroker: {host: localhost}\nsites: [mercy, ucsf]\n")
    code = "import fedbus; fedbus.__version__ = '99.9'; from fedbus.cli.app import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "provision", str(tmp_path / "f.yaml"), "--dir", str(folder.base)],
        check=True,
        capture_output=True,
    )
    assert contents(folder.base) == before


def test_the_aggregator_is_ready_and_sites_wait_for_their_own_keys(folder: FederationFolder) -> None:
    assert Identity.load(folder.base / "aggregator", role=Role.AGGREGATOR).federation == "hearts"
    assert Roster.load(folder.base / "aggregator").numbers == {"mercy": 0, "ucsf": 1}
    assert not list((folder.base / "sites").rglob("key.pem"))
    assert not list((folder.base / "sites").rglob("cert.pem"))
    users = json.loads((folder.base / "broker" / "definitions.json").read_text())["users"]
    assert {user["name"]: user["password_hash"] for user in users} == dict.fromkeys(
        ("aggregator", "submitter", "mercy", "ucsf"), ""
    )


def test_private_files_are_nobody_elses(folder: FederationFolder) -> None:
    private = [*folder.base.rglob("*.key"), *folder.base.rglob("key.pem"), folder.base / "ca" / "register.json"]
    assert len(private) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE((folder.base / "ca").stat().st_mode) == 0o700
    for path in folder.base.rglob("*"):
        assert not path.is_file() or path in private or b"PRIVATE KEY" not in path.read_bytes()


@pytest.mark.parametrize("renames", range(0, 38, 4))
def test_a_kill_in_the_middle_is_finished_by_the_next_run(tmp_path: Path, renames: int) -> None:
    # given a run that is killed when it puts its n-th file in place
    base = tmp_path / "hearts"
    child = os.fork()
    if child == 0:
        left = iter(range(renames))
        sys.addaudithook(lambda event, _: os._exit(9) if event == "os.rename" and next(left, None) is None else None)
        FederationFolder(base).provision(FILE, now=NOW, with_keys=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    # when it is run again
    FederationFolder(base).provision(FILE, now=NOW, with_keys=True)
    # then the folder is whole: each kit fits, and each certificate that is out there is in the register
    members = FederationFolder(base).register().members
    for name, kit in (
        ("mercy", base / "sites/mercy"),
        ("ucsf", base / "sites/ucsf"),
        ("aggregator", base / "aggregator"),
    ):
        assert Identity.load(kit).fingerprint == members[name].newest.fingerprint
    assert {path.name for path in (base / "sites").iterdir()} == {"mercy", "mercy.zip", "ucsf", "ucsf.zip"}
    before = contents(base)
    FederationFolder(base).provision(FILE, now=NOW, with_keys=True)
    assert contents(base) == before
    assert {"broker/crl" if name.startswith("broker/crl/") else name for name in before} == EVERYTHING


KIT = {"README.md", "ca.pem", "cert.pem", "key.pem"}
EVERYTHING = {
    *(f"ca/{name}" for name in ("1.key", "1.pem", "register.json")),
    *(f"broker/{n}" for n in ("rabbitmq.conf", "advanced.config", "enabled_plugins", "definitions.json", *KIT)),
    *(f"aggregator/{name}" for name in ("aggregator.toml", "crl.pem", "roster.json", *KIT)),
    *(f"submitters/submitter/{name}" for name in ("submitter.toml", *KIT)),
    *(f"sites/{site}/{name}" for site in ("mercy", "ucsf") for name in ("site.toml", "policy.toml", *KIT)),
    *("submitters/submitter.zip", "sites/mercy.zip", "sites/ucsf.zip", "broker/crl"),
}


def test_a_key_made_at_the_site_never_leaves_it(folder: FederationFolder, tmp_path: Path) -> None:
    identity = enrol(folder, tmp_path / "kit", "mercy")
    assert (identity.name, identity.number) == ("mercy", 0)
    key = (tmp_path / "kit" / "key.pem").read_bytes()
    assert all(key not in content for content, _, _ in contents(folder.base).values())
    assert not any(b"PRIVATE" in content for name, (content, _, _) in contents(folder.base).items() if "mercy" in name)


def test_two_lines_of_openssl_do_what_the_request_command_does(folder: FederationFolder, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    kit.mkdir()
    lines = [line.strip() for line in _documented_lines() if line.strip().startswith("openssl ")]
    assert len(lines) == 2
    for line in lines:
        subprocess.run(line.replace("NAME", "mercy"), shell=True, check=True, cwd=kit, capture_output=True)  # noqa: S602
    asked = request(kit, "mercy", Role.SITE)
    assert enrol(folder, kit, "mercy").fingerprint == asked.fingerprint
    (line,) = (line for line in _documented_lines() if "openssl pkey" in line)
    shown = subprocess.run(line.split("`")[1], shell=True, check=True, cwd=kit, capture_output=True, text=True)  # noqa: S602
    assert shown.stdout.strip() == asked.fingerprint.replace("-", "")


def _documented_lines() -> list[str]:
    return (Path(__file__).parents[2] / "deploy" / "README.md").read_text().splitlines()


def test_nothing_is_signed_for_a_fingerprint_that_differs_or_a_name_that_nobody_enrolled(
    folder: FederationFolder, tmp_path: Path
) -> None:
    pem = request(tmp_path / "kit", "mercy", Role.SITE).file.read_bytes()
    with pytest.raises(TrustError, match="nothing was signed"):
        folder.sign(pem, confirmed=lambda _, found: found == "0000-0000-0000-0000", now=NOW)
    for name, role, word in (
        ("kaiser", Role.SITE, "provision add kaiser"),
        ("mercy", Role.SUBMITTER, "--role submitter"),
    ):
        pem = request(tmp_path / f"{name}-{role}", name, role).file.read_bytes()
        with pytest.raises(TrustError, match=word):
            folder.sign(pem, confirmed=lambda *_: True, now=NOW)
    assert not list((folder.base / "sites").rglob("cert.pem"))


def test_a_second_key_for_a_name_that_has_one_is_refused(folder: FederationFolder, tmp_path: Path) -> None:
    enrol(folder, tmp_path / "kit", "mercy")
    with pytest.raises(TrustError, match="another key"):
        enrol(folder, tmp_path / "thief", "mercy")


def test_the_policy_of_a_new_kit_is_whole_and_lets_nothing_run(folder: FederationFolder) -> None:
    text = (folder.base / "sites" / "mercy" / "policy.toml").read_text()
    found = parse_policy(tomllib.loads(text))
    assert isinstance(found, HospitalPolicy)
    assert found.tasks == {}


def test_the_example_in_the_policy_of_a_new_kit_lets_the_job_of_the_readme_run(folder: FederationFolder) -> None:
    # given
    settings, tasks, example = (folder.base / "sites" / "mercy" / "policy.toml").read_text().partition("[tasks]\n")
    policy = parse_policy(tomllib.loads(settings + tasks + example.replace("# ", "")))
    assert isinstance(policy, HospitalPolicy)
    # when
    (job,) = re.findall(r"```yaml\n(name: heart\n.*?)```", README.read_text(), re.DOTALL)
    spec = parse(yaml.safe_load(job))
    # then
    assert list(reasons_against(policy, spec, Submission(submitter="alice"), data_tags=())) == []


def test_one_key_is_not_taken_for_two_names(folder: FederationFolder, tmp_path: Path) -> None:
    enrol(folder, tmp_path / "kit", "mercy")
    with pytest.raises(TrustError, match="is that of mercy"):
        enrol(folder, tmp_path / "kit", "ucsf")


def test_what_the_hospital_has_changed_stays(folder: FederationFolder, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    enrol(folder, kit, "mercy")
    (kit / "site.toml").write_text("[site]\n")
    unpack(folder.base / "sites" / "mercy.zip", kit)
    assert (kit / "site.toml").read_text() == "[site]\n"


def test_a_packed_kit_opens_with_unzip_and_its_checksums_fit(folder: FederationFolder, tmp_path: Path) -> None:
    enrol(folder, tmp_path / "kit", "mercy")
    unzip = [sys.executable, "-m", "zipfile", "-e", str(folder.base / "sites/mercy.zip"), "out"]
    subprocess.run(unzip, cwd=tmp_path, check=True)
    check = ["sha256sum", "-c", "SHA256SUMS"]
    done = subprocess.run(check, cwd=tmp_path / "out", capture_output=True, text=True, check=True)
    assert "site.toml: OK" in done.stdout


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"hello", "no packed kit"),
        (packed({"cert.pem": b"x"}), "lacks"),
        (packed({"cert.pem": b"x", "ca.pem": b"y", "run.sh": b"z"}), "no kit has"),
        (packed({"../cert.pem": b"x"}), "outside a kit"),
        (packed({"cert.pem": b"x" * 2_000_000}), "more than a kit"),
        (packed({"cert.pem": b"xyz", "ca.pem": b"y"}).replace(b"xyz", b"xyy"), "changed on its way"),
    ],
)
def test_what_is_no_kit_is_not_unpacked(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "kit.zip").write_bytes(content)
    with pytest.raises(TrustError, match=word):
        unpack(tmp_path / "kit.zip", tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


def test_a_kit_for_another_key_is_not_unpacked(folder: FederationFolder, tmp_path: Path) -> None:
    enrol(folder, tmp_path / "kit", "mercy")
    request(tmp_path / "other", "mercy", Role.SITE)
    for kit, word in (("other", "for key"), ("nowhere", "has no key.pem")):
        with pytest.raises(TrustError, match=word):
            unpack(folder.base / "sites" / "mercy.zip", tmp_path / kit)


def test_a_new_address_reaches_the_kits_and_the_brokers_certificate(folder: FederationFolder) -> None:
    (folder.base / "sites" / "ucsf" / "site.toml").write_text("# mine\n")
    serial = folder.register().members["broker"].newest.serial
    folder.provision(federation_file("mercy", "ucsf", host="broker.example.org", port=443), now=NOW)
    assert "amqps://broker.example.org:443/fedbus" in (folder.base / "sites/mercy/site.toml").read_text()
    assert (folder.base / "sites/ucsf/site.toml").read_text() == "# mine\n"
    assert "listeners.ssl.1 = 443" in (folder.base / "broker/rabbitmq.conf").read_text()
    assert folder.register().members["broker"].newest.serial != serial


def test_a_federation_never_becomes_another_one(folder: FederationFolder) -> None:
    other = FILE.model_copy(update={"federation": "lungs"})
    with pytest.raises(TrustError, match="never changes"):
        folder.provision(other, now=NOW)


def test_a_lost_ca_or_register_is_said_and_never_replaced(folder: FederationFolder) -> None:
    (folder.base / "ca" / "1.key").unlink()
    with pytest.raises(TrustError, match="backup"):
        folder.add("kaiser", Role.SITE, now=NOW)
    (folder.base / "ca" / "register.json").write_text("{}")
    with pytest.raises(TrustError, match="damaged"):
        folder.provision(FILE, now=NOW)


def test_two_commands_at_once_do_not_mix(folder: FederationFolder) -> None:
    import fcntl

    with opened_folder(folder.base / "ca") as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(FolderInUseError):
            folder.provision(FILE, now=NOW)


def test_a_folder_that_rabbitmqs_configuration_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RabbitMQ"):
        FederationFolder(tmp_path / 'a"b').provision(FILE, now=NOW)

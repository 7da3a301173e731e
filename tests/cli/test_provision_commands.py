"""`fedbus provision` and `fedbus kit` as people use them: what they print, ask and return."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedbus.cli.commands import app
from fedbus.errors import SettingsError, TrustError

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder with a federation.yaml, where no rabbitmqctl is on PATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "f.yaml").write_text("federation: hearts\nbroker: {host: localhost}\nsites: [mercy]\n")

    def call(*words: str, answer: str | None = None, code: int = 0) -> str:
        result = CliRunner().invoke(app, words, input=answer)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return call


def fingerprint_in(said: str) -> str:
    found = re.search(r"fingerprint +(\S+)", said)
    assert found is not None
    return found[1]


def test_the_way_of_a_site_from_its_request_to_its_kit(run: Run) -> None:
    made = run("provision", "f.yaml")
    assert "waits            mercy: there `fedbus kit request mercy`, then sign" in made
    asked = run("site", "request", "mercy")
    # the fingerprint may be typed as it was heard
    signed = run("provision", "sign", "mercy/mercy.csr", answer=fingerprint_in(asked).upper().replace("-", " ") + "\n")
    assert "mercy.zip" in signed
    unpacked = run("kit", "unpack", "hearts/sites/mercy.zip")
    assert "site mercy of federation hearts" in unpacked
    # and both sides see the same CA
    authority = re.search(r"CA +(\S+)", unpacked)
    assert authority is not None
    assert authority[1] in made
    assert authority[1] in signed


def test_a_wrong_fingerprint_signs_nothing(run: Run) -> None:
    run("provision", "f.yaml")
    run("kit", "request", "mercy")
    with pytest.raises(TrustError, match="nothing was signed"):
        run("provision", "sign", "mercy/mercy.csr", "--fingerprint", "0000-0000-0000-0000")


def test_who_is_out_and_who_is_not_in_the_file_is_said(run: Run) -> None:
    run("provision", "f.yaml")
    said = run("provision", "add", "kaiser")
    assert "fedbus kit request kaiser" in said
    assert "rabbitmqctl import_definitions" in said
    assert "rabbitmqctl delete_user mercy" in run("provision", "revoke", "mercy")
    again = run("provision", "f.yaml")
    assert "out              mercy" in again
    assert "not in the file  kaiser" in again


def test_a_rotation_says_what_comes_next(run: Run) -> None:
    run("provision", "f.yaml", "--with-keys")
    assert "rotate-ca --finish" in run("provision", "rotate-ca")
    assert "eval 'rpc:multicall(ssl, clear_pem_cache, []).'" in run("provision", "rotate-ca", "--finish")
    assert "none was due" in run("provision", "renew")


@pytest.mark.parametrize("whose", ["ours", "another's"])
def test_the_broker_of_this_machine_is_told_only_if_it_reads_this_folder(run: Run, tmp_path: Path, whose: str) -> None:
    # given a rabbitmqctl whose broker has its CA in this folder, or in another one
    run("provision", "f.yaml")
    place = tmp_path / "hearts" / "broker" if whose == "ours" else tmp_path / "elsewhere"
    program = tmp_path / "rabbitmqctl"
    program.write_text(f'#!/bin/sh\n[ "$2" = eval ] && echo {place}/ca.pem && exit 0\necho "$*" >> {tmp_path}/told\n')
    program.chmod(0o755)
    # when one is revoked
    said = run("provision", "revoke", "mercy")
    # then that broker is told, or its operator is
    told = (tmp_path / "told").read_text() if (tmp_path / "told").exists() else ""
    assert ("delete_user mercy" in told) is (whose == "ours")
    assert ("rabbitmqctl delete_user mercy" in said) is (whose != "ours")


def test_wrong_words_are_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="--dir"):
        run("provision", "renew")
    with pytest.raises(SettingsError, match="cannot read"):
        run("provision", "none.yaml")
    assert "expected site or submitter" in run("kit", "request", "x", "--role", "king", code=2)
    assert "No such command 'bogus'" in run("provision", "bogus", code=2)

"""No key stands in any log, in what commands print, or in the arguments of a process. Passwords: `test_audit`."""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedbus.store.audit import FOLDER, newest
from fedbus.store.audit_kinds import Kind

from .sealed_run import LOGINS, SealedRun

LEAST_BYTES = 16


def forms(raw: bytes) -> set[bytes]:
    """A secret as somebody may write it."""
    coded = {base64.b64encode(raw), base64.urlsafe_b64encode(raw), raw.hex().encode(), raw.hex().upper().encode()}
    return {raw, *(form.rstrip(b"=") for form in coded)}


def keys_in(text: bytes) -> Iterator[bytes]:
    """What a file of keys holds in base64 or hex, decoded too."""
    for word in re.findall(rb"[A-Za-z0-9+/_=-]{40,}", text):
        yield word
        try:
            yield base64.b64decode(word, validate=True)
        except ValueError:
            continue


def secrets_of_kit(kit: Path) -> set[bytes]:
    pem = (kit / "key.pem").read_bytes()
    key: Any = load_pem_private_key(pem, password=None)
    body = [line for line in pem.splitlines() if line and not line.startswith(b"-")]
    return {*body[:-1], *forms(key.private_numbers().private_value.to_bytes(32, "big"))}


def secrets_in_state(folder: Path) -> set[bytes]:
    """Keys to seal with, and the keys of model logs."""
    found: set[bytes] = set()
    for path in folder.rglob("seal.key"):
        for key in keys_in(path.read_bytes()):
            found |= forms(key)
    for path in folder.rglob("ledger.sqlite3"):
        with sqlite3.connect(path) as db:
            for (key,) in db.execute("SELECT key FROM epochs"):
                found |= forms(key)
    return {secret for secret in found if len(secret) >= LEAST_BYTES}


def logs_of(house: Any, node: Any) -> list[Path]:
    broker = [path for path in node.base.rglob("*.log*") if path.is_file()]
    audits = list(house.folder.rglob("audit/*.jsonl"))
    daemons = [daemon.log for daemon in house.running.daemons]
    assert broker
    assert len(audits) == len({daemon.name for daemon in house.running.daemons})
    return [*broker, *audits, *daemons]


def assert_none(secrets: set[bytes], places: dict[str, bytes]) -> None:
    leaks = {name for name, text in places.items() if any(secret in text for secret in secrets)}
    assert leaks == set()


def test_no_key_in_any_log_of_a_federation_with_kits(after_sealed_run: SealedRun) -> None:
    house, federation = after_sealed_run.house, after_sealed_run.federation
    for login in (LOGINS[0], LOGINS[2]):
        assert newest(house.running.state_dir(login) / FOLDER, Kind.CERTIFICATE_CHANGED) is not None
    secrets = secrets_in_state(house.folder)
    assert len(secrets) > 10
    for login in LOGINS:
        secrets |= secrets_of_kit(federation.kit(login))
    secrets |= secrets_of_kit_folder(federation.folder)
    places = {str(path): path.read_bytes() for path in logs_of(house, federation.node)}
    places |= {f"command {n}": text.encode() for n, text in enumerate(after_sealed_run.said)}
    places |= {f"arguments {text[:80]!r}": text for text in after_sealed_run.arguments}
    assert_none(secrets, places)


def secrets_of_kit_folder(folder: Path) -> set[bytes]:
    """Of the CA and the broker: every key file that is there."""
    found: set[bytes] = set()
    for path in folder.rglob("*key*.pem"):
        lines = [line for line in path.read_bytes().splitlines() if line and not line.startswith(b"-")]
        found |= {line for line in lines if len(line) == 64}
    assert found
    return found


@pytest.mark.parametrize("form", sorted(forms(bytes(range(200, 232)))))
def test_a_key_that_stood_in_a_log_would_be_found(form: bytes) -> None:
    with pytest.raises(AssertionError):
        assert_none(forms(bytes(range(200, 232))), {"log": b'{"event": "x", "key": "' + form + b'=="}'})

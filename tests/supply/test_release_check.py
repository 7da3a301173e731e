"""What a release is made of: hashes that are current, a bill of materials that is whole, no secret in the tree."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def release_check(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and what is printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "deploy")}
    done = subprocess.run(
        [sys.executable, "-m", "supply", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


# ------------------------------------------------------------------ hashes and the bill


def test_every_pinned_package_has_the_hash_of_its_file():
    assert release_check("hashes") == (0, f"ok  hashes: {release_check('hashes')[1].partition(': ')[2]}")


def test_the_bill_names_every_package_with_version_hash_and_need(tmp_path: Path):
    code, said = release_check("sbom", "--to", tmp_path / "bom.json")
    assert code == 0, said
    bill = json.loads((tmp_path / "bom.json").read_text())
    parts = {part["name"]: part for part in bill["components"]}
    # what fedbus cannot do without is required, with the hash of its file
    for name in ("aio-pika", "cryptography", "pydantic"):
        assert parts[name]["scope"] == "required"
        assert re.fullmatch("[0-9a-f]{64}", parts[name]["hashes"][0]["content"])
    assert parts["monai"]["scope"] == "optional"
    # torch is whatever build is here: its files are what is known of it
    assert "hashes" not in parts["torch"]
    assert re.fullmatch("[0-9a-f]{64}", parts["torch"]["properties"][0]["value"])
    # and everybody's needs are in it
    known = {bill["metadata"]["component"]["bom-ref"], *(part["bom-ref"] for part in bill["components"])}
    assert {each["ref"] for each in bill["dependencies"]} == known
    assert {need for each in bill["dependencies"] for need in each["dependsOn"]} <= known


def test_the_bill_is_the_same_when_it_is_made_again(tmp_path: Path):
    for name in ("one", "two"):
        release_check("sbom", "--to", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# ------------------------------------------------------------------ secrets

KEY = (
    "-----BEGIN {}PRIVATE KEY-----\n"
    + "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n" * 3
    + "-----END PRIVATE KEY-----\n"
)
DRAWN = "qX7v" + "Zr4kTn2w" + "Lp9sYc1d"


def test_nothing_secret_is_in_the_tree():
    code, said = release_check("secrets")
    assert code == 0, said


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (KEY.format(""), "a private key"),
        (KEY.format("EC "), "a private key"),
        (json.dumps({"key": KEY.format("RSA ")}), "a private key"),
        (f"broker_url = 'amqps://mercy:{DRAWN}@broker:5671/fedbus'", "a password in a URL"),
        ("aws = AKIA" + "IOSFODNN7EXAMPLE", "a token"),
        ("token: ghp_" + "a1B2" * 9, "a token"),
    ],
)
def test_a_secret_is_found_and_not_shown(secret_file, text, what):
    code, said = release_check("secrets", secret_file("notes.txt", f"first line\n{text}\n"))
    assert code == 1
    assert f"notes.txt:2: {what}" in said
    assert DRAWN not in said


@pytest.mark.parametrize("name", ["server.key", "id_ed25519", ".erlang.cookie"])
def test_a_file_that_is_a_key_by_its_name(secret_file, name):
    assert release_check("secrets", secret_file(name, "x"))[0] == 1


@pytest.mark.parametrize(
    "text",
    [
        "amqp://user:password@host:5672/vhost",
        "amqps://mercy:PASSWORD@broker.example.org:5671/fedbus",
        "amqp://a:{password}@127.0.0.1",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIBhTCCASugAwIBAgIQIRi6zePL6mKjOipn+dNuaTAKBggqhkjOPQQDAjASMRAw\n",
    ],
)
def test_what_only_looks_like_one_is_let_through(secret_file, text):
    assert release_check("secrets", secret_file("page.md", text))[0] == 0


@pytest.fixture
def secret_file() -> Iterator[Callable[[str, str], Path]]:
    """Writes a file into the tree, where git ignores it, and takes it away again."""
    written: list[Path] = []
    folder = ROOT / "build" / f"secrets-{os.getpid()}"

    def write(name: str, text: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        written.append(folder / name)
        written[-1].write_text(text)
        return written[-1]

    yield write
    for file in written:
        file.unlink()
    folder.rmdir()


# ------------------------------------------------------------------ advisories


@contextmanager
def source(answer: Callable[[list[dict[str, Any]]], Any]) -> Iterator[str]:
    """A server of advisories that gives this answer to these queries."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer(asked["queries"])).encode())

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/querybatch"
        server.shutdown()


def results(*, bad: set[str]) -> Callable[[list[dict[str, Any]]], Any]:
    def answer(queries: list[dict[str, Any]]) -> Any:
        def of(query: dict[str, Any]) -> dict[str, Any]:
            name = f"{query['package']['name']}=={query['version']}"
            return {"vulns": [{"id": "GHSA-0"}]} if name in bad else {}

        return {"results": [of(query) for query in queries]}

    return answer


CANARY = "jinja2==2.4.1"


def test_a_source_without_an_advisory_is_green():
    with source(results(bad={CANARY})) as url:
        assert release_check("advisories", "--source", url)[0] == 0


def test_an_advisory_is_red_and_named():
    pinned = re.search(r"^cryptography==\S+", (ROOT / "deploy/constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    with source(results(bad={CANARY, pinned.group()})) as url:
        code, said = release_check("advisories", "--source", url)
    assert (code, f"{pinned.group()}: GHSA-0" in said) == (1, True)


@pytest.mark.parametrize("answer", [results(bad=set()), lambda queries: {"results": []}, lambda queries: []])
def test_a_source_that_knows_nothing_is_no_all_clear(answer):
    with source(answer) as url:
        code, said = release_check("advisories", "--source", url)
    assert (code, said.startswith("NOT AUDITED")) == (3, True)


def test_no_source_is_neither_green_nor_red():
    code, said = release_check("advisories", "--source", "http://127.0.0.1:1/v1/querybatch")
    assert (code, said.startswith("NOT AUDITED")) == (3, True)

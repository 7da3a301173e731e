"""federation.yaml: every mistake is said, each with its path."""

from __future__ import annotations

import pytest

from fedbus.errors import SettingsError
from fedbus.provision.federation_file import FederationFile

WHOLE = "federation: hearts\nbroker: {host: broker.example.org}\n"


def test_the_smallest_file_has_one_submitter_and_no_site() -> None:
    found = FederationFile.parse(WHOLE, where="f.yaml")
    assert (found.submitters, found.sites, found.broker.port) == (("submitter",), (), 5671)


def test_a_broker_of_several_nodes_names_them_all() -> None:
    also = "[two.example.org, 'one.example.org:5673']"
    text = f"federation: hearts\nbroker: {{host: one.example.org, port: 5672, also: {also}}}\n"
    broker = FederationFile.parse(text, where="f.yaml").broker
    assert broker.address == "one.example.org:5672,two.example.org:5672,one.example.org:5673"
    assert broker.hosts == ("one.example.org", "two.example.org")


def test_every_mistake_is_said_with_its_path() -> None:
    text = """
federation: Hearts!
broker: {host: "http://x", port: 99999, version: 3.10, folder: here, ports: 3}
submitters: [x, a]
sites: [A, a, submitter, 3, broker, b, b]
site: [q]
"""
    with pytest.raises(SettingsError) as caught:
        FederationFile.parse(text, where="f.yaml")
    said = str(caught.value).splitlines()
    expected = [
        "federation",
        *(f"broker.{key}" for key in ("host", "port", "version", "folder", "ports")),
        *(f"sites.{index}" for index in (0, 1, 2, 3, 4, 6)),
        "site",
    ]
    assert sorted(line.split(": ")[1] for line in said) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "expected a mapping"),
        ("[1]", "expected a mapping"),
        ("a: [", "no valid YAML"),
        (f"{WHOLE}federation: lungs\n", "given twice"),
        ("federation: hearts\n", "broker: is required"),
        ("federation: hearts\nbroker: {host: '-x'}\n", "no host name"),
        ("federation: hearts\nbroker: {host: b, also: ['-x']}\n", "no host name"),
        ("federation: hearts\nbroker: {host: b, also: ['c:x']}\n", "no port"),
        ("federation: hearts\nbroker: {host: b, also: [b]}\n", "b:5671 stands there twice"),
        ("federation: hearts\nbroker: {host: b, folder: '/a\"b'}\n", "absolute path"),
        (f"{WHOLE}sites: [{', '.join(f's{n}' for n in range(700))}]\n", "at most 640"),
        (f"{WHOLE}sites: mercy\n", "expected a list"),
    ],
)
def test_what_is_no_federation_is_refused(text: str, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        FederationFile.parse(text, where="f.yaml")


def test_a_file_that_cannot_be_read_is_said(tmp_path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        FederationFile.load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"federation: \xff")
    with pytest.raises(SettingsError, match="UTF-8"):
        FederationFile.load(tmp_path / "latin.yaml")

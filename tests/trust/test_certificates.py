"""Certificates, requests and the CA as values; openssl is the second opinion."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from fedbus.errors import TrustError
from fedbus.trust.authority import Authority, list_file
from fedbus.trust.certificates import (
    certificate_der,
    certificate_pem,
    check_dates,
    fingerprint,
    key_pem,
    new_key,
    public_key,
    read_certificate,
    read_key,
    read_request,
    request_pem,
    subject_of,
)
from fedbus.trust.subjects import Role, Subject
from tests.small_federation import subject

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    "whom",
    [
        subject("site-a", number=17),
        subject("aggregator", Role.AGGREGATOR),
        subject("alice", Role.SUBMITTER),
        subject("broker", Role.BROKER),
    ],
)
def test_a_certificate_names_the_subject_it_was_issued_for(authority: Authority, whom: Subject) -> None:
    certificate = authority.issue(new_key().public_key(), whom, at=NOW)
    assert subject_of(read_certificate(certificate_der(certificate))) == whom


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"name": "Site A"}, "1 to 40"),
        ({"federation": ""}, "1 to 40"),
        ({"number": None}, "sites have one"),
        ({"number": -1}, "expected 0"),
        ({"role": Role.SUBMITTER}, "nobody else has"),
    ],
)
def test_a_subject_that_is_none_cannot_be_built(values: dict[str, object], word: str) -> None:
    whole: dict[str, object] = {"federation": "hearts", "name": "site-a", "role": Role.SITE, "number": 3}
    with pytest.raises(ValueError, match=word):
        Subject(**(whole | values))  # type: ignore[arg-type]


@pytest.mark.parametrize("extra", [(NameOID.COMMON_NAME, "site-b"), (NameOID.LOCALITY_NAME, "here")])
def test_a_name_with_more_in_it_is_refused(authority: Authority, extra: tuple[x509.ObjectIdentifier, str]) -> None:
    name = x509.Name([*authority.certificate.subject, x509.NameAttribute(*extra)])
    with pytest.raises(TrustError):
        subject_of(_self_signed(name))


@pytest.mark.parametrize("number", ["07", "-1", "1e1", "٣", "99999999999"])
def test_a_number_that_is_written_oddly_is_refused(number: str) -> None:
    values = {
        NameOID.ORGANIZATION_NAME: "hearts",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "site",
        NameOID.COMMON_NAME: "site-a",
        NameOID.SERIAL_NUMBER: number,
    }
    name = x509.Name([x509.NameAttribute(oid, value, _ASN1Type.UTF8String) for oid, value in values.items()])
    with pytest.raises(TrustError, match="does not name"):
        subject_of(_self_signed(name))


def test_the_name_of_a_list_is_the_one_that_openssl_gives(tmp_path: Path) -> None:
    for generation in (1, 2):
        authority = Authority.new("Hearts-9".lower(), generation=generation, at=NOW)
        (tmp_path / "ca.pem").write_bytes(certificate_pem(authority.certificate))
        said = _openssl("x509", "-hash", "-noout", "-in", str(tmp_path / "ca.pem"))
        assert list_file(authority.certificate) == f"{said.strip()}.r0"


def test_a_request_by_openssl_reads_like_our_own(tmp_path: Path) -> None:
    key, csr = tmp_path / "key.pem", tmp_path / "site-a.csr"
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key))
    _openssl("req", "-new", "-key", str(key), "-subj", "/OU=site/CN=site-a", "-out", str(csr))
    name, role, public = read_request(csr.read_bytes())
    assert (name, role) == ("site-a", Role.SITE)
    assert fingerprint(public) == fingerprint(read_key(key.read_bytes()).public_key())
    own = read_request(request_pem(read_key(key.read_bytes()), name="site-a", role=Role.SITE))
    assert own[:2] == (name, role)


def test_a_request_that_was_changed_on_its_way_is_refused() -> None:
    pem = request_pem(new_key(), name="site-a", role=Role.SITE)
    with pytest.raises(TrustError):
        read_request(pem.replace(b"MIH", b"MIG", 1))
    with pytest.raises(TrustError, match="no certificate request"):
        read_request(b"hello")


def test_only_p256_keys_without_a_password_are_read(tmp_path: Path) -> None:
    assert key_pem(read_key(key_pem(key := new_key()))) == key_pem(key)
    path = tmp_path / "key.pem"
    _openssl("genpkey", "-algorithm", "ed25519", "-out", str(path))
    with pytest.raises(TrustError, match="P-256"):
        read_key(path.read_bytes())
    _openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x", "-out", str(path))
    with pytest.raises(TrustError, match="password"):
        read_key(path.read_bytes())


def test_dates_are_said_in_words(authority: Authority) -> None:
    certificate = authority.issue(new_key().public_key(), subject(), at=NOW)
    check_dates(certificate, NOW)
    with pytest.raises(TrustError, match="expired on"):
        check_dates(certificate, NOW + timedelta(days=31))
    with pytest.raises(TrustError, match="not valid before"):
        check_dates(certificate, NOW - timedelta(hours=1))


def test_the_key_of_a_ca_must_fit_its_certificate(authority: Authority) -> None:
    again = Authority.read(certificate_pem(authority.certificate), key_pem(authority.key))
    assert again.federation == "hearts"
    assert public_key(again.certificate) == authority.key.public_key()
    with pytest.raises(TrustError, match="does not fit"):
        Authority.read(certificate_pem(authority.certificate), key_pem(new_key()))
    assert "PRIVATE" not in repr(authority)


def _self_signed(name: x509.Name) -> x509.Certificate:
    key = new_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def _openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout

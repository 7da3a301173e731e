"""A kit is checked whole before anything connects; a verifier believes our CA, minus what is revoked."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedbus.errors import TrustError
from fedbus.trust.authority import Authority, Revoked
from fedbus.trust.certificates import certificate_der, certificate_pem, key_pem, new_key, read_certificate
from fedbus.trust.identity import Identity, Verifier
from fedbus.trust.subjects import Role
from tests.small_federation import subject, write_kit

NOW = datetime.now(UTC)


def test_a_kit_says_who_it_is_and_shows_no_key(kit: Path) -> None:
    identity = Identity.load(kit)
    assert (identity.name, identity.role, identity.number, identity.federation) == ("site-a", Role.SITE, 0, "hearts")
    assert identity.fingerprint.count("-") == 3
    assert "key" not in repr(identity).replace("key.pem", "")


def _other_key(kit: Path) -> None:
    (kit / "key.pem").write_bytes(key_pem(new_key()))


def _other_authority(kit: Path) -> None:
    (kit / "ca.pem").write_bytes(certificate_pem(Authority.new("hearts", at=NOW).certificate))


def _long(kit: Path) -> None:
    (kit / "cert.pem").write_bytes(b"x" * 100_000)


WRONG: list[tuple[Callable[[Path], object], str]] = [
    (lambda kit: (kit / "key.pem").unlink(), "key.pem is missing"),
    (lambda kit: (kit / "cert.pem").unlink(), "cert.pem is missing"),
    (lambda kit: (kit / "ca.pem").unlink(), "ca.pem is missing"),
    (lambda kit: (kit / "key.pem").chmod(0o640), "chmod 600"),
    (lambda kit: (kit / "key.pem").write_bytes(b""), "no private key"),
    (lambda kit: (kit / "cert.pem").write_text("hello"), "no certificate"),
    (_long, "larger than"),
    (_other_key, "does not fit"),
    (_other_authority, "is not of the CA"),
]


@pytest.mark.parametrize(("harm", "word"), WRONG)
def test_a_kit_with_something_wrong_is_refused_in_words(kit: Path, harm: Callable[[Path], object], word: str) -> None:
    harm(kit)
    with pytest.raises(TrustError, match=word):
        Identity.load(kit)


def test_a_kit_is_refused_out_of_time_and_for_another_role(kit: Path) -> None:
    with pytest.raises(TrustError, match="expired"):
        Identity.load(kit, at=NOW + timedelta(days=31))
    with pytest.raises(TrustError, match="not valid before"):
        Identity.load(kit, at=NOW - timedelta(days=1))
    with pytest.raises(TrustError, match="expected that of the role aggregator"):
        Identity.load(kit, role=Role.AGGREGATOR)


def test_tls_trusts_our_ca_alone_and_checks_the_host(kit: Path) -> None:
    context = Identity.load(kit).ssl_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1


def test_a_signature_names_its_signer(kit: Path) -> None:
    identity = Identity.load(kit)
    signature = identity.sign(b"statement")
    assert identity.verifier().check(identity.certificate, b"statement", signature) == identity.subject
    for statement, given in ((b"statement2", signature), (b"statement", signature[:-1]), (b"statement", b"x" * 5000)):
        with pytest.raises(TrustError, match="does not fit"):
            identity.verifier().check(identity.certificate, statement, given)


def test_a_verifier_refuses_whom_our_ca_has_not_named(authority: Authority, kit: Path) -> None:
    verifier = Verifier("hearts", [authority.certificate])
    mine = Identity.load(kit).certificate
    assert verifier.verify(mine).name == "site-a"
    rogue = Authority.new("hearts", at=NOW).issue(new_key().public_key(), subject(), at=NOW)
    for certificate, word in (
        (certificate_der(rogue), "not issued by"),
        (certificate_der(authority.certificate), "does not name|no participant|names more"),
        (b"", "no certificate"),
        (b"x" * 10_000, "10,000 bytes"),
        (mine[:-1] + bytes([mine[-1] ^ 1]), "not issued by"),
    ):
        with pytest.raises(TrustError, match=word):
            verifier.verify(certificate)
    with pytest.raises(TrustError, match="expected that of the role submitter"):
        verifier.verify(mine, role=Role.SUBMITTER)
    with pytest.raises(TrustError, match="expected one of federation lungs"):
        Verifier("lungs", [authority.certificate]).verify(mine)


def test_dates_count_only_where_a_time_is_given(authority: Authority, kit: Path) -> None:
    verifier, mine = Verifier("hearts", [authority.certificate]), Identity.load(kit).certificate
    with pytest.raises(TrustError, match="expired"):
        verifier.verify(mine, at=NOW + timedelta(days=40))
    assert verifier.verify(mine).name == "site-a"


def test_a_revoked_certificate_is_refused_and_the_next_of_the_same_name_is_not(authority: Authority, kit: Path) -> None:
    old = Identity.load(kit).certificate
    new = certificate_der(authority.issue(new_key().public_key(), subject(), at=NOW))
    revoked = [Revoked(serial=read_certificate(old).serial_number, since=NOW)]
    (kit / "crl.pem").write_bytes(authority.revocation_list(revoked, number=2, at=NOW))
    verifier = Verifier.load(kit, federation="hearts")
    with pytest.raises(TrustError, match="revoked"):
        verifier.verify(old)
    assert verifier.verify(new).name == "site-a"
    assert verifier.lists_end == NOW.replace(microsecond=0) + timedelta(days=30)


def test_a_list_of_another_ca_or_of_no_list_is_refused(kit: Path) -> None:
    for content in (Authority.new("hearts", at=NOW).revocation_list([], number=1, at=NOW), b"", b"hello"):
        (kit / "crl.pem").write_bytes(content)
        with pytest.raises(TrustError, match="revocation list"):
            Verifier.load(kit, federation="hearts")


def test_old_and_new_ca_are_both_believed_while_the_ca_rotates(authority: Authority, tmp_path: Path) -> None:
    second = Authority.new("hearts", generation=2, at=NOW)
    write_kit(tmp_path / "old", authority, subject())
    write_kit(tmp_path / "new", second, subject())
    both = certificate_pem(authority.certificate) + certificate_pem(second.certificate)
    lists = b"".join(each.revocation_list([], number=1, at=NOW) for each in (authority, second))
    for kit in (tmp_path / "old", tmp_path / "new"):
        (kit / "ca.pem").write_bytes(both)
        (kit / "crl.pem").write_bytes(lists)
        identity = Identity.load(kit)
        assert identity.verifier().verify(identity.certificate) == subject()

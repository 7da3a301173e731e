"""Whatever comes as a certificate, request, key, list or packed kit is read or refused: TrustError, nothing else."""

from __future__ import annotations

import base64
import contextlib
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from fedbus.errors import TrustError
from fedbus.provision.packing import packed, unpacked
from fedbus.trust.authority import Authority
from fedbus.trust.certificates import (
    certificate_der,
    key_pem,
    new_key,
    read_certificate,
    read_certificates,
    read_key,
    read_request,
    request_pem,
    subject_of,
)
from fedbus.trust.foreign import issuer_name
from fedbus.trust.identity import Verifier, read_lists
from fedbus.trust.subjects import Role
from tests.small_federation import subject

NOW = datetime.now(UTC)
AUTHORITY = Authority.new("hearts", at=NOW)
LEAF = certificate_der(AUTHORITY.issue(new_key().public_key(), subject(), at=NOW))
VERIFIER = Verifier("hearts", [AUTHORITY.certificate])
BYTES = (0, 1, 2, 3, 5, 0x1F, 0x7F, 0x80, 0xFF)


def changed(whole: bytes) -> Iterator[bytes]:
    """Each byte replaced by some others, and the whole cut at each place."""
    for place, byte in enumerate(whole):
        yield whole[:place]
        yield from (whole[:place] + bytes([other]) + whole[place + 1 :] for other in BYTES if other != byte)


def pem(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


def der_of(text: bytes) -> bytes:
    return base64.b64decode(b"".join(line for line in text.splitlines() if not line.startswith(b"-----")))


LIST, KEY = AUTHORITY.revocation_list([], number=1, at=NOW), key_pem(new_key())
REQUEST = request_pem(new_key(), name="mercy", role=Role.SITE)
READERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "certificate": (LEAF, lambda der: subject_of(read_certificate(der))),
    "certificates": (LEAF, lambda der: read_certificates(pem("CERTIFICATE", der), what="x")),
    "request": (der_of(REQUEST), lambda der: read_request(pem("CERTIFICATE REQUEST", der))),
    "key": (der_of(KEY), lambda der: read_key(pem("PRIVATE KEY", der))),
    "lists": (der_of(LIST), lambda der: read_lists(pem("X509 CRL", der), Path("crl.pem"))),
}


@pytest.mark.parametrize("what", READERS)
def test_what_was_changed_is_read_or_refused(what: str) -> None:
    whole, read = READERS[what]
    refused = 0
    with warnings.catch_warnings(action="ignore"):
        for each in changed(whole):
            try:
                read(each)
            except TrustError:
                refused += 1
    assert refused


def test_a_certificate_is_believed_only_with_every_signed_byte_as_it_was() -> None:
    # the signature itself stands in a bit string, which may be written in more than one way
    signed = read_certificate(LEAF).tbs_certificate_bytes
    with warnings.catch_warnings(action="ignore"):
        for each in changed(LEAF):
            with contextlib.suppress(TrustError):
                assert VERIFIER.verify(each) == subject()
                assert read_certificate(each).tbs_certificate_bytes == signed
    assert VERIFIER.verify(LEAF) == subject()


def test_the_issuer_of_a_foreign_certificate_is_named_or_not() -> None:
    with warnings.catch_warnings(action="ignore"):
        assert {type(issuer_name(each)) for each in changed(LEAF)} == {str, type(None)}


def test_a_packed_kit_with_any_byte_changed_is_whole_or_refused(tmp_path: Path) -> None:
    content = {"ca.pem": b"y" * 40, "cert.pem": b"x" * 40}
    path = tmp_path / "kit.zip"
    for each in islice(changed(packed(content)), 0, None, 3):
        path.write_bytes(each)
        with contextlib.suppress(TrustError):
            assert unpacked(path) == content

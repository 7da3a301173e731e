"""Params on their way to a submitter: only who asked opens them, each part in its place."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.errors import SealError
from fedbus.trust.sealed_params import SealedParts
from fedbus.trust.sealing import SealKeys
from fedbus.trust.suites import SUITES, X25519

ANA = SealKeys.make()
SIZE: dict[str, Any] = {"size_bytes": 25, "part_bytes": 10}
FETCH: dict[str, Any] = {"federation": "hearts", "login": "ana", "of": "0a"} | SIZE


@pytest.mark.parametrize("suite", SUITES.values())
def test_who_asked_opens_every_part(suite: int) -> None:
    ours, text = SealedParts.begun(ANA.public[suite], **FETCH)
    theirs = SealedParts.offered(text, ANA, **FETCH)
    for offset, part in ((0, b"0123456789"), (10, b"abcdefghij"), (20, b"vwxyz")):
        headers, body = ours.seal(part, offset)
        assert part not in body
        assert theirs.open(headers, body, offset) == part


@pytest.mark.parametrize("other", [{"federation": "lungs"}, {"login": "eve"}, {"of": "0b"}])
def test_the_key_is_for_one_fetch_of_one_login(other: dict[str, str]) -> None:
    _, text = SealedParts.begun(ANA.public[X25519], **FETCH)
    with pytest.raises(SealError, match="does not open"):
        SealedParts.offered(text, ANA, **FETCH | other)
    with pytest.raises(SealError, match="is not ours"):
        SealedParts.offered(text, SealKeys.make(), **FETCH)


def test_a_part_elsewhere_changed_or_not_sealed_is_refused() -> None:
    ours, text = SealedParts.begun(ANA.public[X25519], **FETCH)
    theirs = SealedParts.offered(text, ANA, **FETCH)
    headers, body = ours.seal(b"0123456789", 0)
    for changed in (lambda: theirs.open(headers, body, 10), lambda: theirs.open(headers, body[:-1] + b"x", 0)):
        with pytest.raises(SealError, match="does not open"):
            changed()
    for salt in (None, 7, "x" * 99, "AAAA"):
        with pytest.raises(SealError):
            theirs.open({"salt": salt}, body, 0)


def test_an_offer_without_a_key_is_refused() -> None:
    with pytest.raises(SealError):
        SealedParts.offered("", ANA, **FETCH)

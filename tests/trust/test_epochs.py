"""Epoch keys: what opens, what does not, and that a part written again is never sealed under the same key."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.errors import SealError
from fedbus.trust.epochs import EpochKey, LogKeys, PartSeal, open_keys, seal_keys
from fedbus.trust.sealing import SealKeys
from fedbus.trust.suites import MLKEM768_X25519, SUITES, X25519

FIRST, SECOND = EpochKey.make(0), EpochKey.make(1)
SITE = SealKeys.make()
WHERE = {"federation": "hearts", "job": "heart", "site": "mercy"}
PLACE: dict[str, Any] = {"part": "delta", "version": 4, "index": 0, "count": 2}


def sealed(epoch: EpochKey = FIRST) -> tuple[dict[str, str | int], bytes]:
    seal = PartSeal(epoch, job="heart", version=4, part="delta")
    return dict(seal.headers), seal.seal(b"frame", 0, 2)


def test_a_record_opens_with_the_key_of_its_epoch() -> None:
    headers, body = sealed()
    assert b"frame" not in body
    assert LogKeys("heart", [SECOND, FIRST]).open(headers, body, **PLACE) == b"frame"


@pytest.mark.parametrize(
    "other",
    [{"part": "snapshot"}, {"version": 5}, {"index": 1}, {"count": 1}, {"count": 3}],
    ids=lambda other: next(iter(other.items())),
)
def test_a_record_in_another_place_does_not_open(other: dict[str, Any]) -> None:
    with pytest.raises(SealError, match="does not open"):
        LogKeys("heart", [FIRST]).open(*sealed(), **PLACE | other)


def test_a_record_of_another_job_or_of_another_key_does_not_open() -> None:
    for keys in (LogKeys("lung", [FIRST]), LogKeys("heart", [EpochKey.make(0)])):
        with pytest.raises(SealError, match="does not open"):
            keys.open(*sealed(), **PLACE)


def test_a_record_of_an_epoch_whose_key_is_not_here_says_so() -> None:
    with pytest.raises(SealError, match="no key of epoch 1 of job heart is here; held: 0 to 0"):
        LogKeys("heart", [FIRST]).open(*sealed(SECOND), **PLACE)


def test_a_record_cannot_be_moved_to_another_epoch() -> None:
    headers, body = sealed()
    with pytest.raises(SealError, match="does not open"):
        LogKeys("heart", [FIRST, SECOND]).open(headers | {"epoch": 1}, body, **PLACE)


def test_the_same_part_again_is_sealed_with_another_salt() -> None:
    (first, body), (second, again) = sealed(), sealed()
    assert first["salt"] != second["salt"]
    assert body != again
    with pytest.raises(SealError, match="does not open"):
        LogKeys("heart", [FIRST]).open(first, again, **PLACE)


HEADER = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=60), st.binary(max_size=9))


@given(st.fixed_dictionaries({}, optional={"epoch": HEADER, "salt": HEADER}), st.binary(max_size=64))
def test_whatever_comes_is_opened_or_refused(headers: dict[str, Any], body: bytes) -> None:
    with pytest.raises(SealError):
        LogKeys("heart", [FIRST]).open(headers, body, **PLACE)


def test_a_number_never_gets_another_key() -> None:
    keys = LogKeys("heart", [FIRST])
    assert not keys.add([EpochKey.make(0)])
    assert keys.add([FIRST, SECOND])
    assert keys.keys == (FIRST, SECOND)


@pytest.mark.parametrize("suite", SUITES.values())
def test_a_site_opens_the_keys_that_it_is_given(suite: int) -> None:
    text = seal_keys([SECOND, FIRST], SITE.public[suite], **WHERE)
    assert open_keys(text, SITE, **WHERE) == (FIRST, SECOND)


@pytest.mark.parametrize("other", [{"federation": "lungs"}, {"job": "heart-2"}, {"site": "va"}])
def test_keys_for_somebody_else_do_not_open(other: dict[str, str]) -> None:
    text = seal_keys([FIRST], SITE.public[X25519], **WHERE)
    with pytest.raises(SealError, match="does not open"):
        open_keys(text, SITE, **WHERE | other)
    with pytest.raises(SealError, match="is not ours"):
        open_keys(text, SealKeys.make(), **WHERE)


def test_no_more_keys_are_given_than_a_message_takes() -> None:
    many = [EpochKey(number=n, key=bytes(32)) for n in range(300)]
    opened = open_keys(seal_keys(many, SITE.public[MLKEM768_X25519], **WHERE), SITE, **WHERE)
    assert [key.number for key in opened] == list(range(44, 300))


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80).map(lambda raw: base64.b64encode(raw).decode())))
def test_what_is_no_list_of_keys_is_refused(text: str) -> None:
    with pytest.raises(SealError):
        open_keys(text, SITE, **WHERE)


def test_a_sealed_text_that_is_no_list_of_keys_is_refused() -> None:
    from fedbus.trust.epochs import _info

    raw = SITE.public[X25519].seal(b"x" * 37, _info(**WHERE))
    with pytest.raises(SealError, match="no list"):
        open_keys(base64.b64encode(raw).decode(), SITE, **WHERE)


def test_no_key_is_in_a_repr() -> None:
    assert FIRST.key.hex() not in repr(FIRST)
    assert repr(FIRST.key) not in repr(FIRST)

"""The chain of versions: which numbers go into it, and that messages without it are those of earlier releases."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.chain import chain_of
from fedbus.errors import DecodeError

DELTA = m.Part(frames=1, body_bytes=2, sha256="ab" * 32)
WHOLE = m.Part(frames=3, body_bytes=9, sha256="cd" * 32)
LINK: dict[str, Any] = {"job": "heart", "version": 4, "digest": "d", "delta": DELTA, "snapshot": WHOLE}


def test_the_chain_is_the_hash_of_what_stands_here() -> None:
    text = f'["fedbus model log 1","{"0f" * 32}","heart",4,"d","{"ab" * 32}"]'
    assert chain_of("0f" * 32, **LINK) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "other",
    [{"job": "lung"}, {"version": 5}, {"digest": "e"}, {"delta": WHOLE}, {"delta": None}],
    ids=lambda other: next(iter(other)),
)
def test_whatever_differs_makes_another_chain(other: dict[str, Any]) -> None:
    assert chain_of("", **LINK | other) != chain_of("", **LINK) != chain_of("0f" * 32, **LINK)


def test_a_snapshot_that_comes_later_is_not_in_the_chain() -> None:
    assert chain_of("", **LINK | {"snapshot": None}) == chain_of("", **LINK)


def manifest(**keys: Any) -> m.VersionManifest:
    return m.VersionManifest(
        **{"job": "heart", "version": 4, "digest": "d", "delta": DELTA, "snapshot": None}
        | {"snapshot_version": 0, "snapshot_at": 0.0}
        | keys
    )


def test_a_manifest_brings_its_hashes_and_its_chain() -> None:
    sent = manifest(chain="0f" * 32)
    encoded = wire.encode(sent)
    assert wire.decode(encoded.type, encoded.headers, encoded.body) == sent


@pytest.mark.parametrize("chain", ["0f" * 31, "0F" * 32, "0f" * 32 + "\n"])
def test_what_is_no_hash_is_refused(chain: str) -> None:
    body = wire.encode(manifest(chain="0f" * 32)).body.replace(b"0f" * 32, chain.replace("\n", "\\n").encode())
    with pytest.raises(DecodeError, match="64 hex digits"):
        wire.decode("version", {"schema": wire.SCHEMA}, body)

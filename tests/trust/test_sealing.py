from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from fedbus.errors import SealError, TrustError
from fedbus.trust import suites
from fedbus.trust.sealing import NUMBERS, ChunkSeal, PrivateKey, PublicKey, SealKeys, announced, derived_key, framed

KEYS = SealKeys.make()
INFO = framed("fedbus/test/1", "hearts")
KEY = bytes(range(32))
# RFC 9180, A.1.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode, first encryption.
RFC_PRIVATE = bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
RFC_ENC = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
RFC_INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
RFC_CIPHERTEXT = bytes.fromhex(
    "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
)
RFC_PLAINTEXT = b"Beauty is truth, truth beauty"


def hpke_open(private: bytes, enc: bytes, ciphertext: bytes, info: bytes, *, aead: int, aad: bytes = b"") -> bytes:
    """RFC 9180 in base mode, written from the paper: what `sealing` is compared with."""

    def extract(salt: bytes, label: bytes, ikm: bytes, suite: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(prk: bytes, label: bytes, info: bytes, length: int, suite: bytes) -> bytes:
        said = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
        return hmac.digest(prk, said + b"\x01", "sha256")[:length]

    key = X25519PrivateKey.from_private_bytes(private)
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01" + aead.to_bytes(2, "big")
    shared = key.exchange(X25519PublicKey.from_public_bytes(enc))
    context = enc + key.public_key().public_bytes_raw()
    secret = expand(extract(b"", b"eae_prk", shared, kem), b"shared_secret", context, 32, kem)
    hashed = extract(b"", b"psk_id_hash", b"", suite) + extract(b"", b"info_hash", info, suite)
    scheduled = extract(secret, b"secret", b"", suite)
    box = AESGCM(expand(scheduled, b"key", b"\x00" + hashed, 16 * aead, suite))
    return box.decrypt(expand(scheduled, b"base_nonce", b"\x00" + hashed, 12, suite), ciphertext, aad)


def test_the_comparison_reads_the_vector_of_the_rfc() -> None:
    opened = hpke_open(RFC_PRIVATE, RFC_ENC, RFC_CIPHERTEXT, RFC_INFO, aead=1, aad=b"Count-0")
    assert opened == RFC_PLAINTEXT


def test_what_is_sealed_is_hpke_of_the_rfc() -> None:
    sealed = PrivateKey(suites.X25519, RFC_PRIVATE).public.seal(RFC_PLAINTEXT, RFC_INFO)

    assert hpke_open(RFC_PRIVATE, sealed[9:41], sealed[41:], RFC_INFO, aead=2) == RFC_PLAINTEXT


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), "00000001" "64"),
        (("job-1", 2), "00000001" "64" "00000005" "6a6f622d31" "00000008" "0000000000000002"),
        ((b"", "é"), "00000001" "64" "00000000" "00000002" "c3a9"),
    ],
)  # fmt: skip
def test_framed_bytes(parts: tuple[str | bytes | int, ...], expected: str) -> None:
    assert framed("d", *parts).hex() == expected


def test_frames_that_read_alike_differ() -> None:
    assert framed("d", "job-1", "2") != framed("d", "job-12", "") != framed("d", "job-12")


def test_chunk_bytes() -> None:
    """Nonce: 7 zero bytes, index, last. Associated data: domain, about, index, count."""
    seal = ChunkSeal(KEY, b"about")
    associated = framed("fedbus/chunk/1", b"about", 1, 2)

    assert seal.seal(b"second", 1, 2) == AESGCM(KEY).encrypt(bytes(7) + b"\0\0\0\1\1", b"second", associated)
    assert seal.seal(b"first", 0, 2).hex() == "68d5c7adc15a15ae646bb339c1b12288ec0bab8e0a"


def test_key_ids_are_of_the_public_key() -> None:
    key = PrivateKey(suites.X25519, RFC_PRIVATE).public

    assert key.public.hex() == "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"
    assert key.id == hashlib.sha256(framed("fedbus/seal-key/1", 1, key.public)).digest()[:8]


@pytest.mark.parametrize("suite", NUMBERS)
def test_only_the_holder_opens(suite: int) -> None:
    sealed = KEYS.public[suite].seal(b"secret", INFO)

    assert KEYS.open(sealed, INFO) == b"secret"
    with pytest.raises(SealError, match="not ours"):
        SealKeys.make().open(sealed, INFO)


@pytest.mark.parametrize("suite", NUMBERS)
def test_sealed_texts_are_longer_by_what_the_table_says(suite: int) -> None:
    assert len(KEYS.public[suite].seal(b"", INFO)) == {1: 57, 2: 1145}[suite]


@pytest.mark.parametrize("suite", NUMBERS)
@pytest.mark.parametrize("at", [0, 3, 12, -20, -1])
def test_a_changed_sealed_text_is_refused(suite: int, at: int) -> None:
    sealed = bytearray(KEYS.public[suite].seal(b"secret", INFO))
    sealed[at] ^= 1

    with pytest.raises(SealError):
        KEYS.open(bytes(sealed), INFO)


@pytest.mark.parametrize("suite", NUMBERS)
def test_what_was_sealed_for_something_else_is_refused(suite: int) -> None:
    with pytest.raises(SealError, match="does not open"):
        KEYS.open(KEYS.public[suite].seal(b"secret", INFO), framed("fedbus/test/1", "lungs"))


@pytest.mark.parametrize(
    ("index", "count", "sealed_index"),
    [(1, 4, 0), (0, 3, 0), (3, 4, 2), (2, 3, 2), (4, 4, 3), (-1, 4, 3), (0, 2**32, 0)],
)
def test_chunks_swapped_or_cut_are_refused(index: int, count: int, sealed_index: int) -> None:
    seal = ChunkSeal(KEY, b"about")

    with pytest.raises(SealError):
        seal.open(seal.seal(b"chunk", sealed_index, 4), index, count)


def test_chunks_of_another_transfer_or_changed_are_refused() -> None:
    sealed = ChunkSeal(KEY, b"about").seal(b"chunk", 0, 1)

    with pytest.raises(SealError):
        ChunkSeal(KEY, b"another").open(sealed, 0, 1)
    with pytest.raises(SealError):
        ChunkSeal(bytes(32), b"about").open(sealed, 0, 1)
    with pytest.raises(SealError):
        ChunkSeal(KEY, b"about").open(sealed[:-1] + bytes([sealed[-1] ^ 1]), 0, 1)
    with pytest.raises(SealError):
        ChunkSeal(KEY, b"about").open(b"", 0, 1)


def test_the_same_chunk_sealed_again_is_the_same_bytes() -> None:
    assert ChunkSeal(KEY, b"about").seal(b"chunk", 0, 1) == ChunkSeal(KEY, b"about").seal(b"chunk", 0, 1)


def test_a_derived_key_is_that_of_rfc_5869() -> None:
    """Test case 1 of its appendix, as far as 32 bytes go."""
    okm = derived_key(b"\x0b" * 22, bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), salt=bytes(range(13)))

    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"


def test_keys_are_kept_in_a_file_of_their_owner(tmp_path: Path) -> None:
    made = SealKeys.load_or_make(tmp_path / "seal.key")

    assert (tmp_path / "seal.key").stat().st_mode & 0o777 == 0o600
    assert SealKeys.load_or_make(tmp_path / "seal.key").public == made.public
    assert [path.name for path in tmp_path.iterdir()] == ["seal.key"]


def test_a_key_that_a_newer_one_has_replaced_still_opens() -> None:
    old, new = PrivateKey.make(1), PrivateKey.make(1)
    keys = SealKeys([old, new])

    assert keys.public == {1: new.public}
    assert keys.open(old.public.seal(b"waited", INFO), INFO) == b"waited"


def test_a_key_file_that_others_read_is_refused(tmp_path: Path) -> None:
    SealKeys.load_or_make(tmp_path / "seal.key")
    (tmp_path / "seal.key").chmod(0o640)

    with pytest.raises(TrustError, match="chmod 600"):
        SealKeys.load_or_make(tmp_path / "seal.key")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[1]", b'[{"suite": 1, "private": "SECRET"}]', b"[" * 5000])
def test_a_damaged_key_file_is_refused_without_a_word_of_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "seal.key").write_bytes(content)
    (tmp_path / "seal.key").chmod(0o600)

    with pytest.raises(TrustError, match="is damaged") as refused:
        SealKeys.load_or_make(tmp_path / "seal.key")
    assert "SECRET" not in repr(refused.value)


def test_no_key_stands_in_a_repr() -> None:
    private = PrivateKey(1, RFC_PRIVATE)

    assert all(RFC_PRIVATE.hex() not in each and repr(RFC_PRIVATE) not in each for each in (repr(private), repr(KEYS)))


@pytest.mark.parametrize("suite", NUMBERS)
def test_announced_keys_come_back(suite: int) -> None:
    assert announced(KEYS.texts(), suite) == KEYS.public[suite]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "got keys of suites: none"),
        ({"1": "AAAA"}, "expected 32 bytes"),
        ({"1": "no base64"}, "base64"),
        ({"1": "A" * 9999}, "no key"),
    ],
)
def test_announced_keys_that_are_none_are_refused(keys: dict[str, str], words: str) -> None:
    with pytest.raises(SealError, match=words):
        announced(keys, 1)


def test_nothing_is_sealed_to_a_key_that_gives_no_secret() -> None:
    with pytest.raises(SealError):
        PublicKey(1, bytes(32)).seal(b"secret", INFO)
    with pytest.raises(SealError):
        PublicKey(2, b"\xff" * 1184 + bytes(32)).seal(b"secret", INFO)


@given(st.binary(max_size=200) | st.binary(min_size=1120, max_size=1200))
def test_whatever_is_opened_it_is_refused_in_one_way(data: bytes) -> None:
    for head in (b"", *(bytes([key.suite]) + key.id for key in KEYS.public.values())):
        with pytest.raises(SealError):
            KEYS.open(head + data, INFO)


@given(st.dictionaries(st.sampled_from(["1", "2"]) | st.text(), st.text()), st.integers())
def test_whatever_is_announced_it_is_refused_in_one_way(keys: dict[str, str], suite: int) -> None:
    with pytest.raises(SealError):
        announced(keys, suite)


@given(st.binary(max_size=100), st.integers(), st.integers())
def test_whatever_chunk_comes_it_is_refused_in_one_way(sealed: bytes, index: int, count: int) -> None:
    with pytest.raises(SealError):
        ChunkSeal(KEY, b"about").open(sealed, index, count)

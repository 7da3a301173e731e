"""A kit as one file: a plain .zip with SHA256SUMS, the same bytes for the same content."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from fedbus.errors import TrustError

SUMS = "SHA256SUMS"
MAX_FILES = 16
MAX_PACKED_BYTES = 1 << 20
# The first moment that a zip knows: a real one would make other bytes of the same kit.
_WHEN = (1980, 1, 1, 0, 0, 0)


def packed(content: Mapping[str, bytes]) -> bytes:
    """The bytes of a .zip of these files, keys at mode 0600."""
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content.items()))
    whole = {**dict(sorted(content.items())), SUMS: sums.encode()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in whole.items():
            entry = zipfile.ZipInfo(name, _WHEN)
            entry.create_system = 3  # modes as of Unix, wherever this runs
            entry.external_attr = (0o100600 if name.endswith(".pem") and b"PRIVATE" in data else 0o100644) << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def unpacked(path: Path) -> dict[str, bytes]:
    """The files of a packed kit, whose checksums fit. TrustError for what is none."""
    try:
        if path.stat().st_size > 2 * MAX_PACKED_BYTES:
            raise TrustError(f"{path} is larger than any kit: ask for it again")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_PACKED_BYTES:
                raise TrustError(f"{path} holds more than a kit has: ask for it again")
            if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
                raise TrustError(f"{path} is packed in a way that unzip does not know: ask for it again")
            content = {entry.filename: archive.read(entry) for entry in entries}
    except OSError as exc:
        raise TrustError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as exc:
        raise TrustError(f"{path} is no packed kit, or was changed on its way: ask for it again") from exc
    listed = content.pop(SUMS, b"").decode(errors="replace").splitlines()
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in listed)}
    if any(Path(name).name != name or name.startswith(".") for name in content):
        raise TrustError(f"{path} has files outside a kit: it was not made by `fedbus provision`")
    if wanted != {name: hashlib.sha256(data).hexdigest() for name, data in content.items()} or not content:
        raise TrustError(f"{path}: the checksums in {SUMS} do not fit: it was changed on its way, ask for it again")
    return content

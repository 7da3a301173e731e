"""The one file of a participant's kit that is written after the kit was made: its certificate, when it is renewed."""

from __future__ import annotations

import os
from pathlib import Path

from fedbus.store.files import disk_errors, replace_durably

CERTIFICATE_MODE = 0o644


def put_certificate(kit: Path, pem: str) -> None:
    """Put a renewed certificate in the place of the old one, whole or not at all. StoreError of the disk."""
    path = kit / "cert.pem"
    with disk_errors("cannot write", path), replace_durably(path) as beside:
        beside.write_text(pem)
        os.chmod(beside, CERTIFICATE_MODE)

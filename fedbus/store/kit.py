"""What is written in a participant's kit after it was made: its certificate and the CAs, when they are renewed."""

from __future__ import annotations

import os
from pathlib import Path

from fedbus.store.files import disk_errors, replace_durably

CERTIFICATE, AUTHORITIES = "cert.pem", "ca.pem"
PUBLIC = 0o644


def renew_kit(kit: Path, *, certificate: str | None, authorities: str | None) -> None:
    """Put new files (PEM) in the place of the old ones, each whole or not at all. StoreError of the disk.

    The CAs go first: the certificate may be of one that the old file does not have.
    """
    for name, pem in ((AUTHORITIES, authorities), (CERTIFICATE, certificate)):
        if pem is not None:
            with disk_errors("cannot write", kit / name), replace_durably(kit / name) as beside:
                beside.write_text(pem)
                os.chmod(beside, PUBLIC)

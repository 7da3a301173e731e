"""What is written in a participant's kit after it was made: its certificate, the CAs, and who is revoked."""

from __future__ import annotations

import os
from pathlib import Path

from fedbus.store.files import disk_errors, replace_durably

CERTIFICATE, KEY, AUTHORITIES, REVOKED = "cert.pem", "key.pem", "ca.pem", "crl.pem"
PUBLIC = 0o644


def renew_kit(
    kit: Path, *, certificate: str | None = None, authorities: str | None = None, lists: str | None = None
) -> None:
    """Put new files (PEM) in the place of the old ones, each whole or not at all. StoreError of the disk.

    The CAs go first: the certificate may be of one that the old file does not have.
    """
    for name, pem in ((AUTHORITIES, authorities), (CERTIFICATE, certificate), (REVOKED, lists)):
        if pem is not None:
            with disk_errors("cannot write", kit / name), replace_durably(kit / name) as beside:
                beside.write_text(pem)
                os.chmod(beside, PUBLIC)

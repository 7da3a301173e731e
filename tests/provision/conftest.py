"""What tests of provisioning share: a federation of two sites."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedbus.provision.federation import FederationFolder
from tests.provisioned_federation import federation_file


@pytest.fixture
def folder(tmp_path: Path) -> FederationFolder:
    """A federation of mercy and ucsf, which have no certificates yet."""
    made = FederationFolder(tmp_path / "hearts")
    made.provision(federation_file("mercy", "ucsf"), now=datetime.now(UTC))
    return made

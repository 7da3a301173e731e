"""What tests of trust share: a CA and the kit of one site."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedbus.trust.authority import Authority
from tests.small_federation import subject, write_kit


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.new("hearts", at=datetime.now(UTC))


@pytest.fixture
def kit(tmp_path: Path, authority: Authority) -> Path:
    """The kit of site-a, number 0."""
    write_kit(tmp_path / "kit", authority, subject())
    return tmp_path / "kit"

"""Manifests of updates as JSON text in files and tables, and back: the same bytes as on the wire."""

from __future__ import annotations

from fedbus.core.protocol import wire
from fedbus.core.protocol.messages import UpdateManifest
from fedbus.errors import DecodeError


def to_text(manifest: UpdateManifest) -> str:
    """The manifest as canonical JSON."""
    return wire.encode(manifest).body.decode()


def from_text(text: str) -> UpdateManifest:
    """Read a manifest back, also one of the release before. Raises DecodeError when it is none."""
    message = wire.decode("update", {"schema": wire.SCHEMA}, text.encode())
    if not isinstance(message, UpdateManifest):
        raise DecodeError(f"expected the manifest of an update, got a {type(message).__name__}")
    return message

"""How a job spec is read from a file that somebody names on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from fedbus.errors import SettingsError


def read_spec_text(path: Path) -> str:
    """Return the text of a job spec, of standard input for '-'. Raises SettingsError when it cannot be read."""
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as exc:
        raise SettingsError(f"cannot read job spec {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"cannot read job spec {path}: expected YAML in UTF-8, got other bytes ({exc})") from exc

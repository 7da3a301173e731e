"""Where a report goes: whole or not at all, and never over a file that somebody may want."""

from __future__ import annotations

import os
from pathlib import Path

from fedbus.errors import SettingsError, StoreError
from fedbus.report.page import Page, as_html, as_json
from fedbus.store.files import replace_durably

FOR_THE_OWNER = 0o600
FORMS = {".html": as_html, ".htm": as_html, ".json": as_json}


def check_free(path: Path, *, force: bool) -> None:
    """Raise SettingsError when a report cannot go to `path`: another ending, or a file is there and not to be lost."""
    if path.suffix.lower() not in FORMS:
        raise SettingsError(f"--to: a report is a file .html or .json, got {path.name!r}")
    if path.is_dir() or (path.exists() and not force):
        hint = "choose a file" if path.is_dir() else "give --force to replace it"
        raise SettingsError(f"--to: {path} is there already: {hint}")


def write_report(page: Page, path: Path, *, force: bool = False, mode: int = 0o644) -> None:
    """Write a page as HTML or JSON, by the file's ending; `mode` as of chmod. SettingsError, or StoreError."""
    check_free(path, force=force)
    if not path.parent.is_dir():
        raise StoreError(f"cannot write {path}: there is no folder {path.parent}")
    text = FORMS[path.suffix.lower()](page)
    with replace_durably(path) as beside:
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(file, "w", encoding="utf-8") as out:
            out.write(text)

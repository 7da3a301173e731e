"""What one child process of the site daemon does with a source: poll it once, or give it a model. Its words are JSON.

daemon → child   one object on standard input: {"what": "poll" | "publish", "settings": …, "data": …, "state": …}
child → daemon   one object a line on standard output: {"note": kind, "text": …} as troubles are found, at last
                 {"found": …} or {"done": text} or {"failed": kind, "text": …}
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedbus.errors import DataError, SourceError, StoreError
from fedbus.sources.folder import Folder
from fedbus.sources.intake import Intake
from fedbus.sources.journal import JournalFile
from fedbus.sources.monailabel import MonaiLabel, OnDisk, OverHttp
from fedbus.sources.settings import SourceSettings
from fedbus.sources.source import DataSource
from fedbus.sources.web import Web
from fedbus.store.files import make_folder, replace_durably

MOST_NOTES = 100
MOST_TEXT = 500
"""Characters of what a server may have had a part in."""
MOST_TOKEN_BYTES = 1 << 16

Tell = Callable[[Mapping[str, Any]], None]


def run(order: Mapping[str, Any], tell: Tell) -> None:
    """Do what is asked and tell what came of it; an error of the source or of our disk is told, none is raised."""
    settings = SourceSettings.model_validate(order["settings"])
    state = make_folder(Path(order["state"]))
    scratch = state / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # of a pass that was killed
    try:
        source = make_source(settings, scratch=make_folder(scratch))
        if order["what"] == "publish":
            tell({"done": publish(source, settings, Path(order["artifact"]))})
        else:
            intake = Intake(
                source, data=Path(order["data"]), scratch=scratch, journal=JournalFile(state), note=_notes(tell)
            )
            tell({"found": asdict(intake.run())})
    except SourceError as exc:
        tell({"failed": exc.kind, "text": str(exc)[:MOST_TEXT]})
    except (StoreError, DataError) as exc:
        tell({"failed": type(exc).__name__, "text": str(exc)[:MOST_TEXT]})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_source(settings: SourceSettings, *, scratch: Path) -> DataSource:
    """Open the source that the settings name. Raises SourceError, DataError for a missing extra."""
    token, url = _token(settings), settings.url or ""
    match settings.kind:
        case "folder":
            return Folder(settings.folder or Path(), scratch=scratch, most_bytes=settings.most_bytes)
        case "monailabel" if settings.folder is not None:
            return MonaiLabel(OnDisk(settings.folder, most_bytes=settings.most_bytes), scratch=scratch)
        case "monailabel":
            server = Web(url, token=token, timeout_s=settings.timeout_s, most_bytes=settings.most_bytes)
            return MonaiLabel(OverHttp(server), scratch=scratch, server=server, model=settings.model)
        case "dicomweb":
            from fedbus.sources.dicomweb import open_dicomweb

            return open_dicomweb(
                url,
                token=token,
                timeout_s=settings.timeout_s,
                most_bytes=settings.most_bytes,
                word=settings.label_tag,
            )
        case "flywheel":
            from fedbus.sources.flywheel import open_flywheel

            return open_flywheel(
                token,
                project=settings.project or "",
                tag=settings.label_tag,
                timeout_s=settings.timeout_s,
                most_bytes=settings.most_bytes,
                scratch=scratch,
            )


def publish(source: DataSource, settings: SourceSettings, artifact: Path) -> str:
    """Give a model back: onto a file in one step, or through the source; in words how."""
    if settings.model_file is None:
        return source.publish(artifact)
    if not settings.model_file.parent.is_dir():
        text = f"{settings.model_file.parent} is no folder: model_file is the models/model.pt of an installed bundle"
        raise SourceError(text, kind="no-model")
    with replace_durably(settings.model_file) as beside:
        shutil.copyfile(artifact, beside)
        if settings.model_file.exists():
            os.chmod(beside, settings.model_file.stat().st_mode)  # whoever could read the old one reads the new one
    return f"{settings.model_file} was replaced"


def _token(settings: SourceSettings) -> str:
    if settings.token_file is None:
        return ""
    try:
        with settings.token_file.open() as file:
            return file.read(MOST_TOKEN_BYTES).strip()
    except (OSError, ValueError) as exc:
        raise SourceError(f"token_file {settings.token_file} cannot be read: {exc}", kind="no-token") from exc


def _notes(tell: Tell) -> Callable[[str, str], None]:
    """The first MOST_NOTES; all are counted in what is found."""
    left = MOST_NOTES

    def note(kind: str, text: str) -> None:
        nonlocal left
        if left > 0:
            left -= 1
            tell({"note": kind, "text": text[:MOST_TEXT]})

    return note


def line(said: Mapping[str, Any]) -> str:
    """One line of what the child says."""
    return json.dumps(dict(said))

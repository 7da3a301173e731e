"""What a site hides from the processes that it starts: its kit, its keys, its logins. See `runtime.cage` for how.

    trainer, ranks       run the code of tasks: they write into the job's folders and a folder for temporary files alone
    source child         writes wherever the site's user may, and reads no key either

Of the environment neither gets what configures fedbus, nor any text that holds a broker's address.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from fedbus.bus.post import SEAL_KEY
from fedbus.errors import SettingsError
from fedbus.runtime.cage import Cage, trouble
from fedbus.runtime.settings import default_home
from fedbus.site.settings import SiteSettings
from fedbus.store.files import make_folder
from fedbus.store.kit import KEY

MOST_TRIED = 200
MOST_FOLDER_NAME = 64
"""Of the 107 characters that the name of a socket has."""
PROOF_LIMIT_S = 60.0
TRY = """
import sys
for path in sys.argv[1:]:
    try:
        open(path, "rb").close()
    except OSError:
        continue
    sys.exit(f"{path} can still be read")
"""


def trainer_cage(settings: SiteSettings) -> Cage | None:
    """Around everything that runs a task; None where the site has no key, or its owner wants none. SettingsError."""
    hidden = _hidden(settings)
    if hidden is None:
        return None
    data = settings.site_data.resolve()
    if held := [path for path in hidden if path == data or path in data.parents]:
        raise SettingsError(f"the data folder {data} is in {held[0]}, which is hidden from tasks: move one of them")
    state = settings.state_dir.resolve()
    folders = (state / "jobs", state / "kept", _temporary(state))
    return Cage(hidden=hidden, writable=tuple(make_folder(folder) for folder in folders))


def empty_temporary(cage: Cage | None) -> None:
    """Delete what trainers have left in the folder for temporary files; nobody may be in the cage any more."""
    if cage is not None and cage.writable:
        shutil.rmtree(cage.writable[-1], ignore_errors=True)


def source_cage(settings: SiteSettings) -> Cage | None:
    """Around the processes that fetch labels."""
    hidden = _hidden(settings)
    return None if hidden is None else Cage(hidden=hidden, writable=None)


def _hidden(settings: SiteSettings) -> tuple[Path, ...] | None:
    wanted = settings.trainer_cage if settings.trainer_cage is not None else settings.kit is not None
    if not wanted:
        return None
    config = os.environ.get("FEDBUS_CONFIG")
    files = [settings.kit, Path(config) if config else None, settings.state_dir / SEAL_KEY]
    if settings.kit is not None:
        files.append(settings.kit / KEY)  # which may be a link to where systemd or Kubernetes puts secrets
    with suppress(SettingsError):  # a user without a home
        files.append(default_home() / "broker")
    return tuple(path.resolve() for path in files if path is not None)


def check_cage(settings: SiteSettings) -> None:
    """Raise SettingsError unless a child of ours, in the trainer's cage, can read none of the hidden files."""
    cage = trainer_cage(settings)
    if cage is None:
        return
    remedy = "; or set trainer_cage = false: every task can then read the site's key"
    if why := trouble():
        raise SettingsError(f"{why}{remedy}")
    command = cage.around([sys.executable, "-P", "-c", TRY, *map(str, _files(cage))])
    try:
        tried = subprocess.run(
            command, capture_output=True, text=True, timeout=PROOF_LIMIT_S, check=False, env=child_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SettingsError(f"the trainer's cage could not be tried: {type(exc).__name__}{remedy}") from exc
    if tried.returncode:
        words = (tried.stderr.strip().splitlines() or ["no word"])[-1]
        raise SettingsError(f"a trainer could not be kept from the site's key: {words}{remedy}")


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, less what configures fedbus and whatever holds a broker's address, and so perhaps its password."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FEDBUS_") and "amqp://" not in value and "amqps://" not in value
    }
    return ours | dict(more or {})


def _files(cage: Cage) -> list[Path]:
    of_folders = (one for path in cage.hidden for one in (path, *path.rglob("*")))
    return [one for one in islice(of_folders, MOST_TRIED) if one.is_file()]


def temporary_folder(state: Path) -> Path:
    """Where trainers of the site of this state folder put temporary files; sockets lie in it, so its name is short."""
    inside = state.resolve() / "tmp"
    if len(str(inside)) <= MOST_FOLDER_NAME:
        return inside
    name = hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()).resolve() / f"fedbus-{os.getuid()}-{name}"


def _temporary(state: Path) -> Path:
    path = make_folder(temporary_folder(state))
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise SettingsError(f"{path} belongs to somebody else: delete it, or set TMPDIR to a folder of this user")
    path.chmod(0o700)
    return path

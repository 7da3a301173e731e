"""Private keys, passwords and tokens in files that are, or are about to be, committed.

It looks at what git tracks and at what it would add. A secret that was committed once and deleted again is in the
history still: it must be replaced, and no check of the tree finds it.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 2 << 20
LEAST_BITS = 3.2
"""Per character, of a password in a URL: `PASSWORD` and `secret` in a page or a test have less than what is drawn."""
LEAST_CHARS = 16
FILES = re.compile(r"(^|/)(\.erlang\.cookie|id_(rsa|ecdsa|ed25519)|[^/]*\.(p12|pfx|jks|key)|logins/[^/]+\.url)$")
PATTERNS = {
    "a private key": re.compile(
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:\\n|\s)+(?:[A-Za-z0-9+/=]{16,}(?:\\n|\s)+)+", re.ASCII
    ),
    "a token": re.compile(
        r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|glpat-[\w-]{20}|pypi-[\w-]{60,}|xox[abprs]-[\w-]{20,}"
        r"|eyJ[\w-]{20,}\.eyJ[\w-]{20,}\.[\w-]{20,})",
        re.ASCII,
    ),
}
URL = re.compile(r"\b[a-z][a-z0-9+]*://[^\s:/@'\"]+:([^\s@'\"{}<>$]+)@", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where one was found. Never what it is."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def tracked(root: Path) -> list[Path]:
    """Files that git has or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
    )
    return [root / name for name in listed.stdout.decode().split("\0") if name]


def scan(files: Iterable[Path], *, root: Path) -> Iterator[Secret]:
    """All secrets in these files."""
    for file in files:
        name = os.path.relpath(file, root)
        if FILES.search(name):
            yield Secret(path=name, line=1, what="a file that holds a key or password by its name")
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= MOST_BYTES:
            text = file.read_text(errors="replace")
            yield from (Secret(path=name, line=line, what=what) for line, what in in_text(text))


def in_text(text: str) -> Iterator[tuple[int, str]]:
    """Line and kind of each secret in a text."""
    for what, pattern in PATTERNS.items():
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, what
    for match in URL.finditer(text):
        if drawn(match.group(1)):
            yield text.count("\n", 0, match.start()) + 1, "a password in a URL"


def drawn(password: str) -> bool:
    """Whether a password looks drawn and not written: long, and its characters spread (Shannon's entropy)."""
    if len(password) < LEAST_CHARS:
        return False
    shares = [count / len(password) for count in Counter(password).values()]
    return -sum(share * math.log2(share) for share in shares) >= LEAST_BITS

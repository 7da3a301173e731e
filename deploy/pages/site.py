"""Markdown of the repository becomes pages that link each other as the files do; nothing is fetched from anywhere.

mkdocs takes one folder, and our pages stand where a reader of the repository looks for them. So a tree of the same
shape is put together first: each page where it is, and each file that a page links to beside it. A link to a folder of
the repository has no page; its text stays.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "pages" / "mkdocs.yml"
PAGES = ("README.md", ".github/CONTRIBUTING.md", "deploy/*.md", "deploy/docs/*.md", "deploy/monitoring/README.md")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_ELSEWHERE = re.compile(r"[a-z]+:")


def build(to: Path) -> int:
    """Build the pages into `to`, which is made anew. The exit code: 1 where a link leads nowhere."""
    with tempfile.TemporaryDirectory(prefix="fedbus-docs-") as folder:
        tree = Path(folder)
        for page in sources():
            _put(tree, page)
        built = tree.with_name(tree.name + "-built")
        try:
            done = _mkdocs(tree, built)
            if done == 0:
                scripts_to_files(built)
                shutil.rmtree(to, ignore_errors=True)
                shutil.copytree(built, to)
                print(f"{sum(1 for _ in to.rglob('*.html'))} pages in {to}: `fedbus web` serves them under /docs")
        finally:
            shutil.rmtree(built, ignore_errors=True)
    return done


def scripts_to_files(built: Path) -> None:
    """Put every script that stands inside a page into a file beside: a page with a strict policy runs no other."""
    for page in built.rglob("*.html"):

        def in_file(script: re.Match[str], page: Path = page) -> str:
            name = f"{hashlib.sha256(script[1].encode()).hexdigest()[:16]}.js"
            file = built / "assets" / "inline" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(script[1], "utf-8")
            return f'<script src="{os.path.relpath(file, page.parent)}"></script>'

        page.write_text(_INLINE.sub(in_file, page.read_text("utf-8")), "utf-8")


def sources() -> list[Path]:
    """All pages, as paths in the repository."""
    return sorted({path.relative_to(ROOT) for pattern in PAGES for path in ROOT.glob(pattern)})


def _mkdocs(tree: Path, built: Path) -> int:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["--config-file", str(CONFIG), "--site-dir", str(built)]
    environment = {**os.environ, "FEDBUS_DOCS_TREE": str(tree), "NO_MKDOCS_2_WARNING": "1"}
    code = subprocess.run(command, env=environment, check=False).returncode
    if code != 0:
        print("deploy/docs-site: no pages were built; is mkdocs-material installed (the extra docs)?", file=sys.stderr)
    return min(code, 1)


def _put(tree: Path, page: Path) -> None:
    text = (ROOT / page).read_text("utf-8")
    for linked in _linked(page, text):
        if linked.suffix != ".md" and (ROOT / linked).is_file():
            _at(tree, linked).write_bytes((ROOT / linked).read_bytes())
    # mkdocs leaves out what begins with a dot
    _at(tree, shown(page)).write_text(_LINK.sub(lambda link: _link(page, link), text), "utf-8")


def _linked(page: Path, text: str) -> Iterator[Path]:
    for _, _, target, _ in _LINK.findall(text):
        if not _ELSEWHERE.match(target):
            yield Path(os.path.normpath(page.parent / target))


def _link(page: Path, link: re.Match[str]) -> str:
    mark, text, target, anchor = link.groups()
    place = Path(os.path.normpath(page.parent / target))
    if _ELSEWHERE.match(target) or not (ROOT / place).exists():
        return link[0]
    if (ROOT / place).is_dir():
        return f"`{place}/`" if text.strip("`/") == str(place) else f"{text} (`{place}/`)"
    to = os.path.relpath(shown(place), shown(page).parent)
    return f"{mark}[{text}]({to}{anchor or ''})"


def shown(page: Path) -> Path:
    """Where a file of the repository stands among the pages."""
    return Path(*(part.removeprefix(".") for part in page.parts))


def _at(tree: Path, path: Path) -> Path:
    there = tree / path
    there.parent.mkdir(parents=True, exist_ok=True)
    return there

"""What a job's model comes from, as one number: a chain of hashes over its spec and every fact of the ledger.

    h(0) = sha256("fedbus provenance 1" spec)        h(i) = sha256(h(i-1) kind(i) body(i)), in the order of the facts

spec is JSON with sorted keys, kind and body of a fact are the texts of its row; the parts are separated by line feeds,
h stands as 64 hex digits. Whoever has the ledger can compute it again, and nobody can change, leave out or add a fact
without another number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedbus.store.ledger import Ledger
from fedbus.store.rows import JobRow

PAGE = 1000
MOST_REMEMBERED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """How far a job's chain was computed: its number, over so many facts, of which `seq` is the last row."""

    sha256: str
    facts: int = 0
    seq: int = 0


class Provenance:
    """Of the jobs of one ledger; goes on from where it was asked last, so that asking often costs little."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[tuple[str, float], Chain] = {}

    def of(self, row: JobRow) -> Chain:
        """The chain over all facts that there are by now."""
        key = (row.job, row.submitted_at)  # an id may come again once its job was forgotten
        chain = self._known.pop(key, None) or _start(row.spec)
        while rows := self._ledger.fact_texts(row.job, after=chain.seq, most=PAGE):
            chain = _longer(chain, rows)
        self._known[key] = chain
        while len(self._known) > MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        return chain


def _start(spec: Mapping[str, Any]) -> Chain:
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return Chain(sha256=hashlib.sha256(f"fedbus provenance 1\n{text}".encode()).hexdigest())


def _longer(chain: Chain, rows: list[tuple[int, str, str]]) -> Chain:
    number = chain.sha256
    for _, kind, body in rows:
        number = hashlib.sha256(f"{number}\n{kind}\n{body}".encode()).hexdigest()
    return Chain(sha256=number, facts=chain.facts + len(rows), seq=rows[-1][0])

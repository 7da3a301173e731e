"""Who a certificate names: federation, name, role and, for a site, its number. Loads no cryptography."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fedbus.core.protocol.messages import check_name

# Site numbers are bits of the mask in a stream's name, which has at most 255 bytes; one is given once and never again.
MAX_NUMBER = 639


class Role(StrEnum):
    BROKER = "broker"
    AGGREGATOR = "aggregator"
    SUBMITTER = "submitter"
    SITE = "site"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A participant of one federation. ValueError for what is no name, or a number where none belongs.

    number: of a site, 0 and up, given by `fedbus provision` and never given again; None for every other role.
    """

    federation: str
    name: str
    role: Role
    number: int | None = None

    def __post_init__(self) -> None:
        check_name("federation", self.federation)
        check_name(self.role, self.name)
        if (self.number is None) == (self.role is Role.SITE):
            raise ValueError(f"{self.role} {self.name!r} with number {self.number}: sites have one, nobody else has")
        if self.number is not None and not 0 <= self.number <= MAX_NUMBER:
            raise ValueError(f"site {self.name!r} has number {self.number}, expected 0 to {MAX_NUMBER}")

    def __str__(self) -> str:
        return f"{self.role} {self.name} of federation {self.federation}"

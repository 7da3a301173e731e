"""Questions that every site of a job is asked once, and what the sites answered: the last scores of a training, say."""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")


class Answers(Generic[T]):
    """Questions are numbered. An answer to what was never asked does not count."""

    def __init__(self) -> None:
        self._asked: set[int] = set()
        self._answers: dict[tuple[int, str], T] = {}
        self._failures: dict[tuple[int, str], str] = {}

    def ask(self, question: int) -> None:
        """Every site is asked this; asking again changes nothing."""
        self._asked.add(question)

    def take(self, question: int, site: str, answer: T) -> bool:
        """A site answers; the newest answer counts. False when nobody asked."""
        if question not in self._asked:
            return False
        self._answers[question, site] = answer
        self._failures.pop((question, site), None)
        return True

    def cannot(self, question: int, site: str, reason: str) -> bool:
        """A site has tried, and cannot answer: nobody waits for it. False when nobody asked."""
        if question in self._asked:
            self._failures[question, site] = reason
        return question in self._asked

    def has(self, question: int, site: str) -> bool:
        """Whether a site has answered, or said that it cannot."""
        return (question, site) in self._answers or (question, site) in self._failures

    @property
    def count(self) -> int:
        """Answers and failures so far."""
        return len(self._answers) + len(self._failures)

    def of(self, question: int) -> dict[str, T]:
        """Return the answers to a question by site, in order of names."""
        return {site: answer for (asked, site), answer in sorted(self._answers.items()) if asked == question}

    def failures(self, question: int) -> dict[str, str]:
        """Return why sites could not answer a question."""
        return {site: why for (asked, site), why in sorted(self._failures.items()) if asked == question}

    def missing(self, sites: Collection[str]) -> list[tuple[int, str]]:
        """Return (question, site) of the answers that these sites still owe."""
        wanted = ((question, site) for question in self._asked for site in sites)
        return sorted(key for key in wanted if not self.has(*key))

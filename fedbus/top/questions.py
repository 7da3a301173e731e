"""What stands over a screen until a key is pressed: a question, and the keys that there are."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from fedbus.runtime.printable import printable

KEYS = (
    ("↑ ↓ PgUp PgDn", "choose a line"),
    ("Tab", "the other table"),
    ("Enter", "open the job or site"),
    ("Esc", "back; the filter away"),
    ("/", "only lines with a word in them"),
    ("s S", "sort by the next column; turn the order"),
    ("a", "abort the job, after a question"),
    ("q Ctrl-C", "quit"),
)


class Question(ModalScreen[bool]):
    """Yes or no; all keys but `y` are no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,enter,q", "answer(False)", "no"),
    ]

    def __init__(self, question: str, words: str) -> None:
        super().__init__()
        self._question, self._words = question, words

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(Text(printable(self._question), style="bold"))
            yield Static(Text(f"\n{self._words}\n"))
            yield Static(Text("y  yes, abort it        n  no"))

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Help(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss(None)", "close")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(Text("Keys", style="bold"))
            for keys, words in KEYS:
                yield Static(Text.assemble((f"{keys:<16}", "bold"), words))

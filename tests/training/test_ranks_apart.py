"""Ranks that would each train another model are told so, at the same moment, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fedbus.core.spec.training import LocalSpec
from fedbus.errors import LayoutError, NotTogetherError, TaskError
from fedbus.tensors.sharing import Sharing, parts_of
from fedbus.training import protocol as p
from fedbus.training.program import TaskProgram, load_program
from fedbus.training.ranks.leader import Crew
from fedbus.training.ranks.team import Team, slice_of
from fedbus.training.run import Run

pytestmark = pytest.mark.usefixtures("tasks_of_the_site")
CPU = torch.device("cpu")
LOCAL = {"steps": 4, "batch_size": 1, "learning_rate": 0.05}


class Trio:
    """Rank 0 of three, in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left: list[int] = []
        opening = _opening(folder)
        self.crew = Crew(opening, leave=self.left.append)
        self.program: TaskProgram = load_program(opening, CPU)
        self._base = {name: torch.as_tensor(value) for name, value in self.program.fresh().items()}
        layout = parts_of(self.program.inventory(), Sharing()).layout
        self.team = self.crew.join(layout.digest, CPU)

    def train(self, mode: str, *, team: Team | None) -> dict[str, torch.Tensor]:
        (self.folder / "mode").write_text(mode)
        self.program.load(self._base)
        if team is not None:
            self.crew.train(p.Train(path="", seed=9))
        torch.manual_seed(9)
        self.program.train(Run(LocalSpec.model_validate(LOCAL), seed=9, team=team))
        return {name: torch.as_tensor(value).clone() for name, value in self.program.params().items()}


def _opening(folder: Path, *, task: str = "ranked") -> p.Open:
    return p.Open(
        job="job",
        task=task,
        task_config={},
        seed=5,
        site="site-a",
        data=str(folder),
        local=LOCAL,
        chunk_bytes=1 << 20,
        device="cpu",
        ranks=("cpu", "cpu"),
    )


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    trio = Trio(tmp_path_factory.mktemp("trio"))
    yield trio
    trio.crew.close()
    assert not trio.left


@pytest.mark.parametrize("mode", ["", "ratio"])
def test_with_fewer_examples_than_ranks_fewer_ranks_count(trio: Trio, mode: str) -> None:
    alone, together = trio.train(mode, team=None), trio.train(mode, team=trio.team)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("head", "steps tensors that are not of its model"),
        ("by-hand", "do not come from backward"),
        ("often", "did not do the same at each of 3 ranks"),
        ("early", "did not do the same at each of 3 ranks"),
        ("drift", "have trained different params"),
    ],
)
def test_a_task_that_cannot_be_trained_so_is_refused_and_the_ranks_live_on(trio: Trio, mode: str, why: str) -> None:
    with pytest.raises(NotTogetherError, match=why):
        trio.train(mode, team=trio.team)
    assert trio.train("", team=trio.team)


@pytest.mark.parametrize(("examples", "slices"), [(5, [2, 2, 1]), (3, [1, 1, 1]), (2, [1, 1, 1]), (6, [2, 2, 2])])
def test_slices_cover_a_batch_once_and_count_as_they_are_long(examples: int, slices: list[int]) -> None:
    parts = [slice_of(torch.arange(examples), rank, 3) for rank in range(3)]
    assert [len(part.rows) for part in parts] == slices
    assert [row for part in parts if part.weight for row in part.rows.tolist()] == list(range(examples))
    assert sum(part.weight for part in parts) == pytest.approx(1.0)


def test_a_rank_that_cannot_load_the_task_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    crew = Crew(_opening(tmp_path, task="broken_import"), leave=lambda _: None)
    try:
        with pytest.raises(TaskError, match=r"rank 1 of 3 could not load the task: ModuleNotFoundError"):
            crew.join("", CPU)
        assert "No module named 'module_that_is_not_there'" in caplog.text
    finally:
        crew.close()


def test_a_rank_with_another_model_is_refused(tmp_path: Path) -> None:
    crew = Crew(_opening(tmp_path), leave=lambda _: None)
    try:
        with pytest.raises(LayoutError, match="another model than rank 0"):
            crew.join("0123", CPU)
    finally:
        crew.close()

"""What the ranks of one training say to each other: whether to go on, whose slice is which, and sums of tensors.

Before each sum all ranks exchange where they are (`Place`), on the CPU: a rank that failed, or that is elsewhere since
the task did something else there, is seen by all at the same moment and leaves none waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.distributed as dist
from torch import Tensor

from fedbus.errors import NotTogetherError, TaskError

BUCKET_BYTES = 64 << 20


class Place(IntEnum):
    """Where a rank is when it meets the others."""

    STEP = 0
    WHOLE = 1
    BACKWARD = 2
    END = 3
    FAILED = 4


class Decision(IntEnum):
    """What rank 0 decides before each step."""

    GO = 0
    OVER = 1
    CANCEL = 2


class ApartError(BaseException):
    """The ranks are not together any more. No Exception, so that a task which catches its own errors lets it pass."""

    def __init__(self, why: TaskError) -> None:
        self.why = why
        super().__init__(str(why))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A rank's rows of a batch, and their share of it."""

    rows: Tensor
    weight: float


def slice_of(batch: Tensor, rank: int, ranks: int) -> Slice:
    """A rank's part of a batch [n]; sizes differ by one at most.

    With fewer rows than ranks those without a part repeat that of rank 0, which then counts nothing.
    """
    per_rank, more = divmod(len(batch), ranks)
    size = per_rank + (rank < more)
    start = rank * per_rank + min(rank, more)
    return Slice(rows=batch[start : start + size] if size else batch[:1], weight=size / len(batch))


class Team:
    """This process among the ranks; `weight` is the share of the batch that its gradients and losses stand for."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.rank = rank
        self.ranks = ranks
        self.weight = 1 / ranks
        self._apart: TaskError | None = None

    def begin(self) -> None:
        """A new training: the ranks are together."""
        self.weight = 1 / self.ranks
        self._apart = None

    def decide(self, ours: Decision) -> Decision:
        """Return what rank 0 decided for the next step; what others say is not heard."""
        return Decision(int(self.meet(Place.STEP, [ours])[0, 0]))

    def meet(self, place: Place, says: Sequence[int] = ()) -> Tensor:
        """Return what every rank says at this place, uint8 [ranks, len(says)]; as long at every rank.

        Raises ApartError at all ranks when one has failed or is elsewhere.
        """
        if self._apart is not None:
            raise ApartError(self._apart)
        places = _gathered(torch.tensor([place], dtype=torch.uint8), self.ranks)[:, 0].tolist()
        failed = [rank for rank, there in enumerate(places) if there == Place.FAILED]
        if place is not Place.FAILED and (failed or len(set(places)) > 1):
            self._apart = self._why(failed)
            raise ApartError(self._apart)
        if place is Place.FAILED or not says:
            return torch.empty(self.ranks, 0, dtype=torch.uint8)
        return _gathered(torch.tensor(says, dtype=torch.uint8), self.ranks)

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by its sum over the ranks; after a `meet`, so that all ranks come here."""
        for tensor in tensors:
            dist.all_reduce(tensor)

    def take_from_first_(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by that of rank 0."""
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, src=0)
            if whole.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(whole)

    def _why(self, failed: Sequence[int]) -> TaskError:
        if failed:
            names = ", ".join(map(str, failed))
            return TaskError(f"rank {names} of {self.ranks} failed in this training; the site's log says why, above")
        return NotTogetherError.of_job(
            f"the task did not do the same at each of {self.ranks} ranks, which make the same steps and call "
            "backward() as often in each"
        )


def _gathered(ours: Tensor, ranks: int) -> Tensor:
    found = [torch.empty_like(ours) for _ in range(ranks)]
    dist.all_gather(found, ours)
    return torch.stack(found)

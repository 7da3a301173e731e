"""Gradients of all ranks, averaged at the end of every backward(): what an optimizer, a clipping or a scaler then sees.

    gradient = sum over ranks of (slice length / batch length) * gradient of the rank's slice

which is that of the whole batch wherever the loss is a mean over examples, also with slices of different length. It
holds for any number of forward and backward passes in a step, for a gradient that was averaged once stays what it is.

Refused, since each rank would then train another model: an optimizer over tensors that are not of the model, gradients
that no backward() made, sparse gradients, and params that differ between the ranks in the end.
A wrapper around the model (torch's own DistributedDataParallel) would hide its attributes from the task, and allows
one forward for each backward; the price is that sums begin when the backward pass has ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fedbus.errors import NotTogetherError
from fedbus.training.ranks.team import BUCKET_BYTES, ApartError, Place, Team


@contextmanager
def together(model: nn.Module, team: Team | None) -> Iterator[None]:
    """Inside, the ranks train one model: it begins as that of rank 0 and ends the same everywhere.

    Raises TaskError, or NotTogetherError, at all ranks when one has failed or they came apart.
    """
    if team is None:
        yield
        return
    team.begin()
    try:
        team.take_from_first_([*model.parameters(), *model.buffers()])
        try:
            with _Averaging(model, team):
                yield
                _check_equal(model, team)
        except (Exception, SystemExit):
            team.meet(Place.FAILED)
            raise
    except ApartError as exc:
        raise exc.why from exc


class _Averaging:
    """Hooks on the params of a model and on optimizers, as long as it is entered."""

    def __init__(self, model: nn.Module, team: Team) -> None:
        self._team = team
        self._params = [param for param in model.parameters() if param.requires_grad]
        self._known = {id(param) for param in model.parameters()}
        # made before the ranks meet: one that has no memory left for it must not leave the others waiting
        self._room = _room([param.detach() for param in self._params])
        self._queued = False
        self._averaged = False
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        for param in self._params:
            self._handles.append(param.register_post_accumulate_grad_hook(self._made))  # type: ignore[no-untyped-call]
        self._handles.append(register_optimizer_step_pre_hook(self._check_step))

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _made(self, param: Tensor) -> None:
        """A gradient is there; all are averaged when this backward() is at its end."""
        if not self._queued:
            self._queued = True
            Variable._execution_engine.queue_callback(self._average)

    @torch.no_grad()
    def _average(self) -> None:
        self._queued = False
        self._averaged = True
        if any(param.grad is not None and param.grad.layout is not torch.strided for param in self._params):
            raise NotTogetherError.of_job("sparse gradients are not summed over ranks")
        found = self._team.meet(Place.BACKWARD, [param.grad is not None for param in self._params]).any(0).tolist()
        for param in (param for param, there in zip(self._params, found, strict=True) if there):
            if param.grad is None:
                param.grad = torch.zeros_like(param)
        grads = [param.grad for param in self._params if param.grad is not None]
        for bucket in _buckets(grads):
            self._sum_(bucket)

    def _sum_(self, grads: Sequence[Tensor]) -> None:
        """Average these, of one dtype and device, in one message."""
        size = sum(grad.numel() for grad in grads)
        flat = self._room[grads[0].dtype, grads[0].device][:size]
        torch.cat([grad.reshape(-1) for grad in grads], out=flat).mul_(self._team.weight)
        self._team.sum_([flat])
        at = 0
        for grad in grads:
            grad.copy_(flat[at : at + grad.numel()].view(grad.shape))
            at += grad.numel()

    def _check_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if any(id(param) not in self._known for param in trained):
            raise NotTogetherError.of_job("the task's optimizer steps tensors that are not of its model")
        if trained and not self._averaged:
            raise NotTogetherError.of_job("the task's gradients do not come from backward()")
        self._averaged = False


def _buckets(grads: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in order, those side by side that fit into one message; the same at every rank."""
    bucket: list[Tensor] = []
    size = 0
    for grad in grads:
        alike = not bucket or (bucket[0].dtype, bucket[0].device) == (grad.dtype, grad.device)
        if bucket and (not alike or size + grad.nbytes > BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(grad)
        size += grad.nbytes
    if bucket:
        yield bucket


def _room(like: Sequence[Tensor]) -> dict[tuple[torch.dtype, torch.device], Tensor]:
    """A flat tensor for each dtype and device, as large as the largest message."""
    sizes: dict[tuple[torch.dtype, torch.device], int] = {}
    for bucket in _buckets(like):
        key = bucket[0].dtype, bucket[0].device
        sizes[key] = max(sizes.get(key, 0), sum(tensor.numel() for tensor in bucket))
    return {(dtype, device): torch.empty(size, dtype=dtype, device=device) for (dtype, device), size in sizes.items()}


def _check_equal(model: nn.Module, team: Team) -> None:
    """Raise NotTogetherError when what was trained is not the same at all ranks; statistics may differ."""
    digest = hashlib.blake2b(digest_size=16)
    for param in model.parameters():
        if param.requires_grad:
            digest.update(param.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    found = team.meet(Place.END, list(digest.digest()))
    if bool((found != found[0]).any()):
        raise NotTogetherError.of_job("the ranks of this site have trained different params")

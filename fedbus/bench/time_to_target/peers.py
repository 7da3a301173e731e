"""Peers' aggregation objects, unmodified, behind the interface of the simulation's loop.

What lives here: how an update of the loop is handed to a peer's object and its model read back, nothing of their
arithmetic. What may not: rules of our own (see `references`). Deltas travel as fp32, the model is one flat parameter.

    APPFL 1.12   FedAsyncAggregator, FedBuffAggregator   .aggregate(client_id, local_model)
    FLGo 0.4.4   algorithm.fedbuff.Server                .package_handler(packages)

Not here: APPFL's FedCompass. Its scheduler reads the machine's clock and starts timer threads, and its aggregator alone
is FedAsync; in virtual time it would have to be changed.

A first update tells a rule where the model began: its base is version 0, that is local params - delta.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedbus.errors import SettingsError

NAME = "params"
MODULES = ("appfl", "flgo")
MISSING = "the peers are not installed here: run deploy/bench-peers, then .venv-peers/bin/fedbus bench ... --peers"
POLYNOMIAL = {"staleness_fn": "polynomial", "staleness_fn_kwargs": {"a": 0.5}}


def installed() -> bool:
    """Say whether the peers can be imported here."""
    return all(find_spec(name) for name in MODULES)


def check_installed() -> None:
    """Raise SettingsError with what to do when the peers cannot be imported here."""
    if not installed():
        raise SettingsError(MISSING)


class AppflRule:
    """FedAsync or FedBuff of APPFL, a site's update at a time.

    FedAsync: x += alpha (1 + s)^-0.5 / num_clients (y - x). FedBuff: the sum of K such steps at once, each against the
    *current* x; APPFL's server sets num_clients to the number of sites. `optimize_memory` (a full garbage collection
    at each update by default) is off: it changes no number.
    """

    wait_for_new_version = False

    def __init__(self, kind: Literal["fedasync", "fedbuff"], *, alpha: float, num_clients: int, buffer: int) -> None:
        with _importing():
            from appfl.algorithm.aggregator import FedAsyncAggregator, FedBuffAggregator
            from omegaconf import OmegaConf
        config = {"alpha": alpha, "num_clients": num_clients, "optimize_memory": False, **POLYNOMIAL}
        self._make = FedAsyncAggregator if kind == "fedasync" else FedBuffAggregator
        self._config = OmegaConf.create(config if kind == "fedasync" else {**config, "K": buffer})
        self._aggregator: Any = None
        self._steps = 0

    def on_update(  # noqa: PLR0917 - see `simulation.ForeignRule`
        self, site: str, local_params: Tensor, delta: Tensor, base_version: int, num_examples: int, now: float
    ) -> Tensor | None:
        """Hand the site's params over; the new model when the aggregator made one, float32 [numel]."""
        if self._aggregator is None:
            self._aggregator = self._make(_Flat(local_params - delta), self._config)
        # what the site downloaded: a server that sends a model names the site, and the aggregator notes its step
        self._aggregator.client_step[site] = base_version
        model = self._aggregator.aggregate(site, {NAME: local_params.clone()})
        made = self._aggregator.global_step > self._steps
        self._steps = self._aggregator.global_step
        params: Tensor = model[NAME]
        return params.detach() if made else None


class FlgoFedBuff:
    """FedBuff of FLGo: x += eta / K sum (1 + s)^-0.5 delta; a site whose update is in the buffer waits for a flush."""

    wait_for_new_version = True

    def __init__(self, *, eta: float, sites: int, buffer: int) -> None:
        with _importing():
            from flgo.algorithm.fedbuff import Server
        # FLGo's constructor wants a whole benchmark; its rule needs these few fields of it
        self._server = Server.__new__(Server)
        self._server._object_map = {}
        self._server.option = {"algo_para": [(buffer + 0.5) / sites, eta]}
        self._server.num_clients = sites
        self._server.current_round = 0
        self._server.model = None
        self._server.initialize()

    def on_update(  # noqa: PLR0917 - see `simulation.ForeignRule`
        self, site: str, local_params: Tensor, delta: Tensor, base_version: int, num_examples: int, now: float
    ) -> Tensor | None:
        """Hand the delta over; the new model when the buffer was flushed, float32 [numel]."""
        server = self._server
        if server.model is None:
            server.model = _flgo_model(local_params - delta)
        update = _flgo_model(delta)
        update._round = base_version
        if not server.package_handler({"__cid": [site], "model": [update]}):
            return None
        server.current_round += 1
        made: Tensor = server.model.params
        return made.detach().clone()


@contextmanager
def _importing() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImportError as exc:
        raise SettingsError(f"{MISSING} ({exc})") from exc


class _Flat(nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.params = nn.Parameter(values.clone())


def _flgo_model(values: Tensor) -> Any:
    model = _flgo_class(values.numel())()
    model.params.data.copy_(values)
    return model


@cache
def _flgo_class(numel: int) -> type[Any]:
    """FLGo makes models of the class of those it is given, without arguments: the class knows the size."""
    from flgo.utils.fmodule import FModule

    class Flat(FModule):  # type: ignore[misc]  # FLGo is untyped
        def __init__(self) -> None:
            super().__init__()
            self.params = nn.Parameter(torch.zeros(numel))

    return Flat

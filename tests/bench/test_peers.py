"""Each peer's rule against its formula, by hand. Needs .venv-peers: deploy/bench-peers test."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedbus.bench.time_to_target import peers
from fedbus.bench.time_to_target.references import ModelMixing

needs_peers = pytest.mark.skipif(not peers.installed(), reason="the peers live in .venv-peers: run deploy/bench-peers")

START = torch.tensor([1.0, 2.0, 3.0])


class Sites:
    """Three sites, each with the params it took; what the rule makes is what they take next."""

    def __init__(self, rule: peers.AppflRule | peers.FlgoFedBuff | ModelMixing) -> None:
        self.rule = rule
        self.params = START.clone()
        self.version = 0
        self.base = dict.fromkeys("abc", (START, 0))
        self.idle: set[str] = set()

    def send(self, site: str, *delta: float) -> None:
        base, version = self.base[site]
        step = torch.tensor(delta)
        made = self.rule.on_update(site, base + step, step, version, 10, 0.0)
        self.idle.add(site)
        if made is not None:
            self.params, self.version = made.clone(), self.version + 1
        if made is not None or not self.rule.wait_for_new_version:
            self.base |= dict.fromkeys(self.idle, (self.params, self.version))
            self.idle.clear()


def expect(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=1e-6)


def mixed(alpha: float, clients: int) -> Tensor:
    """x += alpha (1 + s)^-0.5 / clients (y - x) at every update, for a, a, b of the test below."""
    one = START + alpha / clients * torch.tensor([1.0, 0.0, 0.0])
    two = one + alpha / clients * torch.tensor([0.0, 1.0, 0.0])
    late = START + torch.tensor([0.0, 0.0, 1.0])
    return two + alpha / clients * 3**-0.5 * (late - two)


@needs_peers
@pytest.mark.parametrize("clients", [1, 3])
def test_appfl_fedasync_mixes_params_discounted_by_staleness(clients: int) -> None:
    sites = Sites(peers.AppflRule("fedasync", alpha=0.9, num_clients=clients, buffer=2))

    sites.send("a", 1.0, 0.0, 0.0)
    sites.send("a", 0.0, 1.0, 0.0)
    sites.send("b", 0.0, 0.0, 1.0)

    assert sites.version == 3
    expect(sites.params, mixed(0.9, clients))


def test_our_fedasync_of_the_paper_is_the_same_rule() -> None:
    sites = Sites(ModelMixing(0.9))

    sites.send("a", 1.0, 0.0, 0.0)
    sites.send("a", 0.0, 1.0, 0.0)
    sites.send("b", 0.0, 0.0, 1.0)

    expect(sites.params, mixed(0.9, 1))


@needs_peers
def test_appfl_fedbuff_sums_steps_from_the_current_model_and_not_from_the_base() -> None:
    sites = Sites(peers.AppflRule("fedbuff", alpha=0.6, num_clients=3, buffer=2))

    sites.send("a", 1.0, 0.0, 0.0)
    assert sites.version == 0
    sites.send("a", 0.0, 1.0, 0.0)
    assert sites.version == 1
    first = START + 0.2 * torch.tensor([1.0, 1.0, 0.0])
    expect(sites.params, first)
    sites.send("b", 0.0, 0.0, 1.0)
    sites.send("a", 1.0, 0.0, 0.0)

    late = START + torch.tensor([0.0, 0.0, 1.0])
    expect(sites.params, first + 0.2 * 2**-0.5 * (late - first) + 0.2 * torch.tensor([1.0, 0.0, 0.0]))


@needs_peers
def test_flgo_fedbuff_is_the_mean_of_discounted_deltas() -> None:
    sites = Sites(peers.FlgoFedBuff(eta=0.5, sites=3, buffer=2))

    sites.send("a", 1.0, 0.0, 0.0)
    assert sites.version == 0
    sites.send("b", 0.0, 1.0, 0.0)
    assert sites.version == 1
    first = START + 0.5 / 2 * torch.tensor([1.0, 1.0, 0.0])
    expect(sites.params, first)
    sites.send("c", 0.0, 0.0, 1.0)
    sites.send("a", 1.0, 0.0, 0.0)

    expect(sites.params, first + 0.5 / 2 * torch.tensor([1.0, 0.0, 2**-0.5]))


@needs_peers
@pytest.mark.parametrize("sites", [2, 3, 7, 10, 12, 50])
def test_flgo_flushes_at_the_buffer_that_is_asked_for(sites: int) -> None:
    buffer = max(2, -(-sites // 3))
    rule = peers.FlgoFedBuff(eta=1.0, sites=sites, buffer=buffer)

    made = [rule.on_update("a", START, torch.zeros(3), 0, 10, 0.0) is not None for _ in range(buffer)]

    assert made == [False] * (buffer - 1) + [True]

"""The rules under comparison by name: ours, textbook, peers. Each says what its one knob means and its grid.

What lives here: names and settings. What may not: arithmetic (see `references`, `peers`, `core.rules.strategies`).

Every rule has a grid of the same number of points, and its row is the best of them; `auto` has no knob. The knob is
the server's learning rate for everybody but the rules that mix models, whose alpha is at most 1: theirs covers what
their papers and documentation use, .6 and .9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fedbus.bench.time_to_target import peers
from fedbus.bench.time_to_target.references import ModelMixing
from fedbus.bench.time_to_target.scenarios import Scenario
from fedbus.core.spec.sections import RobustKind, least_sites
from fedbus.errors import SettingsError
from fedbus.simulation import ForeignRule

ETAS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0)
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
NEVER_S = 1e6
LIARS = 2

AS_PUBLISHED: Mapping[str, Any] = {"num_examples_power": 0.0, "clip_to_own_median": None}
POLYNOMIAL: Mapping[str, Any] = {"staleness": {"kind": "polynomial", "a": 0.5}}

SpecPart = Callable[[Scenario, float | None], dict[str, Any]]
MakeForeign = Callable[[Scenario, float], ForeignRule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table. Either `spec` (a part of a job spec) or `foreign` makes it; no grid: no knob."""

    name: str
    title: str
    origin: Literal["fedbus", "textbook", "appfl", "flgo"]
    grid: tuple[float, ...] = ETAS
    spec: SpecPart = lambda scenario, eta: {}
    foreign: MakeForeign | None = None

    @property
    def is_peer(self) -> bool:
        return self.origin in {"appfl", "flgo"}


def plain(eta: float | None) -> dict[str, Any]:
    """A plain server step of this length; None: what the job would do by default."""
    return {} if eta is None else {"server_optimizer": {"kind": "plain", "lr": eta}}


def _own(strategy: Mapping[str, Any], **more: Any) -> SpecPart:
    return lambda scenario, eta: {"strategy": dict(strategy), **more, **plain(eta)}


def _fedbuff(scenario: Scenario, eta: float | None) -> dict[str, Any]:
    strategy = {"kind": "buffered", "buffer": scenario.buffer, "normalise": "buffer"}
    return {"strategy": strategy, **AS_PUBLISHED, **POLYNOMIAL, **plain(eta)}


def _sync(scenario: Scenario, eta: float | None) -> dict[str, Any]:
    return {
        "strategy": {"kind": "sync", "deadline_s": NEVER_S},
        **AS_PUBLISHED,
        "num_examples_power": 1.0,
        **plain(eta),
    }


def _appfl_fedasync(clients: int | None) -> MakeForeign:
    return lambda scenario, alpha: peers.AppflRule(
        "fedasync", alpha=alpha, num_clients=clients or scenario.sites, buffer=scenario.buffer
    )


def _appfl_fedbuff(*, rescaled: bool) -> MakeForeign:
    """Its step is alpha K / N; rescaled, alpha is multiplied by N / K, so that the step is the grid's."""

    def make(scenario: Scenario, eta: float) -> ForeignRule:
        alpha = eta * scenario.sites / scenario.buffer if rescaled else eta
        return peers.AppflRule("fedbuff", alpha=alpha, num_clients=scenario.sites, buffer=scenario.buffer)

    return make


def _flgo(scenario: Scenario, eta: float) -> ForeignRule:
    return peers.FlgoFedBuff(eta=eta, sites=scenario.sites, buffer=scenario.buffer)


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(name="auto", title="fedbus auto (no knob)", origin="fedbus", grid=(), spec=_own({"kind": "auto"})),
        Rule(name="calibrated", title="fedbus calibrated", origin="fedbus", spec=_own({"kind": "calibrated"})),
        Rule(
            name="buffered",
            title="fedbus buffered, rate-corrected",
            origin="fedbus",
            spec=_own({"kind": "buffered", "rate_correction": 1.0}, staleness={"kind": "constant"}),
        ),
        Rule(name="sync", title="FedAvg, synchronous", origin="textbook", spec=_sync),
        Rule(name="fedbuff", title="FedBuff as published", origin="textbook", spec=_fedbuff),
        Rule(
            name="fedasync",
            title="FedAsync as published",
            origin="textbook",
            grid=ALPHAS,
            foreign=lambda scenario, alpha: ModelMixing(alpha),
        ),
        Rule(
            name="appfl-fedasync",
            title="APPFL FedAsync, as its server sets it up",
            origin="appfl",
            foreign=_appfl_fedasync(None),
        ),
        Rule(
            name="appfl-fedasync-1",
            title="APPFL FedAsync, num_clients 1",
            origin="appfl",
            grid=ALPHAS,
            foreign=_appfl_fedasync(1),
        ),
        Rule(
            name="appfl-fedbuff",
            title="APPFL FedBuff, as its server sets it up",
            origin="appfl",
            foreign=_appfl_fedbuff(rescaled=False),
        ),
        Rule(
            name="appfl-fedbuff-n/k",
            title="APPFL FedBuff, alpha times N / K",
            origin="appfl",
            foreign=_appfl_fedbuff(rescaled=True),
        ),
        Rule(name="flgo-fedbuff", title="FLGo FedBuff", origin="flgo", foreign=_flgo),
    )
}

VARIANTS: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            name="auto-unclipped",
            title="fedbus auto without clip",
            origin="fedbus",
            grid=(),
            spec=_own({"kind": "auto"}, clip_to_own_median=None),
        ),
        *(
            Rule(
                name=f"auto-{kind}",
                title=f"fedbus auto with {kind}",
                origin="fedbus",
                grid=(),
                spec=_own({"kind": "auto"}, robust={"kind": kind, "f": LIARS}, min_sites=least_sites(LIARS)),
            )
            for kind in get_args(RobustKind)
        ),
        Rule(
            name="fedbuff-drop",
            title="FedBuff, refused above staleness 10",
            origin="textbook",
            spec=lambda scenario, eta: {**_fedbuff(scenario, eta), "max_staleness": 10},
        ),
    )
}


def rule_of(name: str) -> Rule:
    """Return a rule by name; SettingsError with all names for one that does not exist."""
    known = {**RULES, **VARIANTS}
    if name not in known:
        raise SettingsError(f"rule {name!r}: expected one of {', '.join(known)}")
    return known[name]


def default_rules(*, with_peers: bool) -> list[str]:
    """All rules of the table, peers only when asked for."""
    return [rule.name for rule in RULES.values() if with_peers or not rule.is_peer]

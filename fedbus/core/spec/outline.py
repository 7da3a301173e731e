"""What a job will be, in a few plain lines for the person who is about to submit it: also what was filled in."""

from __future__ import annotations

from typing import assert_never

from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import (
    AutoSpec,
    BufferedSpec,
    CalibratedSpec,
    FedAsyncSpec,
    LocalSpec,
    StalenessSpec,
    StopSpec,
    StrategySpec,
    SyncSpec,
    TrainingSpec,
)
from fedbus.core.words import counted


def outline(spec: JobSpec) -> list[tuple[str, str]]:
    """Return what matters of a job, each as a word and a phrase; '(default)' where the spec does not say it."""
    lines = [("job", f"{spec.name}: task {spec.task}"), ("takes part", _takes_part(spec))]
    return [*lines, *(_training(spec) if isinstance(spec, TrainingSpec) else spec.lines())]


def _training(spec: TrainingSpec) -> list[tuple[str, str]]:
    lines = [
        *([("before", "the sites' data are checked, who is at fault is left out")] if spec.check else []),
        ("starts", _starts(spec)),
        ("each site", _each_site(spec.local)),
        ("strategy", _strategy(spec.strategy) + _default(spec, "strategy")),
        ("step", _step(spec) + _default(spec, "server_optimizer")),
    ]
    if not isinstance(spec.strategy, AutoSpec | CalibratedSpec):
        lines.append(("late updates", _staleness(spec.staleness) + _default(spec, "staleness")))
    if spec.robust is not None:
        lines.append(("robust", f"{spec.robust.kind}: up to {counted(spec.robust.f, 'site')} of a version may lie"))
    return [
        *lines,
        ("first params", _first_params(spec)),
        *_sharing(spec),
        ("on the wire", f"{spec.codec.up.kind} up, {spec.codec.down} down{_default(spec, 'codec')}"),
        ("stops", _stop(spec.stop)),
    ]


def _default(spec: JobSpec, key: str) -> str:
    return "" if key in spec.model_fields_set else " (default)"


def _takes_part(spec: JobSpec) -> str:
    if spec.sites is None:
        return "every site that has the task and accepts (default)"
    return f"only {', '.join(spec.sites)}"


def _starts(spec: TrainingSpec) -> str:
    default = "" if spec.model_fields_set & {"min_sites", "min_contributors"} else " (default)"
    text = f"when {counted(spec.least_sites, 'site')} accepted, pauses with fewer{default}"
    if spec.min_new_labels:
        text += f", and their data sources have {counted(spec.min_new_labels, 'new label')}"
    if spec.min_contributors > 1:
        text += f"; every version comes from at least {spec.min_contributors} sites"
    return text


def _each_site(local: LocalSpec) -> str:
    match local:
        case LocalSpec(steps=int(steps)):
            budget = f"{counted(steps, 'step')} of training"
        case LocalSpec(epochs=float(epochs)):
            budget = f"{epochs:g} epochs of training"
        case _:
            budget = f"{local.seconds:g} s of training"
    text = f"{budget} between two versions, batches of {local.batch_size}, learning rate {local.learning_rate:g}"
    if local.time_boxed:
        text += "; slower sites make fewer steps"
    if local.proximal_mu:
        text += f"; FedProx with mu {local.proximal_mu:g}"
    return text + ("; scores the versions it receives" if local.evaluate else "; scores no version")


def _strategy(strategy: StrategySpec) -> str:
    match strategy:
        case AutoSpec():
            return f"auto: buffered or calibrated, by how much the sites differ in speed; {_when(strategy.buffer)}"
        case BufferedSpec():
            return f"buffered (FedBuff): {_when(strategy.buffer)}"
        case CalibratedSpec(buffer=None):
            return "calibrated (CA2FL): a version when all sites but one have sent"
        case CalibratedSpec():
            return f"calibrated (CA2FL): {_when(strategy.buffer)}"
        case FedAsyncSpec():
            return f"fedasync: a version of every update, mixed in with {strategy.mixing:g}"
        case SyncSpec(k=k):
            who = "all sites that are online" if k is None else counted(k, "site")
            return f"sync (FedAvg): a version when {who} have sent, or after {strategy.deadline_s:g} s"
        case _:
            assert_never(strategy)


def _when(buffer: int | None) -> str:
    if buffer is None:
        return "a version when a third of the sites have sent, at least two"
    return f"a version when {counted(buffer, 'update')} came"


def _step(spec: TrainingSpec) -> str:
    optimizer = spec.server_optimizer
    if optimizer.lr != "auto":
        return f"{optimizer.kind}, server_optimizer.lr {optimizer.lr:g}"
    if spec.adapts_step:
        return f"{optimizer.kind}, lr auto: the aggregator measures how far each version may move"
    return f"{optimizer.kind}, lr {optimizer.base_lr:g}"


def _staleness(staleness: StalenessSpec) -> str:
    if staleness.kind == "constant":
        return "count as much as others"
    return f"count less, {staleness.kind} in how many versions they are behind"


def _sharing(spec: TrainingSpec) -> list[tuple[str, str]]:
    lines = [("travels", f"only {', '.join(spec.travel)}")] if spec.travel else []
    if spec.keep or not spec.travel:
        lines.append(("kept at home", ", ".join(spec.keep) or "nothing" + _default(spec, "keep")))
    if spec.frozen:
        lines.append(("frozen", ", ".join(spec.frozen)))
    return lines


def _first_params(spec: TrainingSpec) -> str:
    if spec.continues is not None:
        kept = ", and what each site kept of it" if spec.keeps_some else ""
        return f"{spec.continues.says}{kept}"
    if spec.initial_params is None:
        return "made by a site that accepted (default)"
    return f"{spec.initial_params} in the aggregator's params folder"


def _stop(stop: StopSpec) -> str:
    rules = []
    if stop.versions is not None:
        rules.append(f"after {counted(stop.versions, 'version')}")
    if stop.updates is not None:
        rules.append(f"after {counted(stop.updates, 'update')}")
    if stop.wall_time_s is not None:
        rules.append(f"after {stop.wall_time_s:g} s")
    if (target := stop.target) is not None:
        bound = f"at least {target.at_least:g}" if target.at_least is not None else f"at most {target.at_most:g}"
        rules.append(f"when the sites' mean {target.metric} is {bound}")
    if (patience := stop.patience) is not None:
        rules.append(
            f"when {counted(patience.versions, 'version')} in a row brought no {patience.better} {patience.metric}"
        )
    return " or ".join(rules) + (", whichever is first" if len(rules) > 1 else "")

"""Local models of sites: kept where they are asked for and are models of the job, refused otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedbus.aggregator.job.local_models import LocalModels, local_file
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.export.params_file import read_params
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool
from fedbus.tensors import codec

LAYOUT = Layout.of([TensorSpec(name="weight", shape=(40, 50), dtype="float32")])
CHUNK_BYTES = 256 * 1024
SPEC = TrainingSpec.parse(
    {
        "name": "heart",
        "task": "t",
        "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
        "stop": {"versions": 9},
        "evaluate_local": True,
    }
)


class Ward:
    """A job that ends, with a real spool and ledger; what sites are told is kept."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder = folder / "job"
        self.ledger, self.spool = ledger, Spool(folder / "spool")
        self.receipts: list[m.Receipt] = []
        self.said: list[str] = []
        keeper = ModelKeeper("heart", SPEC, ledger=ledger, spool=self.spool, folder=self.folder)
        keeper.start(LAYOUT, torch.linspace(-1, 1, LAYOUT.numel))
        tools: Any = SimpleNamespace(ledger=ledger, store=_at_once, compute=_at_once, announcer=self)
        self.models = LocalModels("heart", folder=self.folder, layout=LAYOUT, keeper=keeper, tools=tools)

    async def tell(self, site: str, receipt: m.Receipt) -> None:
        self.receipts.append(receipt)

    async def event(self, job: str, happened: events.Happened) -> None:
        self.said.append(happened.text)

    async def arrives(self, flat: torch.Tensor, *, site: str = "mercy", digest: str = LAYOUT.digest) -> m.Receipt:
        """A site's model is complete in the spool and is taken; its receipt."""
        update_id = f"{site}:0123abcd:{len(self.receipts)}"
        frames = list(codec.encode(flat, LAYOUT, Code.FP32, chunk_bytes=CHUNK_BYTES, seed=0))
        chunks = [
            m.Chunk(job="heart", transfer=update_id, part="update", index=i, count=len(frames), body=frame)
            for i, frame in enumerate(frames)
        ]
        manifest = m.UpdateManifest(
            job="heart",
            update_id=update_id,
            kind=m.UpdateKind.LOCAL,
            base_version=1,
            effort=Effort(),
            layout_digest=digest,
            frames=len(frames),
            body_bytes=sum(map(len, frames)),
        )
        self.ledger.record_arrivals(self.spool.append(chunks), [manifest], at=0.0)
        await self.models.take(manifest, {"mercy", "ucsf"})
        assert not self.ledger.chunks("heart", update_id)
        return self.receipts[-1]


async def _at_once(work: Callable[..., Any], *arguments: Any, **keys: Any) -> Any:
    return work(*arguments, **keys)


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        yield Ward(tmp_path, ledger)


MODEL = torch.randn(LAYOUT.numel, generator=torch.Generator().manual_seed(3))


async def test_a_model_that_is_asked_for_is_kept_exactly(ward: Ward) -> None:
    ward.models.ask()
    ward.models.promised("mercy", "mercy:0123abcd:0")
    ward.models.promised("ucsf", "")
    assert ward.models.missing({"mercy", "ucsf"}) == ["mercy"]
    assert ward.models.missing({"ucsf"}) == []
    assert (await ward.arrives(MODEL)).outcome is m.Outcome.FOLDED
    assert ward.models.missing({"mercy"}) == []
    assert ward.models.there == ["mercy"]
    assert torch.equal(read_params(local_file(ward.folder, "mercy"), LAYOUT), MODEL)


async def test_one_that_nobody_asks_for_or_not_any_more_is_refused(ward: Ward) -> None:
    assert "nobody asks for" in (await ward.arrives(MODEL)).reason
    ward.models.ask()
    assert "nobody asks for" in (await ward.arrives(MODEL, site="stranger")).reason
    ward.models.close()
    assert "not any more" in (await ward.arrives(MODEL)).reason
    assert ward.models.there == []
    assert ward.said[-1].startswith("local model of mercy refused: a local model that nobody asks for")


@pytest.mark.parametrize(
    ("model", "keys", "reason"),
    [
        (torch.full_like(MODEL, float("nan")), {}, "is not finite"),
        (MODEL, {"digest": "0" * 16}, "a local model of layout 0000000000000000"),
    ],
)
async def test_what_is_no_model_of_the_job_is_refused_and_not_waited_for(
    model: torch.Tensor, keys: dict[str, Any], reason: str, ward: Ward
) -> None:
    ward.models.ask()
    ward.models.promised("mercy", "mercy:0123abcd:0")
    assert reason in (await ward.arrives(model, **keys)).reason
    assert ward.models.missing({"mercy"}) == []
    assert ward.models.there == []


async def test_a_second_one_of_a_site_changes_nothing(ward: Ward) -> None:
    ward.models.ask()
    await ward.arrives(MODEL)
    assert "is here already" in (await ward.arrives(MODEL * 2)).reason
    assert torch.equal(read_params(local_file(ward.folder, "mercy"), LAYOUT), MODEL)

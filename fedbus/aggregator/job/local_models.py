"""The local models that sites leave at the end of a training, where they share them: files in the job's folder, one a
site, for jobs that evaluate.

A site says with its score of the last version which update brings its model; until that is there, or the time for
scores is over, the job waits for it. Decoding takes the keeper's spare vector, which is free until the best version is
shown; what comes later is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fedbus.aggregator.job import receipts
from fedbus.aggregator.job.verdicts import refuse
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.aggregator.tools import Tools
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.errors import DecodeError, LayoutError, ProtocolError
from fedbus.export.params_file import write_params
from fedbus.store.files import make_folder
from fedbus.tensors.codec import decode_all_

FOLDER = "local"


def local_file(job_folder: Path, site: str) -> Path:
    """Where a site's local model lies in the folder of its job."""
    return job_folder / FOLDER / f"{site}.safetensors"


class LocalModels:
    """Of one job; `folder` is the job's."""

    def __init__(self, job: str, *, folder: Path, layout: Layout, keeper: ModelKeeper, tools: Tools) -> None:
        self._job = job
        self._folder = folder
        self._layout = layout
        self._keeper = keeper
        self._tools = tools
        self._open = False
        self._promised: dict[str, str] = {}
        self._taken: set[str] = set()

    def ask(self) -> None:
        """Models are asked for, and taken from now on."""
        self._open = True

    def close(self) -> None:
        """What has not come by now is waited for no more, and refused."""
        self._open = False

    def promised(self, site: str, update_id: str) -> None:
        """A site says that this update brings its model."""
        if update_id:
            self._promised[site] = update_id

    @property
    def there(self) -> list[str]:
        """Sites whose model is here."""
        return sorted(file.stem for file in (self._folder / FOLDER).glob("*.safetensors"))

    def missing(self, active: Collection[str]) -> list[str]:
        """Sites that are there and whose model is on its way."""
        return sorted(site for site in self._promised.keys() - self._taken if site in active)

    async def take(self, manifest: m.UpdateManifest, accepted: Collection[str]) -> None:
        """Keep a site's model, or refuse it; its body is not needed any more."""
        site = m.UpdateId.parse(manifest.update_id).site
        try:
            self._check(manifest, site, accepted)
            await self._tools.compute(self._keep, manifest, site)
        except (ProtocolError, LayoutError, DecodeError) as exc:
            await refuse(manifest, str(exc), tools=self._tools, drop=self._keeper.drop)
            self._promised.pop(site, None)
            return
        self._taken.add(site)
        await self._tools.compute(self._keeper.drop, manifest.update_id)
        receipt = m.Receipt(job=self._job, update_id=manifest.update_id, outcome=m.Outcome.FOLDED)
        await receipts.give(receipt, self._tools)

    def _check(self, manifest: m.UpdateManifest, site: str, accepted: Collection[str]) -> None:
        if not self._open or site not in accepted:
            raise ProtocolError("a local model that nobody asks for, or not any more")
        if site in self._taken:
            raise ProtocolError(f"the local model of {site} is here already")
        if manifest.layout_digest != self._layout.digest:
            raise LayoutError(f"a local model of layout {manifest.layout_digest}, expected {self._layout.digest}")

    def _keep(self, manifest: m.UpdateManifest, site: str) -> None:
        flat = self._keeper.spare
        decode_all_(flat, self._keeper.frames(manifest.update_id), self._layout)
        if not bool(flat.isfinite().all()):
            raise DecodeError(f"the local model of {site} is not finite")
        path = local_file(self._folder, site)
        make_folder(path.parent)
        write_params(path, flat, self._layout, {"job": self._job, "site": site})

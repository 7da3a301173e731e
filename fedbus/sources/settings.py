"""`[site.source]` of a site's settings: which data source it watches, and what it may do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIB = 1 << 20
DAY_S = 86_400.0
NEEDS = {"folder": "folder", "dicomweb": "url", "flywheel": "project"}


class SourceSettings(BaseModel):
    """Off unless `kind` is given. Durations in seconds.

    url: of the server. folder: of the studies, on a disk that this machine sees. token_file: a bearer token, or the
    API key of Flywheel. project is Flywheel's. label_tag: the word that makes a label an approved one, a tag in
    Flywheel and a part of the series' description in a PACS. min_count: a smaller number of new labels is told as 0.
    model_task: jobs of this task give their model back, every `hand_back_every` versions and when training is over,
    to the MONAI Label model `model` or onto the file `model_file`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["folder", "monailabel", "dicomweb", "flywheel"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    folder: Path | None = None
    token_file: Path | None = None
    project: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    label_tag: Annotated[str, Field(min_length=1, max_length=200)] = "final"
    poll_s: Annotated[float, Field(ge=0.1, le=DAY_S)] = 60.0
    timeout_s: Annotated[float, Field(ge=0.1, le=3600)] = 30.0
    pass_limit_s: Annotated[float, Field(ge=1, le=DAY_S)] = 3600.0
    most_file_mib: Annotated[int, Field(ge=1, le=65_536)] = 2048
    min_count: Annotated[int, Field(ge=1, le=10**6)] = 1
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] | None = None
    model_file: Path | None = None
    model_task: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "segmentation"
    hand_back_every: Annotated[int, Field(ge=1, le=10**6)] = 10

    @property
    def most_bytes(self) -> int:
        return self.most_file_mib * MIB

    @property
    def hands_back(self) -> bool:
        return self.model is not None or self.model_file is not None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.kind == "monailabel" and (self.url is None) == (self.folder is None):
            raise ValueError("monailabel needs url (of its server) or folder (of its studies), and not both")
        needed = NEEDS.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"kind {self.kind} needs {needed}")
        if self.kind == "flywheel" and self.token_file is None:
            raise ValueError("kind flywheel needs token_file, a file that holds an API key")
        if self.model is not None and (self.kind != "monailabel" or self.url is None):
            raise ValueError("model is of a MONAI Label server (kind monailabel with url); use model_file for a file")
        if self.kind == "dicomweb" and self.hands_back:
            raise ValueError("a DICOMweb server takes no model back: leave model_file out")
        return self

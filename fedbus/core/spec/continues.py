"""Which job a training goes on from: `continues: JOB`, or `{job: JOB, version: last}`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from fedbus.core.protocol.messages import check_name
from fedbus.core.spec.sections import Spec


class ContinuesSpec(Spec):
    """A version that a job which has ended has left."""

    job: str
    """The id of a job that has ended, of the same task and network."""
    version: Literal["best", "last"] | Annotated[int, Field(ge=0, le=10**12)] = "best"
    """Which version of that job: best, last, or its number."""

    @field_validator("job")
    @classmethod
    def _job_name(cls, value: str) -> str:
        return check_name("job", value)

    @property
    def says(self) -> str:
        """The model in words."""
        which = f"version {self.version}" if isinstance(self.version, int) else f"the {self.version} version"
        return f"{which} of {self.job}"


def _job_from_text(value: Any) -> Any:
    return {"job": value} if isinstance(value, str) else value


Continues = Annotated[ContinuesSpec | None, BeforeValidator(_job_from_text)]

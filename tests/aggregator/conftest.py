from __future__ import annotations

from collections.abc import Callable

import pytest

from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.layout import Layout

Said = Callable[[Layout], m.UpdateManifest]


@pytest.fixture
def said() -> Said:
    """What a site says of the layout of its task's params, to a job `new` that has others."""
    return lambda layout: m.UpdateManifest(
        job="new",
        update_id="mercy:0123abcd:0",
        kind=m.UpdateKind.INITIAL,
        base_version=0,
        effort=Effort(),
        layout_digest=layout.digest,
        frames=1,
        body_bytes=1,
        layout=layout.to_dict(),
    )

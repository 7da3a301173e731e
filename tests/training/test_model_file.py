"""A model as a file for other programs: a bare state dict, never of another model than the one it replaces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fedbus.errors import LayoutError, StoreError
from fedbus.training.model_file import write_state_dict


def test_what_is_written_is_the_state_dict_to_the_bit(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    model[1].running_mean[0] = float("nan")
    write_state_dict(model.state_dict(), tmp_path / "model.pt")
    found = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(found) == list(model.state_dict())
    assert all(torch.equal(found[n], t) for n, t in model.state_dict().items() if not t.isnan().any())


@pytest.mark.parametrize("wrapped", [False, True])
def test_it_may_replace_a_file_of_the_same_model(tmp_path: Path, wrapped: bool) -> None:
    state = nn.Linear(2, 1).state_dict()
    torch.save({"model": state} if wrapped else state, tmp_path / "old.pt")
    write_state_dict(nn.Linear(2, 1).state_dict(), tmp_path / "new.pt", like=tmp_path / "old.pt")
    assert set(torch.load(tmp_path / "new.pt", weights_only=True)) == {"weight", "bias"}


@pytest.mark.parametrize("other", [nn.Linear(3, 1), nn.Linear(2, 1, bias=False), nn.Sequential(nn.Linear(2, 1))])
def test_a_file_of_another_model_is_not_replaced_and_a_tensor_is_named(tmp_path: Path, other: nn.Module) -> None:
    torch.save(other.state_dict(), tmp_path / "old.pt")
    with pytest.raises(LayoutError, match=r"weight|bias"):
        write_state_dict(nn.Linear(2, 1).state_dict(), tmp_path / "new.pt", like=tmp_path / "old.pt")
    assert not (tmp_path / "new.pt").exists()


def test_a_file_that_torch_cannot_load_is_said(tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(b"no model")
    with pytest.raises(StoreError, match="cannot be loaded"):
        write_state_dict(nn.Linear(2, 1).state_dict(), tmp_path / "new.pt", like=tmp_path / "old.pt")

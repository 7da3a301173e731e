"""Params as safetensors: every dtype of a job, without a second copy of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import LayoutError, StoreError
from fedbus.export.params_file import check_readable, read_params, write_params
from fedbus.tensors.sharing import layout_of

DTYPES = ["float32", "float16", "bfloat16", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_params_come_back_in_the_dtype_of_the_job(tmp_path: Path, dtype: str) -> None:
    layout = Layout.of(
        [
            TensorSpec(name="weight", shape=(700, 500), dtype=dtype),
            TensorSpec(name="bias", shape=(3,), dtype="float32"),
            TensorSpec(name="none", shape=(0, 3), dtype=dtype),
        ]
    )
    flat = torch.randn(layout.numel, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "params.safetensors"

    write_params(path, flat, layout, {"job": "heart"})

    found = load_file(path)
    assert torch.equal(found["weight"], flat[3:].view(700, 500).to(getattr(torch, dtype)))
    assert torch.equal(found["bias"], flat[:3])
    assert found["none"].shape == (0, 3)
    again = read_params(path, layout)
    assert torch.equal(again, torch.cat([flat[:3], found["weight"].float().reshape(-1)]))


W = TensorSpec(name="w", shape=(2,), dtype="float32")
TIED = TensorSpec(name="emb.weight", shape=(2,), dtype="float32", aliases=("head.weight",))


def test_counters_and_masks_stay_out(tmp_path: Path) -> None:
    path = tmp_path / "params.safetensors"
    save_file({"w": torch.ones(2), "steps": torch.tensor(3), "mask": torch.tensor([True])}, path)

    assert read_params(path, Layout.of([W])).tolist() == [1, 1]


def test_the_dtype_of_the_file_may_be_another(tmp_path: Path) -> None:
    path = tmp_path / "params.safetensors"
    save_file({"w": torch.tensor([0.5, 2.0]).half()}, path)

    assert read_params(path, Layout.of([W])).tolist() == [0.5, 2.0]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.emb.weight


def test_a_file_of_tied_weights_as_safetensors_writes_it_is_read_and_all_names_come_back(tmp_path: Path) -> None:
    model, layout = Model(), layout_of(Model())
    save_model(model, str(tmp_path / "tied.safetensors"))  # under one of the names

    flat = read_params(tmp_path / "tied.safetensors", layout)
    write_params(tmp_path / "out.safetensors", flat, layout, {})

    again = Model()
    again.load_state_dict(load_file(tmp_path / "out.safetensors"))
    assert torch.equal(again.head.weight, model.emb.weight)


@pytest.mark.parametrize("name", ["emb.weight", "head.weight"])
def test_either_name_of_a_tied_tensor_will_do(tmp_path: Path, name: str) -> None:
    save_file({name: torch.ones(2)}, tmp_path / "p.safetensors")

    assert read_params(tmp_path / "p.safetensors", Layout.of([TIED])).tolist() == [1, 1]


def test_what_the_job_keeps_at_the_sites_may_be_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "params.safetensors"
    save_file({"w": torch.ones(2), "bn.weight": torch.ones(3)}, path)

    assert read_params(path, Layout.of([W]), extra=True).tolist() == [1, 1]
    with pytest.raises(LayoutError, match=r"has bn\.weight beside what the task's model has"):
        read_params(path, Layout.of([W]))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"steps": torch.tensor(3)}, "lacks w, which the task's model has; it has steps"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, r"w is C64 \[2\], the task's model has float32 \[2\]"),
        ({"w": torch.ones(7)}, r"w is F32 \[7\], the task's model has float32 \[2\].*number of classes"),
        ({"module.w": torch.ones(2)}, r"begin with 'module\.'.*save model\.module\.state_dict\(\)"),
        ({"_orig_mod.w": torch.ones(2)}, r"begin with '_orig_mod\.'.*compiled"),
    ],
)
def test_a_file_of_another_model_is_refused_with_what_to_do(
    tmp_path: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    path = tmp_path / "params.safetensors"
    save_file(tensors, path)
    with pytest.raises(LayoutError, match=words):
        read_params(path, Layout.of([W]))


def test_a_task_that_returns_a_wrapped_model_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "params.safetensors"
    save_file({"w": torch.ones(2)}, path)
    wrapped = TensorSpec(name="module.w", shape=(2,), dtype="float32")
    with pytest.raises(LayoutError, match="let the task's model\\(\\) return the model without its wrapper"):
        read_params(path, Layout.of([wrapped]))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LFS, "Git LFS pointer.*git lfs pull"),
        (b"PK\x03\x04" + bytes(99), r"torch\.save.*safetensors\.torch\.save_file"),
        (b"\x80\x02" + bytes(99), "pickle"),
        (b"\x1f\x8b" + bytes(99), "gzip"),
        (b'{"weight_map": {}}', "JSON"),
        (b"", "it is empty"),
    ],
)
def test_what_people_take_for_safetensors_is_told_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "params.safetensors"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=words):
        check_readable(path)

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
import torch

from fedbus.core.spec.training import LocalSpec
from fedbus.errors import DataError, TaskError
from fedbus.tasks import fashion_mnist
from fedbus.tasks.fashion_mnist import DEBIAN, IMAGES, LABELS, FashionMnist
from fedbus.training.run import Run
from fedbus.training.task import Site

installed = pytest.mark.skipif(
    not (DEBIAN / IMAGES).exists(), reason="needs the Debian package dataset-fashion-mnist, see deploy/setup"
)


def site_of(folder: Path, name: str = "a", **config: object) -> Site:
    keys = {"sites": ["a", "b"], "images": 3000, "shared_test": True} | config
    return Site(name=name, data=folder, config=keys, seed=0, device=torch.device("cpu"))


@installed
def test_the_small_cnn_learns_to_tell_garments_apart(tmp_path: Path) -> None:
    task = FashionMnist(site_of(tmp_path, sites=["a"]))
    torch.manual_seed(0)
    model = task.model()

    task.train(model, Run(LocalSpec(epochs=2, batch_size=32, learning_rate=0.05)))

    assert sum(param.numel() for param in model.parameters()) == 9226
    assert task.evaluate(model).metrics["accuracy"] > 0.7


@installed
def test_all_sites_of_a_process_share_the_images_and_the_test_set(tmp_path: Path) -> None:
    first, second = (FashionMnist(site_of(tmp_path, name)) for name in "ab")

    assert first._test[0].data_ptr() == second._test[0].data_ptr()
    assert fashion_mnist.load_once(DEBIAN, 3000) is fashion_mnist.load_once(DEBIAN, 3000)


@installed
def test_the_images_are_the_first_ones_in_their_order() -> None:
    few, more = fashion_mnist.load_once(DEBIAN, 100), fashion_mnist.load_once(DEBIAN, 200)

    assert torch.equal(few[0], more[0][:100])
    assert few[1][:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # as published
    assert float(few[0].max()) == 1.0


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")

    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        FashionMnist(site_of(tmp_path))


def test_the_site_may_bring_the_files_itself(tmp_path: Path) -> None:
    pixels = bytes(range(256)) * (100 * 784 // 256 + 1)
    header = struct.pack(">4I", 0x803, 60_000, 28, 28)
    (tmp_path / IMAGES).write_bytes(gzip.compress(header + pixels))
    (tmp_path / LABELS).write_bytes(gzip.compress(struct.pack(">2I", 0x801, 60_000) + bytes(range(10)) * 10))

    task = FashionMnist(site_of(tmp_path, images=100, sites=["a"], shared_test=False))

    assert task.evaluate(task.model()).num_examples == 20


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"no idx file", mtime=0), gzip.compress(b"", mtime=0)[:-4]],
    ids=["no gzip", "no idx file", "cut"],
)
def test_a_file_that_is_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / IMAGES).write_bytes(content)

    with pytest.raises(DataError, match=IMAGES):
        FashionMnist(site_of(tmp_path))


def write_files(folder: Path, pixels: bytes, labels: bytes) -> None:
    (folder / IMAGES).write_bytes(gzip.compress(struct.pack(">4I", 0x803, 60_000, 28, 28) + pixels))
    (folder / LABELS).write_bytes(gzip.compress(struct.pack(">2I", 0x801, 60_000) + labels))


GOOD_PIXELS, GOOD_LABELS = bytes(range(256)) * 307, bytes(range(10)) * 10


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (bytes(value % 2 for value in GOOD_PIXELS), GOOD_LABELS, "the brightest of 100 images is 1: were they scaled"),
        (bytes(len(GOOD_PIXELS)), GOOD_LABELS, "are they empty"),
        (GOOD_PIXELS, bytes(range(1, 11)) * 10, "expected labels from 0 to 9, got 1 to 10: do the labels begin at 1"),
    ],
)
def test_files_of_the_right_form_with_other_data_are_refused(
    pixels: bytes, labels: bytes, message: str, tmp_path: Path
) -> None:
    write_files(tmp_path, pixels, labels)

    with pytest.raises(DataError, match=message):
        FashionMnist(site_of(tmp_path, images=100, sites=["a"]))


@pytest.mark.parametrize("damaged_at", [40, -6], ids=["in the images", "in the checksum"])
def test_a_damaged_file_is_refused(damaged_at: int, tmp_path: Path) -> None:
    write_files(tmp_path, GOOD_PIXELS, GOOD_LABELS)
    content = bytearray((tmp_path / IMAGES).read_bytes())
    content[damaged_at] ^= 0xFF
    (tmp_path / IMAGES).write_bytes(content)

    with pytest.raises(DataError, match="cannot be read"):
        FashionMnist(site_of(tmp_path, images=90, sites=["a"]))


@pytest.mark.parametrize("config", [{"network": "resnet"}, {"images": 0}, {"images": 60_001}, {"momentum": 1.0}])
def test_a_wrong_task_config_is_refused(config: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="task_config"):
        FashionMnist(site_of(tmp_path, **config))

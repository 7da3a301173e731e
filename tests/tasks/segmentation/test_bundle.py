"""The bundle of a segmentation: MONAI alone finds in an image what the sites find in it."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from fedbus.imaging.studies import Study
from fedbus.tasks.segmentation.cases import prepare
from fedbus.tasks.segmentation.config import read_config
from fedbus.tasks.segmentation.task import Segmentation
from fedbus.tasks.segmentation.windows import logits_of

SHAPE = (40, 48, 44)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose first axis runs to the left, with voxels of 0 around what the scanner sees."""
    folder = tmp_path_factory.mktemp("study")
    grid = np.stack(np.meshgrid(*(np.linspace(-2, 2, n) for n in SHAPE), indexing="ij"))
    image = 100 * (2 + np.sin(3 * grid[0]) * np.cos(2 * grid[1]) + np.sin(grid[2]))
    image[:, :, :4] = 0
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    for name, array in (("image", image.astype(np.float32)), ("label", (image > 300).astype(np.uint8))):
        nib.save(nib.Nifti1Image(array, affine), folder / f"{name}.nii.gz")
    return Study(id="one", image=folder / "image.nii.gz", label=folder / "label.nii.gz")


@pytest.mark.parametrize(
    "intensity",
    ["zscore", {"kind": "zscore", "nonzero": False}, "percentile", {"kind": "window", "low": 0, "high": 350}],
    ids=str,
)
def test_an_image_is_prepared_and_read_as_at_the_sites(study: Study, intensity: Any) -> None:
    from monai.bundle import ConfigParser

    given = {"classes": ["a"], "network": {"kind": "unet", "channels": [4, 8]}, "patch_size": [32, 32, 32]}
    config = read_config(given | {"intensity": intensity})
    torch.manual_seed(0)
    network = Segmentation.network(given).eval()
    parts = Segmentation.bundle(given | {"intensity": intensity})
    parser = ConfigParser(
        {"pre": {"_target_": "Compose", "transforms": list(parts.preprocessing)}, "inf": parts.inferer}
    )
    # when MONAI prepares the image and leads the network over it
    image = parser.get_parsed_content("pre")({"image": str(study.image)})["image"]
    with torch.no_grad():
        found = parser.get_parsed_content("inf")(image[None], network)
        ours = logits_of(network, prepare(study, config), config, torch.device("cpu"))
    # then it is what a site does with it
    assert torch.allclose(torch.as_tensor(found), ours, atol=1e-3)

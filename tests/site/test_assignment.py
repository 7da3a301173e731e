"""What a job asks of the trainer."""

from __future__ import annotations

from pathlib import Path

from fedbus.core.spec.training import TrainingSpec
from fedbus.site.job.assignment import opening
from fedbus.site.settings import SiteSettings


def test_the_trainer_is_told_which_tensors_travel_stay_and_are_frozen(tmp_path: Path) -> None:
    spec = TrainingSpec.parse(
        {
            "name": "heart",
            "task": "t",
            "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
            "stop": {"versions": 1},
            "travel": ["head.*"],
            "keep": ["batch_norm"],
            "frozen": ["body.*"],
        }
    )
    settings = SiteSettings(site_name="mercy", site_data=tmp_path, site_state_dir=tmp_path / "state")

    asked = opening("heart-1", spec, settings, devices=["cuda:1", "cuda:0"])

    assert (asked.travel, asked.keep, asked.frozen) == (("head.*",), ("batch_norm",), ("body.*",))
    assert (asked.device, asked.ranks) == ("cuda:1", ("cuda:0",))
    assert Path(asked.kept) == tmp_path / "state" / "kept" / "heart-1.safetensors"

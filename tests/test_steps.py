"""Steps of a training that look at the data before long work starts."""

import pytest

from speechbrain_ext.training.steps import prepare_data
from speechbrain_ext.utils.errors import InputError


@pytest.mark.parametrize("split", ["valid", "test"])
def test_recordings_of_hours_are_refused_before_training(split, tmp_path):
    for name in ("valid", "test"):
        duration = 7200.0 if name == split else 599.0
        (tmp_path / f"{name}.csv").write_text(
            f"id,wav,speaker,duration\na/1.wav,/data/a/1.wav,a,{duration}\n"
        )
    hparams = {"prepare_data": lambda: None, "save_folder": str(tmp_path)}
    with pytest.raises(InputError, match=f"/data/a/1.wav' of the {split} .*7200 s"):
        prepare_data(hparams)
    (tmp_path / f"{split}.csv").write_text("id,wav,speaker,duration\n")
    assert prepare_data(hparams)["valid"] == str(tmp_path / "valid.csv")

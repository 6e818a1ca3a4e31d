"""Checkpoints: half-written and half-deleted ones do not count."""

import pytest
import torch

from speechbrain_ext.utils.checkpoints import (
    AtomicCheckpointer,
    TrainingClock,
    best_checkpoint,
)
from speechbrain_ext.utils.errors import InputError


class Unsaveable(torch.nn.Linear):
    """Fails while it is saved, as a kill would."""

    def state_dict(self, *args, **kwargs):
        raise KeyboardInterrupt


def test_interrupted_save_is_no_checkpoint(tmp_path):
    good = torch.nn.Linear(1, 1)
    AtomicCheckpointer(tmp_path, {"model": good}).save_checkpoint()
    interrupted = AtomicCheckpointer(tmp_path, {"model": Unsaveable(1, 1)})
    with pytest.raises(KeyboardInterrupt):
        interrupted.save_checkpoint()
    assert len(list(tmp_path.iterdir())) == 2
    checkpointer = AtomicCheckpointer(tmp_path, {"model": torch.nn.Linear(1, 1)})
    assert len(checkpointer.list_checkpoints()) == 1
    assert checkpointer.recover_if_possible() is not None
    recovered = checkpointer.recoverables["model"].weight
    torch.testing.assert_close(recovered, good.weight)


@pytest.mark.parametrize(
    "file, kept",
    [("model.ckpt", 0.0), ("model.ckpt", 0.7), ("clock.ckpt", 0.0), ("CKPT.yaml", 0.0)],
)
def test_what_is_cut_short_is_named(tmp_path, file, kept):
    """As a crash of the machine, or a copy that broke off, leaves it."""
    recoverables = {"model": torch.nn.Linear(9, 9), "clock": TrainingClock()}
    checkpointer = AtomicCheckpointer(tmp_path, recoverables)
    folder = checkpointer.save_checkpoint(meta={"EER": 0.1}).path
    with open(folder / file, "r+b") as content:
        content.truncate(int(kept * (folder / file).stat().st_size))
    for find in (best_checkpoint, lambda _: checkpointer.recover_if_possible()):
        with pytest.raises(InputError, match=f"{file}' is cut short; delete the fold"):
            find(tmp_path)
    assert folder.is_dir()


@pytest.mark.parametrize("missing", ["model", "clock"])
def test_what_a_checkpoint_lacks_is_named(tmp_path, missing):
    recoverables = {"model": torch.nn.Linear(9, 9), "clock": TrainingClock()}
    checkpointer = AtomicCheckpointer(tmp_path, recoverables)
    checkpoint = checkpointer.save_checkpoint()
    checkpoint.paramfiles[missing].unlink()
    with pytest.raises(InputError, match=f"has no {missing}.ckpt: .* incomplete"):
        checkpointer.recover_if_possible()


def test_best_checkpoint_is_kept(tmp_path):
    checkpointer = AtomicCheckpointer(tmp_path, {"m": torch.nn.Linear(1, 1)})
    for eer in (0.3, 0.1, 0.2):
        checkpointer.save_and_keep_only(
            meta={"EER": eer}, min_keys=["EER"], num_to_keep=1
        )
    assert best_checkpoint(tmp_path).meta["EER"] == 0.1
    with pytest.raises(InputError, match="no checkpoint with minDCF"):
        best_checkpoint(tmp_path, "minDCF")


def test_clock_counts_from_when_it_is_started():
    clock = TrainingClock()
    clock._start -= 1000.0
    clock._before = 10.0
    assert clock.seconds() > 1000
    clock.start()
    assert 10 <= clock.seconds() < 500


def test_clock_goes_on_after_a_restart(tmp_path):
    clock = TrainingClock()
    clock._before = 100.0
    AtomicCheckpointer(tmp_path, {"clock": clock}).save_checkpoint()
    restarted = TrainingClock()
    AtomicCheckpointer(tmp_path, {"clock": restarted}).recover_if_possible()
    assert 100 < restarted.seconds() < 200

"""Processes that read: not forked (macOS, Python 3.14), and one that meets an error."""

import pickle

import pytest
import torch
from conftest import ROOT
from processes import run_python
from trainings import pretraining, speaker_training, utterances_of

from speechbrain_ext.dataio.datasets import embedding_loader, speaker_encoder
from speechbrain_ext.dataio.embedding_store import row_keys_of
from speechbrain_ext.dataio.hidden_states import (
    HiddenStates,
    hidden_state_crops,
    hidden_state_loader,
)


def check_sent(dataset, keys):
    """What arrives in another process gives the same items."""
    arrived = pickle.loads(pickle.dumps(dataset))
    for key in keys:
        item, other = dataset[key], arrived[key]
        assert list(item) == list(other)
        for name, value in item.items():
            same = torch.equal if isinstance(value, torch.Tensor) else str.__eq__
            assert same(value, other[name]), name


@pytest.mark.parametrize("kind", ["speakers", "distillation", "pretraining"])
def test_crops(kind, corpus, tmp_path):
    if kind == "pretraining":
        _, (dataset, *_) = pretraining(corpus, tmp_path / "training")
    else:
        folder = tmp_path / "training"
        distil = kind == "distillation"
        _, (dataset, *_) = speaker_training(corpus, folder, distil=distil)
    check_sent(dataset, [(0, 1), (0, 2), (5, 1)])


def test_whole_utterances(corpus):
    loader = embedding_loader(utterances_of(corpus), 16000, 10)
    check_sent(loader.dataset, [0, 3])


def test_hidden_states(corpus, tmp_path):
    utterances = utterances_of(corpus)
    frames = [torch.rand(9, 2, 3).half() for _ in utterances]
    keys = row_keys_of(utterances)
    HiddenStates.write(tmp_path / "states" / "0.safetensors", frames, keys)
    states = HiddenStates(tmp_path / "states", utterances)
    speakers = speaker_encoder(
        sorted({item["speaker"] for item in utterances.values()})
    )
    check_sent(
        hidden_state_crops(states, utterances, speakers, 4), [(0, 1), (0, 2), (3, 1)]
    )
    check_sent(hidden_state_loader(states, utterances, 10).dataset, [0, 3])


def test_a_training_whose_readers_are_not_forked(corpus, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        f"    sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "    from trainings import fit, speaker_training\n"
        "    multiprocessing.set_start_method('spawn', force=True)\n"
        f"    corpus, folder = Path({str(corpus)!r}), Path({str(tmp_path / 'out')!r})\n"
        "    brain, data = speaker_training(corpus, folder, n_steps=2, num_workers=1)\n"
        "    fit(brain, data)\n"
        "    assert brain.optimizer_step == 2\n"
    )
    done = run_python([script])
    assert done.returncode == 0, done.stderr


def test_an_error_of_a_reader_ends_the_program_with_one_line(corpus, tmp_path):
    script = tmp_path / "read.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "from trainings import utterances_of\n"
        "from speechbrain_ext.dataio.datasets import embedding_loader\n"
        "from speechbrain_ext.utils.errors import one_line_errors\n"
        f"utterances = utterances_of(Path({str(corpus)!r}))\n"
        "next(iter(utterances.values()))['wav'] = 'gone.wav'\n"
        "with one_line_errors():\n"
        "    for batch in embedding_loader(utterances, 16000, 2.0, num_workers=2):\n"
        "        print(batch.id)\n"
    )
    done = run_python([script], timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: 'gone.wav': there is no such file"


def test_pools_of_processes_end_as_before(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "import speechbrain_ext.utils.signals\n"
        "if __name__ == '__main__':\n"
        "    sys.pool = multiprocessing.Pool(3)\n"
        "    assert sys.pool.map(abs, [-1, 2]) == [1, 2]\n"
    )
    done = run_python([script], timeout=60)
    assert done.returncode == 0, done.stderr

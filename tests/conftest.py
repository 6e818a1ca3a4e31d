"""Shared fixtures: where the reference tensors are, small corpora."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from speechbrain.utils.importutils import LazyModule

# Hypothesis asks each module for its file; SpeechBrain's lazy ones would import
# packages for that which are not needed here.
LazyModule.__file__ = None

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def reference():
    """Loads a file of reference tensors, or skips where there are none."""

    def load(name):
        from safetensors.torch import load_file

        path = SHARED / "fixtures" / name
        if not path.is_file():
            pytest.skip(f"needs the reference tensors {path}")
        return load_file(path)

    return load


def write_voice(path, speaker, utterance, duration=1.2, sample_rate=16000):
    """Writes a harmonic tone whose pitch tells the speaker."""
    rng = np.random.default_rng([speaker, utterance])
    time = np.arange(int(duration * sample_rate)) / sample_rate
    pitch = 90 + 17 * speaker + rng.normal()
    wav = sum(
        np.sin(2 * np.pi * pitch * k * time) / (k + speaker % 3)
        for k in range(1, 9)
    )
    wav = 0.1 * wav + 0.01 * rng.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, sample_rate)


@pytest.fixture
def corpus(tmp_path):
    """A folder of 10 speakers with 4 utterances each."""
    root = tmp_path / "corpus"
    for speaker in range(10):
        for utterance in range(4):
            write_voice(
                root / f"spk{speaker}" / f"{utterance}.wav", speaker, utterance
            )
    return root


@pytest.fixture(scope="session")
def voices(tmp_path_factory):
    """Four recordings of two speakers, of different lengths."""
    folder = tmp_path_factory.mktemp("voices")
    paths = []
    for speaker in range(2):
        for utterance in range(2):
            path = folder / f"spk{speaker}-{utterance}.wav"
            write_voice(path, speaker, utterance, 1.0 + 0.3 * utterance)
            paths.append(path)
    return paths


def save_training(folder, hparams, overrides):
    """The folder of a training that took no step."""
    import torch

    from speechbrain_ext.config import read_configuration
    from speechbrain_ext.training.steps import speaker_modules
    from speechbrain_ext.utils.files import write_json

    arguments = [f"--{key}={value}" for key, value in overrides.items()]
    root = Path(__file__).resolve().parents[1]
    configuration = read_configuration(
        [
            str(root / "hparams" / hparams),
            *arguments,
            "--dataset=folder",
            f"--data_folder={folder}",
            f"--output_folder={folder}",
        ]
    )
    torch.manual_seed(0)
    built = configuration.build()
    speakers = ["ann", "bob", "eve"]
    modules = speaker_modules(built, speakers)
    for module in modules.values():
        for name, buffer in module.named_buffers():
            # As of a training: not the values that every such layer starts with
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    checkpoint = {"EER": 0.05, "threshold": 0.4321}
    built["checkpointer"].save_checkpoint(meta=checkpoint)
    write_json(folder / "save" / "speakers.json", speakers)
    configuration.save(folder / "hyperparams.yaml")
    metrics = {
        "EER": 0.05,
        "EER_95": [0.04, 0.06],
        "EER_threshold": 0.41,
        "minDCF_0.01": 0.4,
        "minDCF_0.05": 0.3,
        "n_target": 100,
        "n_nontarget": 200,
        "backend": "cosine",
        "command": "python recipes/VoxCeleb/train.py",
    }
    write_json(folder / "test" / "metrics.json", metrics)
    return folder


@pytest.fixture(scope="session")
def training(tmp_path_factory):
    """The folder of a training of L-TDNN on the package's encoder."""
    return save_training(
        tmp_path_factory.mktemp("training"),
        "ltdnn_wavlm.yaml",
        {
            "ssl_hub": "speechbrain_ext/wavlm-small",
            "conv_channels": 8,
            "pooled_channels": 16,
            "n_heads": 2,
            "emb_dim": 12,
        },
    )


@pytest.fixture(scope="session")
def model_folder(training, tmp_path_factory):
    """The same training, exported."""
    from speechbrain_ext.inference.export import export_model

    return export_model(training, tmp_path_factory.mktemp("export") / "model")

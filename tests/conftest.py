"""What several test modules share: paths, tiny settings, corpora, programs."""

import logging
import os
from pathlib import Path

# Two workers on two cores, a thread each; it counts before PyTorch is imported.
os.environ["OMP_NUM_THREADS"] = "1"
# A name that is no folder is asked for nowhere, and nothing waits for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import pytest
import soundfile
from processes import run_python
from speechbrain.utils.importutils import LazyModule

# Hypothesis asks each module for its file; SpeechBrain's lazy ones would import
# packages for that which are not needed here.
LazyModule.__file__ = None

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
DATA = Path(__file__).with_name("data")
TRAIN = ROOT / "recipes" / "VoxCeleb" / "train.py"
ECAPA = ROOT / "hparams" / "ecapa_fbank.yaml"
LTDNN = ROOT / "hparams" / "ltdnn_wavlm.yaml"
TINY = {
    "dataset": "folder",
    "valid_speakers": 3,
    "test_speakers": 3,
    "number_of_steps": 6,
    "steps_per_epoch": 3,
    "batch_size": 4,
    "sentence_len": 1.0,
    "num_workers": 0,
    "ckpt_interval_minutes": 0,
}
TINY_ECAPA = {**TINY, "ecapa_channels": 16}
TINY_LTDNN = {**TINY, "conv_channels": 16, "pooled_channels": 16}


# Importing it makes a device of PyTorch, which is for processes of their own.
collect_ignore = ["pretend_device.py", "device_checks.py"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n`, the tests of a file share its fixtures in one worker."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True)
def logging_as_before():
    """No log of a training outlives its test: the folder of its file does not."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.setLevel(level)
    root.handlers[:] = handlers


def command(script, hparams, options):
    """What follows `python` on the command line of a recipe."""
    arguments = [f"--{key}={value}" for key, value in options.items()]
    return [str(script), str(hparams), *arguments]


def run(script, hparams, options, cwd):
    """Runs a recipe's script in a process of its own."""
    return run_python(command(script, hparams, options), cwd)


def patched_train(folder, patch):
    """A script that runs train.py after some lines of Python."""
    script = folder / "patched_train.py"
    script.write_text(
        f"import runpy, sys\n{patch}sys.argv[0] = {str(TRAIN)!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return script


@pytest.fixture
def reference():
    """Loads a file of reference tensors, of the papers' own code."""

    def load(name):
        from safetensors.torch import load_file

        return load_file(DATA / name)

    return load


def write_voice(path, speaker, utterance, duration=1.2, sample_rate=16000):
    """Writes a harmonic tone whose pitch tells the speaker."""
    rng = np.random.default_rng([speaker, utterance])
    time = np.arange(int(duration * sample_rate)) / sample_rate
    pitch = 90 + 17 * speaker + rng.normal()
    wav = sum(
        np.sin(2 * np.pi * pitch * k * time) / (k + speaker % 3) for k in range(1, 9)
    )
    wav = 0.1 * wav + 0.01 * rng.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, sample_rate)


def write_corpus(root, n_speakers=10, n_utterances=4):
    """Writes a folder of speakers with their utterances."""
    for speaker in range(n_speakers):
        for utterance in range(n_utterances):
            write_voice(root / f"spk{speaker}/{utterance}.wav", speaker, utterance)
    return root


@pytest.fixture
def corpus(tmp_path):
    """A folder of 10 speakers with 4 utterances each."""
    return write_corpus(tmp_path / "corpus")


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
    from speechbrain_ext.training.recipes import build_training
    from speechbrain_ext.training.steps import speaker_modules
    from speechbrain_ext.utils.files import write_json

    arguments = [f"--{key}={value}" for key, value in overrides.items()]
    configuration = read_configuration(
        [
            str(ROOT / "hparams" / hparams),
            *arguments,
            "--dataset=folder",
            f"--data_folder={folder}",
            f"--output_folder={folder}",
        ]
    )
    torch.manual_seed(0)
    built = build_training(configuration)
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

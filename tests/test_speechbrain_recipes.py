"""Our systems in SpeechBrain's own recipe for VoxCeleb, as docs/tutorials/lobe.md says.

Its scripts are in no package: the tests that run them, unchanged, take them from a
clone of SpeechBrain's repository.
"""

import io
import os
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SHARED, run
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.parameter_transfer import Pretrainer

from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.dataio.corpora import demo
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm

PAGE = ROOT / "docs" / "tutorials" / "lobe.md"
RECIPES = Path(
    os.environ.get("SPEECHBRAIN_RECIPES", SHARED / "speechbrain" / "recipes")
)
RECIPE = RECIPES / "VoxCeleb" / "SpeakerRec"
# What takes the place of the page's own sizes
SMALL = {
    "LTDNN": {"conv_channels": 16, "pooled_channels": 16},
    "LAP_ASTP": {"pooled_channels": 16, "n_heads": 4},
    "LTDNN MultiHeadAttnPooling": {"conv_channels": 16, "pooled_channels": 16},
    "KDStudent": {"channels": 16},
}
EMB_DIM = 192


def systems():
    """The page's YAML of each system; what only the first has is of them all."""
    text = PAGE.read_text(encoding="utf-8")
    found = {}
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        names = re.findall(r"lobes\.([A-Z]\w+)", block)
        kept = [n for n in names if n not in ("SpeakerEmbedder", "NormalizedFbank")]
        found[" ".join(kept)] = {
            **next(iter(found.values()), {}),
            **YAML().load(block),
        }
    return found


SYSTEMS = systems()


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory):
    return save_small_wavlm(
        tmp_path_factory.mktemp("wavlm") / "small", n_layers=2, channels=32
    )


@pytest.fixture
def modules(request, wavlm, tmp_path):
    """The keys of a system, made small."""
    keys = YAML().load(_text(SYSTEMS[request.param]))
    encoder = keys["embedding_model"]["encoder"]
    back_end = keys["embedding_model"]["embedding_model"]
    back_end.update(SMALL[request.param])
    if "source" in encoder:
        encoder.update(source=str(wavlm), save_path=str(tmp_path))
        back_end.update(in_channels=32, n_layers=3)
    if "frame_pooling" in back_end:
        back_end["frame_pooling"].update(in_channels=16, n_heads=4)
    return keys


def _text(keys):
    """YAML as text."""
    stream = io.StringIO()
    YAML().dump(keys, stream)
    return stream.getvalue()


def test_the_page_has_the_systems():
    assert set(SYSTEMS) == set(SMALL)


@pytest.mark.parametrize("modules", SMALL, indirect=True)
def test_what_the_scripts_call(modules, tmp_path):
    built, again = (load_hyperpyyaml(_text(modules)) for _ in range(2))
    torch.manual_seed(0)
    wavs, lens = torch.randn(3, 16000), torch.tensor([1.0, 0.8, 0.55])

    # As train_speaker_embeddings.py
    parts = torch.nn.ModuleDict(
        {**built, "classifier": Classifier(EMB_DIM, out_neurons=2)}
    )
    frames = parts["mean_var_norm"](parts["compute_features"](wavs), lens)
    outputs = parts["classifier"](parts["embedding_model"](frames))
    assert outputs.shape == (3, 1, 2)
    outputs.sum().backward()
    back_end = parts["embedding_model"].embedding_model
    assert all(p.grad is not None for p in back_end.parameters())
    checkpointer = Checkpointer(
        tmp_path / "save", {"embedding_model": parts["embedding_model"]}
    )
    saved = checkpointer.save_checkpoint()

    # As speaker_verification_cosine.py
    pretrainer = Pretrainer(
        loadables={"embedding_model": again["embedding_model"]},
        paths={"embedding_model": f"{saved.path}/embedding_model.ckpt"},
    )
    pretrainer.collect_files()
    pretrainer.load_collected()
    model = again["embedding_model"].eval()
    with torch.no_grad():
        frames = again["mean_var_norm"](again["compute_features"](wavs), lens)
        embeddings = model(frames, lens)
        assert embeddings.shape == (3, 1, EMB_DIM)
        for wav, length, embedding in zip(wavs, lens, embeddings):
            wav = wav[: int(length * len(wav))].unsqueeze(0)
            alone = model(again["compute_features"](wav), torch.ones(1))
            torch.testing.assert_close(embedding, alone[0], atol=1e-5, rtol=0)
            whole = parts["embedding_model"].eval()(wav)
            torch.testing.assert_close(whole, alone, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """Three speakers to train on and three of the trials, as eSpeak NG speaks."""
    folder = tmp_path_factory.mktemp("voices")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "N_SPEAKERS": 6,
            "N_TEST_SPEAKERS": 3,
            "N_SESSIONS": 2,
            "N_UTTERANCES_PER_SESSION": 1,
            "N_TEST_TRIALS": 6,
        }.items():
            patch.setattr(demo, name, value)
        demo.build_demo_corpus(folder)
    return folder


def _recipe_yaml(name, modules):
    """A YAML of SpeechBrain's recipe with the keys of a system in their place."""
    keys = YAML().load((RECIPE / "hparams" / name).read_text(encoding="utf-8"))
    for key, value in modules.items():
        del keys[key]
        keys[key] = value
    # To the end, as they refer to what is now below them
    for key in ("modules", "checkpointer", "pretrainer"):
        if key in keys:
            keys[key] = keys.pop(key)
    return keys


@pytest.mark.skipif(
    not (RECIPE / "train_speaker_embeddings.py").is_file(),
    reason="needs SPEECHBRAIN_RECIPES, `recipes` of a clone of SpeechBrain",
)
@pytest.mark.parametrize("modules", SMALL, indirect=True)
def test_the_scripts_themselves(modules, voices, tmp_path):
    trial_list = str(voices / "veri_test.txt")
    training = _recipe_yaml("train_ecapa_tdnn.yaml", modules)
    # Noises and rooms are downloaded; what is left of the augmentation is not.
    for name in ("prepare_noise_data", "prepare_rir_data"):
        training[name] = YAML().load("!name:builtins.dict")
    for name in ("add_noise", "add_reverb"):
        del training[name]
    kept = [YAML().load(f"!ref <{name}>") for name in ("drop_freq", "drop_chunk")]
    training["wav_augment"].update(
        augmentations=kept, min_augmentations=2, max_augmentations=2
    )
    (tmp_path / "train.yaml").write_text(_text(training))
    common = {"data_folder": voices, "verification_file": trial_list}
    done = run(
        RECIPE / "train_speaker_embeddings.py",
        tmp_path / "train.yaml",
        {
            **common,
            "output_folder": tmp_path / "trained",
            "number_of_epochs": 1,
            "batch_size": 4,
            "sentence_len": 1.5,
            "num_workers": 0,
            "out_n_neurons": 3,
            "device": "cpu",
        },
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "epoch: 1" in (tmp_path / "trained" / "train_log.txt").read_text()
    (checkpoint,) = (tmp_path / "trained" / "save").glob("CKPT+*")

    verification = _recipe_yaml("verification_ecapa.yaml", modules)
    del verification["score_norm"]
    (tmp_path / "verify.yaml").write_text(_text(verification))
    done = run(
        RECIPE / "speaker_verification_cosine.py",
        tmp_path / "verify.yaml",
        {
            **common,
            "output_folder": tmp_path / "verified",
            "pretrain_path": checkpoint,
            "device": "cpu",
        },
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"EER\(%\)=\d+\.\d+", done.stdout + done.stderr)

    # The script embeds padded batches; each utterance alone gives the same scores.
    model = load_hyperpyyaml(_text(modules))["embedding_model"]
    model.load_state_dict(torch.load(checkpoint / "embedding_model.ckpt"))
    trials = read_trials(trial_list)
    with torch.no_grad():
        alone = {
            name: model.eval()(read_crop(voices / "wav" / name, 16000).unsqueeze(0))
            for name in trials.utterances()
        }
    lines = (tmp_path / "verified" / "scores.txt").read_text().splitlines()
    assert len(lines) == len(trials)
    for line, enrol, test in zip(lines, trials.enrol, trials.test):
        score = torch.cosine_similarity(alone[enrol], alone[test], dim=-1)
        assert abs(float(line.split()[-1]) - score.item()) < 1e-5

"""Masked-prediction pre-training: targets, losses, the recipe, the probes."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import LTDNN, ROOT, TINY_LTDNN, TRAIN, run, write_corpus, write_voice
from safetensors.torch import load_file

from speechbrain_ext.analysis.probing import (
    probe_phones,
    probe_speakers,
    read_phones,
)
from speechbrain_ext.augment.vocal_tract import VocalTractPerturb
from speechbrain_ext.dataio.datasets import crop_pair_dataset
from speechbrain_ext.lobes.encoders.small_wavlm import (
    save_encoder,
    save_small_wavlm,
    small_wavlm,
)
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
from speechbrain_ext.lobes.models.masked_prediction import MaskedPrediction
from speechbrain_ext.lobes.units import (
    HiddenStateFeatures,
    KMeansUnits,
    MFCCFeatures,
)
from speechbrain_ext.nnet.losses import UtteranceContrast
from speechbrain_ext.training.pretraining import fit_units
from speechbrain_ext.utils.errors import InputError

PRETRAIN = ROOT / "recipes" / "Pretrain" / "train.py"
ITERATIONS = [
    ROOT / "hparams" / "pretrain_wavlm.yaml",
    ROOT / "hparams" / "pretrain_wavlm_iteration2.yaml",
]
TINY = {
    "dataset": "folder",
    "valid_speakers": 3,
    "test_speakers": 3,
    "number_of_steps": 4,
    "steps_per_epoch": 2,
    "batch_size": 4,
    "sentence_len": 1.0,
    "num_workers": 0,
    "encoder_layers": 2,
    "encoder_channels": 32,
    "contrast_layer": 1,
    "n_units": 5,
    "n_units_utterances": 12,
    "n_rooms": 2,
}


def two_tones():
    """A low tone, then a high one, at 16 kHz."""
    time = torch.arange(16000) / 16000
    low, high = (torch.sin(2 * np.pi * f * time) for f in (300.0, 3000.0))
    return torch.cat([low, high]).unsqueeze(0) + 1e-3 * torch.randn(1, 32000)


@pytest.mark.parametrize("n_samples", [760, 16000, 16319, 40001])
def test_mfccs_have_the_frames_of_the_encoder(n_samples):
    encoder = small_wavlm(n_layers=1, channels=32, n_bands=8)
    frames = encoder._get_feat_extract_output_lengths(n_samples)
    mfccs = MFCCFeatures(receptive_field=760)
    assert mfccs(torch.randn(1, n_samples)).shape[1] == frames


def test_mel_filters_answer_their_own_frequency():
    encoder = small_wavlm(n_layers=1, channels=64, n_bands=32)
    time = torch.arange(16000) / 16000
    answers = []
    for frequency in (250.0, 1000.0, 4000.0):
        tone = torch.sin(2 * np.pi * frequency * time).unsqueeze(0)
        with torch.no_grad():
            filters = encoder.feature_extractor.conv_layers[0].conv
            energy = filters(tone.unsqueeze(1)).square().mean(2)[0]
        answers.append(int(energy.view(32, 3).sum(1).argmax()))
    low, high = (2595 * np.log10(1 + f / 700) for f in (60.0, 7600.0))
    for band, frequency in zip(answers, (250.0, 1000.0, 4000.0)):
        mel = 2595 * np.log10(1 + frequency / 700)
        assert abs(band - ((mel - low) / (high - low) * 33 - 1)) <= 0.6


def test_untrained_front_end_is_a_filter_bank_only_where_asked_for():
    plain = small_wavlm(n_layers=1, channels=32, n_bands=8, mel_filters=False)
    mel = small_wavlm(n_layers=1, channels=32, n_bands=8)
    for name, value in mel.named_parameters():
        same = torch.equal(value, plain.get_parameter(name))
        assert same == ("conv.weight" not in name), name


def test_units_tell_sounds_apart_and_survive_a_file(tmp_path):
    wav = two_tones()
    units = KMeansUnits(MFCCFeatures(), n_units=2)
    units.fit([wav])
    found = units(wav)[0]
    assert len(found[:47].unique()) == len(found[53:].unique()) == 1
    assert found[0] != found[-1]
    units.save(tmp_path / "units.safetensors")
    again = KMeansUnits(MFCCFeatures(), n_units=2)
    again.load(tmp_path / "units.safetensors")
    assert torch.equal(again(wav)[0], found)


def test_units_of_a_hidden_state(tmp_path):
    folder = save_small_wavlm(tmp_path / "wavlm", n_layers=2, channels=32)
    encoder = SSLEncoder(folder, layers=[1])
    units = KMeansUnits(HiddenStateFeatures(encoder), n_units=3)
    units.fit([two_tones()])
    expected, _ = encoder(two_tones())
    assert units(two_tones()).shape == expected.shape[1:3]
    assert units.centroids.shape == (3, 32)


def test_fewer_frames_than_units_is_an_error():
    with pytest.raises(InputError, match="n_units=100"):
        KMeansUnits(MFCCFeatures(), n_units=100).fit([torch.randn(1, 8000)])


def test_contrast_wants_the_partner():
    parts = torch.eye(6)
    loss = UtteranceContrast(0.1)
    assert loss(parts, parts) < 0.01
    assert loss(parts, parts.roll(1, 0)) > 5
    # All alike: nothing tells the partner from 10 others.
    alike = torch.ones(6, 4)
    assert loss(alike, alike) == pytest.approx(np.log(11), rel=1e-4)


def small_model(**changes):
    torch.manual_seed(0)
    encoder = small_wavlm(n_layers=2, channels=32, n_bands=8)
    return MaskedPrediction(encoder, n_units=4, contrast_layer=1, **changes)


def test_only_masked_frames_count_with_full_weight():
    model = small_model(masked_weight=1.0).eval()
    wavs = torch.randn(4, 8000)
    units = torch.zeros(4, 23, dtype=torch.long)
    np.random.seed(0)
    whole = model(wavs, units)["prediction"].detach()
    model.masked_weight = 0.0
    np.random.seed(0)
    others = model(wavs, units)["prediction"].detach()
    model.masked_weight = 0.25
    np.random.seed(0)
    mixed = model(wavs, units)["prediction"].detach()
    assert whole != others
    assert mixed == pytest.approx(0.25 * whole.item() + 0.75 * others.item())


def test_masked_units_are_learned():
    model = small_model()
    wavs = two_tones().repeat(4, 1)[:, 8000:24000]
    units = KMeansUnits(MFCCFeatures(receptive_field=760), n_units=2)
    units.fit([wavs])
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    accuracies = []
    for _ in range(60):
        losses = model(wavs, units(wavs))
        optimizer.zero_grad()
        losses["prediction"].backward()
        optimizer.step()
        accuracies.append(losses["masked_accuracy"].item())
    assert np.mean(accuracies[-5:]) > 0.9


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Both iterations on a tiny corpus; the first is killed and resumed."""
    folder = tmp_path_factory.mktemp("pretrain")
    write_corpus(folder / "corpus")
    options = {**TINY, "data_folder": folder / "corpus"}
    script = folder / "killed.py"
    script.write_text(
        "import runpy, sys\nimport speechbrain_ext.training.pretraining as p\n"
        "end = p.PretrainingBrain.on_stage_end\n"
        "def killed(self, stage, *args, **kwargs):\n"
        "    end(self, stage, *args, **kwargs)\n"
        "    if self.optimizer_step == 2 and stage.name == 'VALID':\n"
        "        sys.exit(9)\n"
        "p.PretrainingBrain.on_stage_end = killed\n"
        f"sys.argv[0] = {str(PRETRAIN)!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    killed = run(script, ITERATIONS[0], options, folder)
    assert killed.returncode == 9, killed.stderr
    units = folder / "results/pretrain_wavlm/1986/units.safetensors"
    stamp = units.stat().st_mtime_ns
    done = run(PRETRAIN, ITERATIONS[0], options, folder)
    assert done.returncode == 0, done.stderr
    del options["encoder_channels"]  # those of the first iteration's encoder
    done = run(PRETRAIN, ITERATIONS[1], {**options, "units_layer": 1}, folder)
    assert done.returncode == 0, done.stderr
    assert units.stat().st_mtime_ns == stamp
    return folder


def test_history_has_each_validation_once(pretrained):
    for name in ("pretrain_wavlm", "pretrain_wavlm_iteration2"):
        path = pretrained / "results" / name / "1986" / "losses.csv"
        with open(path, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["2", "4"]
        assert all(float(row["valid_prediction"]) > 0 for row in rows)
        assert path.with_suffix(".png").stat().st_size > 10000


def test_second_iteration_starts_from_the_first(pretrained):
    first, second = (
        SSLEncoder(pretrained / "results" / name / "1986" / "encoder")
        for name in ("pretrain_wavlm", "pretrain_wavlm_iteration2")
    )
    fresh = small_wavlm(n_layers=2, channels=32)
    distances = [
        sum(
            (a - b).abs().mean().item()
            for a, b in zip(second.model.parameters(), other.parameters())
        )
        for other in (first.model, fresh)
    ]
    assert 0 < distances[0] < distances[1]


def test_encoder_is_a_hub_folder_in_half_precision(pretrained, tmp_path):
    folder = pretrained / "results/pretrain_wavlm/1986/encoder"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "preprocessor_config.json"}
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32"  # what SpeechBrain's lobes compute in
    weights = load_file(folder / "model.safetensors").values()
    assert {weight.dtype for weight in weights} == {torch.float16}
    encoder = SSLEncoder(folder)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    options = {
        **TINY_LTDNN, "ssl_hub": folder, "n_heads": 4,
        "data_folder": pretrained / "corpus", "output_folder": tmp_path / "out",
    }  # fmt: skip
    done = run(TRAIN, LTDNN, options, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "test" / "metrics.json").is_file()


def test_encoder_is_saved_once(tmp_path):
    encoder = small_wavlm(n_layers=1, channels=32, n_bands=8)
    save_encoder(encoder, tmp_path / "encoder")
    with pytest.raises(OSError):
        save_encoder(encoder, tmp_path / "encoder")
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]


class KnownEncoder(torch.nn.Module):
    """Layer 0 says nothing, layer 1 tells the first sample of the frame."""

    n_layers, channels, hop, receptive_field = 2, 4, 320, 320

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, wavs):
        frames = wavs[:, : wavs.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        one_hot = torch.nn.functional.one_hot((4 * frames[..., 0]).long(), 4)
        silent = torch.zeros_like(one_hot)
        return torch.stack([silent, one_hot]).float(), torch.ones(len(wavs))


def write_labelled(folder, speaker, utterance):
    """Frames with the values 0 and 1/2 in turn, or 1/4 of another speaker."""
    import soundfile

    values = np.repeat([0.25 * speaker, 0.5], 1600)
    wav = np.tile(values, 5)
    path = folder / f"{speaker}-{utterance}.wav"
    soundfile.write(path, wav, 16000, subtype="FLOAT")
    return path.name, {
        "wav": str(path), "speaker": str(speaker), "duration": 1.0,
    }  # fmt: skip


def test_probes_find_the_layer_that_knows(tmp_path):
    utterances = dict(
        write_labelled(tmp_path, speaker, utterance)
        for speaker in range(2)
        for utterance in range(6)
    )
    speakers = probe_speakers(KnownEncoder(), utterances)
    assert speakers == [0.5, 1.0]
    lines = ["id,start,phone"] + [
        f"{name},{0.2 * i + start:.1f},{phone}"
        for name in utterances
        for i in range(5)
        for start, phone in ((0.0, "s"), (0.1, "i"))
    ]
    (tmp_path / "phones.csv").write_text("\n".join(lines), encoding="utf-8")
    phones = read_phones(tmp_path / "phones.csv")
    accuracies = probe_phones(KnownEncoder(), utterances, phones, {"0"})
    assert accuracies[0] == 0.5 and accuracies[1] == 1.0
    with pytest.raises(InputError, match="test speakers"):
        probe_phones(KnownEncoder(), utterances, phones, set())


def test_phones_without_a_column_are_an_error(tmp_path):
    (tmp_path / "phones.csv").write_text("id,phone\n", encoding="utf-8")
    with pytest.raises(InputError, match="phones.csv.* start"):
        read_phones(tmp_path / "phones.csv")


def test_unknown_embedded_encoder_is_an_error():
    with pytest.raises(FileNotFoundError, match="speechbrain_ext/wavlm-small"):
        SSLEncoder("speechbrain_ext/wavlm-giant")


def test_teacher_of_the_second_iteration_must_be_there(tmp_path):
    done = run(PRETRAIN, ITERATIONS[1], {"data_folder": tmp_path}, tmp_path)
    assert done.returncode != 0
    assert "hparams/pretrain_wavlm.yaml first" in done.stderr.splitlines()[-1]


def test_encoder_of_the_package():
    encoder = SSLEncoder("speechbrain_ext/wavlm-small")
    assert encoder.n_layers >= 7 and encoder.hop == 320
    folder = ROOT / "speechbrain_ext" / "pretrained" / "wavlm-small"
    assert (folder / "model.safetensors").stat().st_size <= 10_000_000
    hidden_states, _ = encoder(two_tones())
    assert hidden_states.shape[2] == 98 and hidden_states.isfinite().all()
    # A layer that adds nothing would be a copy of the one before.
    for below, above in zip(hidden_states, hidden_states[1:]):
        cosines = torch.cosine_similarity(below, above, dim=-1)
        assert cosines.mean() < 0.99


@pytest.mark.parametrize(
    "change, said",
    [
        ({"n_units": 5}, "n_units (4, not 5)"),
        ({"seed": 7}, "seed (1986, not 7)"),
        ({"features": MFCCFeatures(n_mfcc=12)}, "features ("),
        ({"n_utterances": 3}, "n_utterances (4, not 3)"),
        ({"crop_duration": 0.75}, "crop_duration (0.5, not 0.75)"),
        ({"change_voice": VocalTractPerturb(0.9, 1.1)}, "change_voice (null, not "),
        ({"utterance": 9}, "utterances ("),
    ],
)
def test_units_of_something_else_are_fitted_again(tmp_path, caplog, change, said):
    path = tmp_path / "units.safetensors"

    def fit(
        n_units=4,
        seed=1986,
        features=None,
        n_utterances=4,
        crop_duration=0.5,
        change_voice=None,
        utterance=3,
        is_training=False,
    ):
        items = {}
        for number in (0, 1, 2, utterance):
            wav = tmp_path / f"{number}.wav"
            write_voice(wav, number, number)
            items[str(number)] = {"wav": str(wav), "duration": 1.2}
        units = KMeansUnits(features or MFCCFeatures(), n_units, seed)
        fit_units(
            units, path, crop_pair_dataset(items, 16000, crop_duration, change_voice),
            n_utterances, {"batch_size": 2}, crop_duration, change_voice, is_training,
        )  # fmt: skip

    fit()
    first = path.stat().st_mtime_ns
    # The audio is written anew each time, as where it is copied for a job.
    fit(is_training=True)
    assert path.stat().st_mtime_ns == first and not caplog.text
    with pytest.raises(InputError, match="learns units of other .*output_folder"):
        fit(**change, is_training=True)
    assert path.stat().st_mtime_ns == first
    fit(**change)
    assert path.stat().st_mtime_ns != first
    assert "units.safetensors' is of other " in caplog.text and said in caplog.text

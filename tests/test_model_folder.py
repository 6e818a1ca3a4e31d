"""Exported models: loaded here and by SpeechBrain, with equal embeddings."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import save_training
from huggingface_hub import HfApi
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from speechbrain.inference import speaker as plain
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.interfaces import foreign_class

from speechbrain_ext import cli
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.inference.export import export_model
from speechbrain_ext.inference.model_folder import describe, find_model
from speechbrain_ext.inference.model_scoring import Cohort, ModelScoring
from speechbrain_ext.inference.push import push_model
from speechbrain_ext.inference.sources import load_model
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.processing.calibration import Calibration
from speechbrain_ext.utils import distributed
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import write_json

N_SAMPLES = [16000, 9000, 4001]


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    wavs = [0.1 * torch.randn(n) for n in N_SAMPLES]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    padded[1:, -1000:] = 7.0  # what stands in the padding must not matter
    return wavs, padded, torch.tensor(N_SAMPLES) / N_SAMPLES[0]


@pytest.fixture(scope="module")
def ours(model_folder):
    return SpeakerRecognition.from_hparams(model_folder)


@pytest.fixture(scope="module")
def cohort():
    torch.manual_seed(2)
    speakers = [f"c{i // 2}" for i in range(20)]
    names = [f"{speaker}/{i}" for i, speaker in enumerate(speakers)]
    return EmbeddingStore(names, torch.randn(20, 12), speakers, [2.0] * 20, "")


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """The results of a verification with AS-norm and a calibration."""
    folder = tmp_path_factory.mktemp("verified")
    metrics = {
        "EER": 0.03, "minDCF_0.01": 0.2, "minDCF_0.05": 0.1, "n_target": 10,
        "n_nontarget": 20, "backend": "cosine", "score_norm": "s-norm",
        "cohort_size": 4, "subtract_mean": True, "trained_model": "/home/me/secret",
    }  # fmt: skip
    write_json(folder / "metrics.json", metrics)
    Calibration(["score"], [2.0], -1.0).save(folder / "calibration.json")
    return folder


def test_training_and_folder_are_one_model(training, ours, batch):
    trained = SpeakerRecognition.from_training(training)
    _, padded, lengths = batch
    torch.testing.assert_close(
        ours.encode_batch(padded, lengths), trained.encode_batch(padded, lengths)
    )
    assert ours.fingerprint == trained.fingerprint
    assert ours.threshold == trained.threshold == 0.4321
    assert "validation trials of folder" in ours.scoring.threshold_from


@pytest.mark.parametrize("load", ["ours", "plain", "foreign"])
def test_embeddings_are_equal_and_independent_of_the_batch(
    load, ours, model_folder, batch, tmp_path
):
    model = ours
    if load == "plain":
        model = EncoderClassifier.from_hparams(str(model_folder), savedir=tmp_path)
    elif load == "foreign":
        model = foreign_class(
            str(model_folder),
            pymodule_file="custom_interface.py",
            classname="CalibratedSpeakerRecognition",
        )
    wavs, padded, lengths = batch
    together = model.encode_batch(padded, lengths)
    for i, wav in enumerate(wavs):
        alone = model.encode_batch(wav)
        assert alone.shape == (1, 1, 12)
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)
        expected = ours.encode_batch(wav)
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)
    assert model.classify_batch(wavs[0])[3] == ours.classify_batch(wavs[0])[3]


def test_the_folder_moves_and_has_no_pickle(model_folder, ours, batch, tmp_path):
    moved = shutil.copytree(model_folder, tmp_path / "moved")
    assert not [p for p in moved.rglob("*") if p.suffix in (".ckpt", ".bin", ".pt")]
    text = (moved / "hyperparams.yaml").read_text()
    assert str(model_folder.parent) not in text and "!apply:os" not in text
    wav = batch[0][0]
    again = SpeakerRecognition.from_hparams(str(moved))
    torch.testing.assert_close(again.encode_batch(wav), ours.encode_batch(wav))


def test_waveforms_of_every_kind(ours, batch):
    wav = batch[0][0].clamp(-1, 1)
    right = ours.encode_batch(wav.unsqueeze(0))
    for given in (wav, wav.double()):
        torch.testing.assert_close(ours.encode_batch(given), right)
    integers = (wav * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)
    scaled = ours.encode_batch(integers.float() / 2**15)
    torch.testing.assert_close(ours.encode_batch(integers), scaled)
    # As soundfile reads, and as wave and scipy do
    for array, expected in ((wav.double(), right), (integers, scaled)):
        torch.testing.assert_close(ours.encode_batch(array.numpy()), expected)
    torch.testing.assert_close(ours.encode_batch(wav.tolist()), right)
    assert ours.verify_batch(wav.numpy(), wav.numpy())[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "wavs, message",
    [
        (torch.zeros(16000, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 1, 16000), r"shape \(1, 1, 16000\); give"),
        (torch.zeros(0, 16000), "no samples"),
        (torch.zeros(1, 0), "no samples"),
        # A recording of two channels as soundfile has it
        (np.zeros((16000, 2)), r"\(16000, 2\) are more than each has samples"),
        ([torch.zeros(16000), torch.zeros(8000)], "batch_pad_right"),
        ([[0.0, 0.1], [0.2]], "batch_pad_right"),
    ],
)
def test_what_is_no_waveform(ours, wavs, message):
    with pytest.raises(InputError, match=message):
        ours.encode_batch(wavs)


def test_lengths_of_every_kind(ours, batch):
    wavs = batch[1][:2]
    right = ours.encode_batch(wavs, torch.tensor([1.0, 0.5]))
    for lengths in ([1.0, 0.5], np.array([1.0, 0.5])):
        torch.testing.assert_close(ours.encode_batch(wavs, lengths), right)
        result = ours.verify_batch(wavs, wavs, lengths, lengths)
        torch.testing.assert_close(result.score, torch.ones(2, 1))


@pytest.mark.parametrize(
    "lengths, message",
    [
        ([1.0], r"shape \(1,\); give one for each of 2"),
        ([[1.0], [0.5]], r"shape \(2, 1\)"),
        ([1.0, 0.0], "from 0 to 1"),
        ([1.0, float("nan")], "from nan"),
        ([16000, 8000], "relative to the longest .* from 8000 to 16000"),
    ],
)
def test_what_is_no_length(ours, batch, lengths, message):
    with pytest.raises(InputError, match=f"wav_lens .*{message}"):
        ours.encode_batch(batch[1][:2], lengths)


def test_model_as_a_part_of_what_is_trained(ours, batch):
    wav = batch[1][:1]
    right = ours.encode_batch(wav)
    whole = torch.nn.ModuleDict({"speaker": copy.deepcopy(ours)}).train()
    torch.testing.assert_close(whole["speaker"].encode_batch(wav), right)
    for dtype in (torch.float16, torch.float64):
        with pytest.raises(InputError, match=f"{dtype}; call float"):
            whole["speaker"].to(dtype).encode_batch(wav)
    # float16 has rounded them.
    again = whole["speaker"].float().encode_batch(wav)
    torch.testing.assert_close(again, right, atol=0.05, rtol=0.05)


def test_files_that_cannot_be_read_are_named(ours, voices, tmp_path):
    missing = tmp_path / "gone.wav"
    message = "gone.wav': there is no such file"
    with pytest.raises(InputError, match=message):
        ours.encode_file(missing)
    with pytest.raises(InputError, match=message):
        ours.verify_files(voices[0], missing)
    with pytest.raises(InputError, match=message):
        ours.enrol("one", [voices[0], missing])


def test_decisions_are_those_of_the_model(ours, model_folder, voices):
    score, decision = ours.verify_files(voices[0], voices[1])
    assert score.shape == decision.shape == (1,)
    # SpeechBrain's own class decides at 0.25, the exported one as the model says.
    foreign = foreign_class(
        str(model_folder),
        pymodule_file="custom_interface.py",
        classname="CalibratedSpeakerRecognition",
    )
    wavs = [ours.load_audio(path).unsqueeze(0) for path in voices[:2]]
    for model in (ours, foreign):
        for threshold in (float(score) - 0.01, float(score) + 0.01):
            _, same = model.verify_batch(*wavs, threshold=threshold)
            assert bool(same) == (threshold < float(score))
    for threshold in (float(score) - 0.01, float(score) + 0.01):
        ours.threshold = foreign.hparams.scoring.threshold = threshold
        results = [ours.verify_batch(*wavs), foreign.verify_batch(*wavs)]
        results += [ours.verify_files(*voices[:2])]
        for result in results:
            torch.testing.assert_close(result.score.squeeze(), score.squeeze())
            assert bool(result.decision) == (threshold < float(score))
            assert result.probability is None
    ours.threshold = 0.4321
    theirs = plain.SpeakerRecognition.from_hparams(str(model_folder))
    torch.testing.assert_close(theirs.verify_batch(*wavs)[0][0], score)


def test_enrol_and_identify(ours, voices):
    ours.enrolled.clear()
    with pytest.raises(InputError, match="nobody is enrolled"):
        ours.identify(voices[0])
    first = ours.enrol("one", voices[0])
    assert torch.equal(first[0], ours.encode_file(voices[0]))
    both = ours.enrol("both", voices[2:])
    units = torch.nn.functional.normalize(both, dim=1).mean(dim=0)
    expected = torch.cosine_similarity(units, first[0], dim=0)
    candidates = ours.identify(voices[0], top=2)
    assert [one.name for one in candidates] == ["one", "both"]
    assert candidates[0].score == pytest.approx(1.0, abs=1e-5)
    assert candidates[1].score == pytest.approx(float(expected), abs=1e-5)
    assert candidates[0].decision and candidates[0].probability is None
    assert len(ours.identify(voices[0], top=1)) == 1
    ours.enrolled.clear()


def test_score_normalisation_and_calibration_travel(
    training, verified, cohort, voices, tmp_path
):
    folder = export_model(
        training, tmp_path / "m", verification=verified, cohort=cohort
    )
    assert "secret" not in (folder / "README.md").read_text()
    assert "secret" not in (folder / "model.json").read_text()
    model = SpeakerRecognition.from_hparams(folder)
    result = model.verify_files(*voices[:2])
    # By hand: centred cosines, the four nearest speakers of each side
    centred = model.embed_files(voices[:2]) - cohort.embeddings.mean(dim=0)
    unit = torch.nn.functional.normalize(centred, dim=1)
    cohort_unit = torch.nn.functional.normalize(
        cohort.embeddings - cohort.embeddings.mean(dim=0), dim=1
    )
    means = torch.nn.functional.normalize(
        cohort_unit.view(10, 2, 12).mean(dim=1), dim=1
    )
    nearest = (unit @ means.T).topk(4, dim=1).values
    score = unit[0] @ unit[1]
    expected = ((score - nearest.mean(1)) / nearest.std(1)).mean()
    torch.testing.assert_close(result.score[0].float(), expected, atol=1e-4, rtol=1e-4)
    ratio = 2 * float(expected) - 1
    assert float(result.log_likelihood_ratio) == pytest.approx(ratio, abs=1e-3)
    assert bool(result.decision) == (ratio > 0)
    assert float(result.probability) == pytest.approx(
        1 / (1 + np.exp(-ratio)), abs=1e-3
    )
    foreign = foreign_class(
        str(folder),
        pymodule_file="custom_interface.py",
        classname="CalibratedSpeakerRecognition",
    )
    wavs = [model.load_audio(path).unsqueeze(0) for path in voices[:2]]
    again = foreign.verify_batch(*wavs)
    torch.testing.assert_close(
        again.log_likelihood_ratio[0], result.log_likelihood_ratio, atol=1e-4, rtol=1e-4
    )
    # `normalize` subtracts the mean of the training embeddings, there and here.
    for one in (model, foreign):
        shift = one.encode_batch(wavs[0]) - one.encode_batch(wavs[0], normalize=True)
        torch.testing.assert_close(
            shift[0, 0], cohort.embeddings.mean(dim=0), atol=1e-5, rtol=1e-4
        )


def test_calibration_with_durations(cohort):
    names = ["score", "duration_min", "duration_max", "duration_difference"]
    scoring = ModelScoring(0.5, "x", Calibration(names, [1.0, 1.0, 0.0, 0.0], 0.0))
    pair = torch.eye(2)[:1], torch.ones(1, 2)
    result = scoring.compare(*pair, [4.0], [2.0])
    assert float(result.log_likelihood_ratio) == pytest.approx(0.5**0.5 + np.log(2))
    assert bool(result.decision)  # by the threshold, which it has
    with pytest.raises(InputError, match="durations"):
        scoring.compare(*pair)
    with pytest.raises(InputError, match="no threshold"):
        ModelScoring(cohort=Cohort(0, 2)).compare(*pair)


def test_normalize_without_a_mean_is_an_error(ours, model_folder, batch):
    with pytest.raises(InputError, match="--cohort"):
        ours.encode_batch(batch[0][0], normalize=True)
    # SpeechBrain's classes call it with two arguments, and get the embedding.
    theirs = EncoderClassifier.from_hparams(str(model_folder))
    plain_embedding, normalized = (
        theirs.encode_batch(batch[0][0], normalize=on) for on in (False, True)
    )
    assert torch.equal(plain_embedding, normalized)


def test_the_encoder_by_reference(training, ours, batch, tmp_path):
    folder = export_model(training, tmp_path / "m", encoder="reference")
    names = load_file(folder / "embedding_model.safetensors")
    assert not [name for name in names if name.startswith("encoder.")]
    wav = batch[0][0]
    model = SpeakerRecognition.from_hparams(folder)
    torch.testing.assert_close(model.encode_batch(wav), ours.encode_batch(wav))


@pytest.mark.parametrize(
    ("hparams", "settings"),
    [
        ("xvector_fbank.yaml", {"xvector_channels": 8}),
        ("mha_vgg.yaml", {"vgg_width": 8, "n_heads": 2}),
        ("lap_wavlm.yaml", {"ssl_hub": "speechbrain_ext/wavlm-small", "freeze": False}),
    ],
)
def test_systems(hparams, settings, batch, tmp_path):
    (tmp_path / "t").mkdir()
    training = save_training(tmp_path / "t", hparams, {"emb_dim": 12, **settings})
    folder = export_model(training, tmp_path / "m")
    wavs, padded, lengths = batch
    expected = SpeakerRecognition.from_training(training).encode_batch(wavs[1])
    for model in (
        SpeakerRecognition.from_hparams(folder),
        EncoderClassifier.from_hparams(str(folder)),
    ):
        for given in (model.encode_batch(wavs[1]), model.encode_batch(padded, lengths)):
            got = given[min(1, len(given) - 1)]
            torch.testing.assert_close(got, expected[0], atol=1e-5, rtol=1e-5)
    if settings.get("freeze") is False:
        with pytest.raises(InputError, match="was trained"):
            export_model(training, tmp_path / "r", encoder="reference")


def test_model_card_and_description(model_folder):
    card = (model_folder / "README.md").read_text(encoding="utf-8")
    header = YAML(typ="safe").load(card.split("---\n")[1])
    assert header["license"] == "unknown" and header["library_name"] == "speechbrain"
    (result,) = header["model-index"][0]["results"]
    assert {"type": "eer", "value": 5.0} in result["metrics"]
    assert "5.00 % (95 % interval 4.00 to 6.00 %)" in card
    content = describe(model_folder)
    assert content["back_end"] == "LTDNN" and content["dataset"] == "folder"
    assert content["encoder"] == "speechbrain_ext/wavlm-small"
    assert content["parameters"]["embedding_model"] > 0
    assert content["training_speakers"] == 3
    assert content["scoring"]["threshold"] == 0.4321


def test_what_does_not_fit_is_refused(
    training, model_folder, verified, cohort, voices, tmp_path
):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    plda = tmp_path / "plda"
    write_json(plda / "metrics.json", {"backend": "PLDA"})
    uncalibrated = tmp_path / "uncalibrated"
    uncalibrated.mkdir()
    shutil.copy(verified / "metrics.json", uncalibrated)
    cases = [
        ({"output": tmp_path / "thesis"}, "no model folder"),
        ({"output": training}, "no model folder"),
        ({"results": tmp_path / "nothing"}, "no checkpoint"),
        ({"verification": plda}, "not PLDA"),
        ({"verification": tmp_path}, "no metrics.json"),
        ({"verification": verified}, "give the embeddings"),
        ({"verification": uncalibrated, "cohort": cohort}, "calibration: linear"),
        ({"examples": [voices[0], voices[0]]}, "same file name"),
        ({"examples": [__file__]}, "test_model_folder.py"),
    ]
    for given, message in cases:
        arguments = {"results": training, "output": tmp_path / "new", **given}
        with pytest.raises(InputError, match=message):
            export_model(**arguments)
        assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="has no revision"):
        find_model(model_folder, revision="main")
    with pytest.raises(InputError, match="has no hyperparams.yaml"):
        SpeakerRecognition.from_hparams(tmp_path)


def test_damaged_folders_are_one_line(model_folder, tmp_path):
    def damaged(file, content):
        folder = tmp_path / f"{file}{len(list(tmp_path.iterdir()))}"
        shutil.copytree(model_folder, folder)
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content)
        return folder

    weights = "embedding_model.safetensors"
    cases = [
        (weights, None, "lacks embedding_model.safetensors"),
        (weights, b"\x80\x04cos\nsystem\n", "no safetensors"),
        ("calibration.json", b"{}", "no calibration of a model"),
        ("calibration.json", b"[1]", "no calibration of a model"),
        ("hyperparams.yaml", b"sample_rate: 16000\n", "lacks embedding_model"),
        ("hyperparams.yaml", b"a: [", "is no YAML"),
        ("hyperparams.yaml", b"", "has no keys"),
        ("calibration.json", b"", "no calibration of a model"),
        (
            "calibration.json",
            b'{"threshold": NaN, "log_likelihood_ratio": null}',
            "threshold nan",
        ),
    ]
    for file, content, message in cases:
        with pytest.raises(InputError, match=message):
            SpeakerRecognition.from_hparams(damaged(file, content))
    other = damaged(weights, None)
    save_file({"a": torch.zeros(1)}, other / weights)
    with pytest.raises(InputError, match="another architecture"):
        SpeakerRecognition.from_hparams(other)


def test_damaged_trainings_are_one_line(training, tmp_path):
    def damaged(damage):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(training, folder)
        for checkpoint in folder.glob("save/CKPT*"):
            damage(checkpoint)
        return folder

    # Not embeddings of a model that nobody has trained
    cases = [
        (
            lambda c: (c / "embedding_model.ckpt").unlink(),
            "has no embedding_model.ckpt",
        ),
        (lambda c: (c / "embedding_model.ckpt").write_bytes(b"PK"), "is cut short"),
        (
            lambda c: (c / "CKPT.yaml").write_text("EER: 0.1\nunixtime: 1\n"),
            "threshold",
        ),
        (
            lambda c: (c.parents[1] / "hyperparams.yaml").write_text(""),
            "hyperparams.yaml' has no keys",
        ),
    ]
    for damage, message in cases:
        with pytest.raises(InputError, match=message):
            SpeakerRecognition.from_training(damaged(damage))


def test_command_line_and_examples(training, voices, tmp_path, capsys):
    out = tmp_path / "m"
    arguments = ["export", str(training), str(out), "--license", "cc-by-4.0"]
    cli.main([*arguments, "--examples", str(voices[0])])
    assert capsys.readouterr().out.strip().endswith(str(out))
    assert (out / "examples" / voices[0].name).is_file()
    card = (out / "README.md").read_text()
    assert "license: cc-by-4.0" in card and f"examples/{voices[0].name}" in card
    cli.main(arguments)  # in place of the one before
    with pytest.raises(SystemExit, match="no effect without --cohort"):
        cli.main([*arguments, "--utt2spk", "x"])


class Hub:
    """Stands in for the Hugging Face hub: a folder of repositories."""

    def __init__(self, root):
        self.root = root

    def create_repo(self, api, name, private, repo_type, space_sdk, exist_ok):
        assert exist_ok
        assert space_sdk == ("gradio" if repo_type == "space" else None)
        self.repo_type = repo_type
        (self.root / name).mkdir(parents=True, exist_ok=True)

    def upload_folder(
        self, api, repo_id, repo_type, folder_path, allow_patterns, commit_message
    ):
        assert repo_type == self.repo_type
        from huggingface_hub.utils import filter_repo_objects

        files = [p for p in folder_path.rglob("*") if p.is_file()]
        names = [str(p.relative_to(folder_path)) for p in files]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            target = self.root / repo_id / name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(folder_path / name, target)
        return f"https://huggingface.co/{repo_id}"

    def snapshot_download(self, name, revision, token, local_dir, allow_patterns):
        if not (self.root / name).is_dir():
            raise OSError(f"404: {name}")
        self.asked = (revision, token)
        return str(self.root / name)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    for name in ("create_repo", "upload_folder"):
        method = getattr(hub, name)
        monkeypatch.setattr(
            HfApi, name, lambda api, *a, _m=method, **k: _m(api, *a, **k)
        )
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    return hub


def test_push_and_load_by_name(hub, model_folder, ours, batch, tmp_path, capsys):
    folder = shutil.copytree(model_folder, tmp_path / "m")
    (folder / "private_notes.txt").write_text("not for everybody")
    cli.main(["push", str(folder), "user/ltdnn"])
    assert "user/ltdnn" in capsys.readouterr().out
    pushed = {path.name for path in (hub.root / "user" / "ltdnn").iterdir()}
    assert {"README.md", "hyperparams.yaml", "calibration.json"} <= pushed
    assert "private_notes.txt" not in pushed and hub.repo_type == "model"
    model = SpeakerRecognition.from_hparams("user/ltdnn", revision="v1", token="t")
    assert hub.asked == ("v1", "t")
    wav = batch[0][0]
    torch.testing.assert_close(model.encode_batch(wav), ours.encode_batch(wav))
    assert json.dumps(describe("user/ltdnn")) == json.dumps(describe(folder))
    with pytest.raises(InputError, match="no model could be downloaded"):
        SpeakerRecognition.from_hparams("user/unknown")
    with pytest.raises(InputError, match="there is no folder"):
        push_model(tmp_path / "nothing", "user/x")
    (folder / "calibration.json").unlink()
    with pytest.raises(InputError, match="lacks calibration.json"):
        push_model(folder, "user/x")


def test_refusals_of_the_hub_are_one_line(model_folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("401 Client Error")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(InputError, match="401 Client Error.*hf auth login"):
        push_model(model_folder, "user/x")
    monkeypatch.undo()
    with pytest.raises(InputError, match="no name on the hub"):
        push_model(model_folder, "a/b/c")


@pytest.mark.parametrize("kind", ["training", "model_folder"])
def test_models_go_to_the_gpu_if_there_is_one(kind, request, monkeypatch):
    source = request.getfixturevalue(kind)
    monkeypatch.setattr(distributed, "infer_device", lambda: "meta")
    assert load_model(source).device.type == "meta"
    assert load_model(source, "cpu").device.type == "cpu"


def test_killed_export_goes_on(training, tmp_path, monkeypatch):
    output = tmp_path / "model"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ModelScoring, "save", _die)
        export_model(training, output)
    assert not (output / "hyperparams.yaml").exists()
    export_model(training, output)
    assert (output / "hyperparams.yaml").is_file()


def _die(*_):
    raise KeyboardInterrupt

"""The verification recipe and the scoring chain in the process, on a tiny model."""

import importlib.util
import json
from pathlib import Path

import pytest
import speechbrain as sb
import torch

from speechbrain_ext.config import read_configuration
from speechbrain_ext.dataio.prepare import prepare_corpus
from speechbrain_ext.dataio.scores import read_scores
from speechbrain_ext.inference import extraction, verification
from speechbrain_ext.lobes.models.ecapa import ECAPA_TDNN
from speechbrain_ext.training.verification import run_verification
from speechbrain_ext.utils.checkpoints import AtomicCheckpointer
from speechbrain_ext.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
COSINE = ROOT / "hparams" / "verification_cosine.yaml"
PLDA = ROOT / "hparams" / "verification_plda.yaml"
FEW = {"n_calibration_trials": 40}
MODEL = """
sample_rate: 16000
encoder: !new:speechbrain_ext.lobes.features.NormalizedFbank
    n_mels: 24
embedding_model: !new:speechbrain_ext.lobes.models.ecapa.ECAPA_TDNN
    input_size: 24
    channels: [16, 16, 16, 16, 48]
    lin_neurons: 16
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Leaves out figures and the list of all packages, which other tests make."""
    monkeypatch.setattr(sb, "create_experiment_directory", lambda **arguments: None)
    for name in ("plot_det", "plot_scores", "plot_calibration"):
        monkeypatch.setattr(verification, name, lambda *arguments: None)


@pytest.fixture
def model(corpus, tmp_path):
    """The folder of a training that has not trained."""
    folder = tmp_path / "model"
    prepare_corpus(
        "folder", corpus, str(folder / "save"), valid_speakers=2, test_speakers=3
    )
    torch.manual_seed(0)
    ecapa = ECAPA_TDNN(24, channels=[16, 16, 16, 16, 48], lin_neurons=16)
    AtomicCheckpointer(folder / "save", {"embedding_model": ecapa}).save_checkpoint(
        meta={"EER": 0.1, "threshold": 0.5}
    )
    (folder / "hyperparams.yaml").write_text(MODEL)
    return folder


def verify(hparams, **options):
    options = {"num_workers": 0, **options}
    arguments = [str(hparams), *(f"--{k}={v}" for k, v in options.items())]
    return run_verification(read_configuration(arguments))


def protocols(folder, corpus, n_enrol):
    """Trials of models, and their enrolments; and the same of one utterance."""
    speakers = sorted(path.name for path in corpus.iterdir())[:3]
    enrol = [f"{s}-m {' '.join(f'{s}/{u}' for u in range(n_enrol))}" for s in speakers]
    pairs = [(s, t, u) for s in speakers for t in speakers for u in (2, 3)]
    (folder / "enrol.txt").write_text("\n".join(enrol) + "\n")
    for name, first in (("models.txt", "-m"), ("plain.txt", "/0")):
        lines = [f"{int(s == t)} {s}{first} {t}/{u}" for s, t, u in pairs]
        (folder / name).write_text("\n".join(lines) + "\n")
    return {"trials_from": "folder", "test_folder": corpus}


@pytest.fixture
def unseen(tmp_path):
    """Speakers that the model was not trained on."""
    from conftest import write_voice

    for speaker in range(20, 23):
        for utterance in range(4):
            path = tmp_path / "unseen" / f"new{speaker}" / f"{utterance}.wav"
            write_voice(path, speaker, utterance)
    return tmp_path / "unseen"


@pytest.mark.parametrize(
    "hparams, options",
    [
        (COSINE, {"subtract_mean": True, "score_norm": "s-norm", "cohort_size": 3}),
        (COSINE, {"score_norm": "s-norm", "calibration": "quality", **FEW}),
        (PLDA, {"adapt": True, "calibration": "linear", **FEW}),
    ],
)
def test_enrolments_of_one_and_of_two_utterances(
    model, unseen, tmp_path, hparams, options
):
    results = {}
    for name, n_enrol in (("plain", 1), ("models", 1), ("two", 2)):
        own = protocols(tmp_path, unseen, n_enrol)
        own["verification_file"] = tmp_path / f"{name.replace('two', 'models')}.txt"
        if name != "plain":
            own["enrolments"] = tmp_path / "enrol.txt"
        folder = tmp_path / name
        metrics = verify(
            hparams,
            trained_model=model,
            output_folder=folder,
            **own,
            **options,
        )
        results[name] = metrics, read_scores(folder / "scores.txt")[1]
    plain, one, two = (results[name] for name in ("plain", "models", "two"))
    # Their embeddings come of other batches, which rounds otherwise.
    assert torch.allclose(plain[1], one[1], atol=1e-4)
    assert plain[0]["EER"] == one[0]["EER"] and plain[0]["EER_95"] == one[0]["EER_95"]
    assert plain[0]["conditions"] == one[0]["conditions"]
    assert not torch.allclose(one[1], two[1])
    assert two[0]["enrolment_models"] == 3 and "enrolment_models" not in plain[0]
    # Two utterances of 1.2 s are longer than the test utterance.
    assert list(two[0]["conditions"])[0] == "shorter side below 2 s"


def test_default_plda_meets_few_speakers(model, tmp_path):
    metrics = verify(PLDA, trained_model=model)
    assert metrics["lda_dim"] == 4  # of 5 training speakers
    assert (model / "verification_plda" / "metrics.json").is_file()


def test_former_name_of_the_yaml(model):
    former = ROOT / "hparams" / "verification_ltdnn.yaml"
    assert verify(former, trained_model=model)["backend"] == "cosine"


def test_own_threshold_is_used_with_any_score(model):
    metrics = verify(COSINE, trained_model=model, subtract_mean=True, threshold=0.3)
    assert metrics["EER_star_threshold"] == 0.3
    assert "EER_star" not in verify(COSINE, trained_model=model, subtract_mean=True)
    assert verify(COSINE, trained_model=model)["EER_star_threshold"] == 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"verification_file": "x.txt"}, "verification_file has no effect"),
        ({"enrolments": "x.txt"}, "enrolments has no effect"),
        ({"test_folder": "x"}, "test_folder has no effect"),
        ({"cohort_size": 300}, "cohort_size has no effect without score_norm"),
        ({"average": "scores"}, "average 'scores' has no effect"),
        ({"calibration": "guess"}, "calibration: guess .*linear, quality"),
    ],
)
def test_keys_without_effect(model, options, message):
    with pytest.raises(InputError, match=message):
        verify(COSINE, trained_model=model, **options)


def test_chain_embeds_each_utterance_once(model, unseen, tmp_path, monkeypatch):
    path = ROOT / "recipes" / "VoxCeleb" / "scoring_chain.py"
    spec = importlib.util.spec_from_file_location("scoring_chain", path)
    chain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chain)
    options = protocols(tmp_path, unseen, 1)
    text = (tmp_path / "plain.txt").read_text()
    (tmp_path / "again.txt").write_text(text.replace("/0 ", "/1 "))
    embedded = []
    original = extraction.embedding_loader

    def loader(utterances, *arguments):
        embedded.extend(Path(item["wav"]) for item in utterances.values())
        return original(utterances, *arguments)

    monkeypatch.setattr(extraction, "embedding_loader", loader)
    lists = [str(tmp_path / "plain.txt"), str(tmp_path / "again.txt")]
    settings = {
        "trained_model": model,
        "output_folder": tmp_path / "chain",
        "trial_lists": lists,
        "cohort_size": 3,
        "n_calibration_trials": 40,
        "num_workers": 0,
        **options,
    }
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    chain.main([str(ROOT / "hparams" / "verification_chain.yaml"), *arguments])
    of_trials = [path for path in embedded if path.is_relative_to(unseen)]
    assert sorted(of_trials) == sorted(unseen.glob("*/*.wav"))
    rows = (tmp_path / "chain" / "chain.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 4
    plain = json.loads((tmp_path / "chain/again/AS-norm/metrics.json").read_text())
    assert plain["cohort_size"] == 3

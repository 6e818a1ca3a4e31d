"""I-vectors against loops in NumPy; EM; the front end; the recipe."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import ROOT, run

from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes import IVectorExtractor, SpeechMFCC
from speechbrain_ext.nnet.derived import Derived
from speechbrain_ext.nnet.gaussian_mixture import GaussianMixture
from speechbrain_ext.utils.fingerprints import model_fingerprint

SCRIPT = ROOT / "recipes/VoxCeleb/train_ivector.py"
COVARIANCES = ["diagonal", "full"]


def extractor_of(covariance, n_channels=3, n_components=4, dim=2):
    """An extractor whose UBM has taken two steps of EM."""
    torch.manual_seed(0)
    extractor = IVectorExtractor(n_channels, n_components, dim, covariance)
    # Far from singular, so that no variance is raised to its floor
    mixing = torch.eye(n_channels) + 0.2 * torch.randn(n_channels, n_channels)
    frames = torch.randn(400, n_channels) @ mixing
    extractor.ubm.start_from(frames)
    for _ in range(2):
        extractor.ubm.em_step([frames[:150], frames[150:]])
    return extractor, frames


def covariances_of(ubm):
    spread = ubm.covariances.double().numpy()
    return spread if spread.ndim == 3 else np.stack([np.diag(s) for s in spread])


def posteriors_by_loops(ubm, frames):
    weights, means = ubm.weights.double().numpy(), ubm.means.double().numpy()
    posteriors = []
    for frame in frames.double().numpy():
        densities = []
        for weight, mean, spread in zip(weights, means, covariances_of(ubm)):
            x = frame - mean
            density = np.exp(-0.5 * x @ np.linalg.inv(spread) @ x)
            density /= np.sqrt(np.linalg.det(2 * np.pi * spread))
            densities.append(weight * density)
        posteriors.append(np.array(densities) / sum(densities))
    return np.array(posteriors)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_one_em_step_of_the_mixture_against_loops(covariance):
    extractor, frames = extractor_of(covariance)
    ubm = extractor.ubm
    posteriors = posteriors_by_loops(ubm, frames)
    assert np.allclose(ubm.posteriors(frames).numpy(), posteriors, atol=1e-4)
    ubm.em_step([frames])
    x = frames.double().numpy()
    for c in range(ubm.n_components):
        total = posteriors[:, c].sum()
        mean = sum(p * frame for p, frame in zip(posteriors[:, c], x)) / total
        spread = sum(
            p * np.outer(frame - mean, frame - mean)
            for p, frame in zip(posteriors[:, c], x)
        )
        spread = spread / total
        if covariance == "diagonal":
            spread = np.diag(np.diag(spread))
        assert np.allclose(ubm.weights[c], total / len(x), atol=1e-4)
        assert np.allclose(ubm.means[c], mean, atol=1e-3)
        assert np.allclose(covariances_of(ubm)[c], spread, atol=1e-3)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_likelihood_of_the_mixture_does_not_fall(covariance):
    extractor, frames = extractor_of(covariance)
    likelihoods = [extractor.ubm.em_step(frames.split(90)) for _ in range(8)]
    for before, after in zip(likelihoods, likelihoods[1:]):
        assert after >= before - 1e-5
    assert likelihoods[-1] > likelihoods[0]


def test_full_covariances_start_at_diagonal_ones():
    extractor, frames = extractor_of("diagonal")
    full = GaussianMixture(3, 4, "full")
    full.take_diagonal(extractor.ubm)
    expected = extractor.ubm.log_likelihoods(frames)
    assert torch.allclose(full.log_likelihoods(frames), expected, atol=1e-4)


def test_a_component_of_copies_keeps_a_variance():
    torch.manual_seed(0)
    frames = torch.cat([torch.ones(50, 3) * 9, torch.randn(50, 3)])
    for covariance in COVARIANCES:
        mixture = GaussianMixture(3, 2, covariance)
        mixture.start_from(frames)
        mixture.means.copy_(frames[[0, 60]])
        for _ in range(10):
            mixture.em_step([frames])
        assert mixture.log_likelihoods(frames).isfinite().all()


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_i_vectors_against_loops(covariance):
    extractor, frames = extractor_of(covariance)
    ubm, batch = extractor.ubm, frames[:60].view(2, 30, 3)
    lengths = torch.tensor([1.0, 0.5])
    counts, _ = extractor.statistics(batch, lengths)
    embeddings = extractor(batch, lengths)
    for utterance, n_frames in enumerate((30, 15)):
        own = batch[utterance, :n_frames]
        posteriors = posteriors_by_loops(ubm, own)
        precision, linear = np.eye(2), np.zeros(2)
        for c, spread in enumerate(covariances_of(ubm)):
            # T is kept in units of the spread.
            loadings = np.linalg.cholesky(spread) @ extractor.loadings[c].numpy()
            total = posteriors[:, c].sum()
            assert counts[utterance, c].item() == pytest.approx(total, abs=1e-3)
            deviation = np.zeros(3)
            for p, frame in zip(posteriors[:, c], own.double().numpy()):
                deviation += p * (frame - ubm.means[c].double().numpy())
            inverse = np.linalg.inv(spread)
            precision += total * loadings.T @ inverse @ loadings
            linear += loadings.T @ inverse @ deviation
        expected = np.linalg.solve(precision, linear)
        assert np.allclose(embeddings[utterance, 0], expected, atol=1e-3)


@pytest.mark.parametrize("at_once", [1, 3, 256])
def test_one_em_step_of_the_total_variability_against_loops(at_once, monkeypatch):
    extractor, frames = extractor_of("full")
    monkeypatch.setattr(extractor, "UTTERANCES_AT_ONCE", at_once)
    frames = frames.view(10, 40, 3) + torch.randn(10, 1, 3)
    lengths = torch.linspace(0.5, 1.0, 10)
    before = extractor.loadings.clone().double().numpy()
    counts, deviations = map(
        lambda x: x.double().numpy(), extractor.statistics(frames, lengths)
    )
    extractor.em_step(zip(frames.split(2), lengths.split(2)))
    cross, second, covariance = np.zeros((4, 3, 2)), np.zeros((4, 2, 2)), 0
    for n, f in zip(counts, deviations):
        precision = np.eye(2) + sum(n[c] * before[c].T @ before[c] for c in range(4))
        spread = np.linalg.inv(precision)
        w = spread @ sum(before[c].T @ f[c] for c in range(4))
        square = spread + np.outer(w, w)
        covariance = covariance + square / len(counts)
        for c in range(4):
            cross[c] += np.outer(f[c], w)
            second[c] += n[c] * square
    factor = np.linalg.cholesky(covariance)
    for c in range(4):
        expected = cross[c] @ np.linalg.inv(second[c]) @ factor
        assert np.allclose(extractor.loadings[c], expected, atol=1e-4)


def test_i_vectors_follow_a_change_of_the_total_variability():
    extractor, frames = extractor_of("full")
    other, _ = extractor_of("full")
    other.loadings.mul_(2)
    frames = frames.view(20, 20, 3)
    extractor(frames)
    extractor.load_state_dict(other.state_dict())
    assert torch.equal(extractor(frames), other(frames))
    doubled = extractor.double()(frames.double())
    assert torch.allclose(doubled.float(), other(frames), atol=1e-4)


def test_what_is_kept_is_no_part_of_the_model():
    extractor, frames = extractor_of("full")
    frames = frames.view(20, 20, 3)
    fresh = copy.deepcopy(extractor)
    before = model_fingerprint(fresh)
    expected = extractor(frames)
    assert model_fingerprint(extractor) == before
    used = copy.deepcopy(extractor)
    assert torch.equal(used(frames), expected)
    used.ubm.means.add_(0.1)
    used.ubm.covariances.mul_(1.5)
    assert not torch.allclose(used(frames), expected, atol=1e-3)
    used.load_state_dict(fresh.state_dict())
    assert torch.equal(used(frames), expected)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_likelihood_of_the_total_variability_does_not_fall(covariance):
    extractor, frames = extractor_of(covariance)
    # Utterances whose means differ
    frames = frames.view(20, 20, 3) + 2 * torch.randn(20, 1, 3)
    lengths = torch.ones(10)
    batches = [(frames[:10], lengths), (frames[10:], lengths)]
    gains = [extractor.em_step(batches) for _ in range(8)]
    for before, after in zip(gains, gains[1:]):
        assert after >= before - 1e-5
    assert gains[-1] > gains[0]
    # The prior of w stays at N(0, I).
    mean, spread, _ = extractor.posterior(*extractor.statistics(frames, torch.ones(20)))
    square = (spread + mean.unsqueeze(2) * mean.unsqueeze(1)).mean(0)
    assert torch.allclose(square, torch.eye(2), atol=0.1)


def test_frames_of_speech_do_not_depend_on_gain_or_padding():
    torch.manual_seed(0)
    loud, quiet = torch.randn(8000), 0.001 * torch.randn(8000)
    wav = torch.stack([torch.cat([quiet, loud]), torch.cat([loud, quiet])])
    features = SpeechMFCC()
    frames, lengths = features(wav, torch.tensor([1.0, 0.6]))
    assert frames.shape[2] == features.channels == 60
    counts = (lengths * frames.shape[1]).round().int().tolist()
    for utterance, n_samples in ((0, 16000), (1, 9600)):
        alone, _ = features(0.1 * wav[utterance : utterance + 1, :n_samples])
        assert alone.shape[1] == counts[utterance]
        assert 50 <= counts[utterance] <= 53
        ours = frames[utterance, : counts[utterance]]
        assert torch.allclose(ours, alone[0], atol=1e-2)
    silence, lengths = features(torch.zeros(1, 8000))
    assert silence.shape[1] == 51 and silence.isfinite().all()


TINY_IVECTOR = {
    "dataset": "folder",
    "valid_speakers": 3,
    "test_speakers": 3,
    "num_workers": 0,
    "ubm_components": 4,
    "n_ubm_frames": 500,
    "ubm_start_iterations": 2,
    "ubm_iterations": 1,
    "tv_iterations": 2,
    "emb_dim": 6,
    "lda_dim": 3,
}


def test_recipe_and_its_resumption(corpus, tmp_path):
    options = {
        **TINY_IVECTOR, "data_folder": corpus, "output_folder": tmp_path / "out"
    }  # fmt: skip
    hparams = ROOT / "hparams/ivector.yaml"
    # Killed after the start of the UBM
    patched = tmp_path / "patched.py"
    patched.write_text(
        "import runpy, sys\n"
        "from speechbrain_ext.nnet.gaussian_mixture import GaussianMixture\n"
        "from speechbrain_ext.training.ivector import SpeechFrames\n"
        "first = SpeechFrames.batches\n"
        "def batches(self, name):\n"
        "    if name == 'total variability':\n"
        "        sys.exit(9)\n"
        "    return first(self, name)\n"
        "SpeechFrames.batches = batches\n"
        f"sys.argv[0] = {str(SCRIPT)!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = run(patched, hparams, options, tmp_path)
    assert done.returncode == 9, done.stderr[-3000:]
    done = run(SCRIPT, hparams, options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    log = (tmp_path / "out/train_log.txt").read_text().splitlines()
    assert [line.split(" - ")[0] for line in log[:4]] == [
        "iteration: 1, of: start of the UBM",
        "iteration: 2, of: UBM",
        "iteration: 3, of: total variability",
        "iteration: 4, of: total variability",
    ]
    cosine = json.loads((tmp_path / "out/test/metrics.json").read_text())
    assert cosine["system"] == "ivector" and 0 <= cosine["EER"] <= 1
    assert cosine["parameters"]["embedding_model"] == 4 + 4 * 60 + 4 * 60**2 + 4 * 360
    plda = json.loads((tmp_path / "out/verification_plda/metrics.json").read_text())
    assert plda["backend"] == "PLDA" and plda["lda_dim"] == 3
    model = SpeakerRecognition.from_training(tmp_path / "out")
    assert model.encode_batch(torch.randn(1, 16000)).shape == (1, 1, 6)
    assert model.threshold == cosine["EER_star_threshold"]
    # Other settings are refused; nothing is trained anew.
    done = run(SCRIPT, hparams, {**options, "emb_dim": 5}, tmp_path)
    assert "trained with other settings" in done.stderr


def test_values_of_tensors_made_in_inference_mode():
    total = Derived(torch.sum)
    with torch.inference_mode():
        x = torch.ones(3)
        assert total(x) == 3.0
        assert total(x.fill_(2.0)) == 6.0

"""Checks on a device that is none, by name, for processes of their own.

python tests/device_checks.py NAME FOLDER
"""

import copy
import functools
import sys
from pathlib import Path

import torch
from conftest import write_corpus
from pretend_device import DEVICE, OnDevice, PretendDevice, content_of
from test_batch_invariance import SYSTEMS, batch_of, system
from trainings import (
    fit,
    pretraining,
    speaker_training,
    state_of,
    trained,
    utterances_of,
)

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.inference.extraction import extract_embeddings
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.inference.teacher_frames import TeacherFrames
from speechbrain_ext.lobes import load_encoder
from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder
from speechbrain_ext.metrics.bootstrap import eer_interval
from speechbrain_ext.metrics.calibration import Cllr, actDCF, minCllr
from speechbrain_ext.metrics.detection import EER, EER_star, minDCF
from speechbrain_ext.nnet.losses import SubCenterAAM
from speechbrain_ext.processing.calibration import Calibration
from speechbrain_ext.processing.plda import PLDA
from speechbrain_ext.processing.score_norm import cohort_statistics, normalize_scores
from speechbrain_ext.processing.scoring import cosine_scores, row_cosines
from speechbrain_ext.processing.search import EmbeddingSearch

FAMILIES = (
    "wavlm", "wav2vec2", "hubert", "unispeech-sat", "data2vec-audio",
    "wav2vec2-conformer", "w2v-bert", "whisper",
)  # fmt: skip


def moved(value):
    """A copy on the device."""
    if value is None:
        return None
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value).to(DEVICE)
    if isinstance(value, dict):
        return {key: moved(own) for key, own in value.items()}
    return OnDevice(value.clone())


def check_same(found, expected, tolerance=1e-4):
    """What was computed on the device is what the processor computes."""
    found, expected = (
        torch.as_tensor(content_of(value)).detach().double()
        for value in (found, expected)
    )
    assert found.shape == expected.shape, (found.shape, expected.shape)
    difference = (found - expected).abs().max().item()
    assert difference < tolerance, difference


def systems(folder):
    """Embeddings of every system, padded and not; stages have the system of others."""
    encoders = {
        family: save_random_encoder(family, folder / family)
        for family in ("wavlm", "w2v-bert")
    }
    wavs, lengths = batch_of(torch.randn(9000), torch.randn(16000))
    for name in (name for name in SYSTEMS if not name.endswith("_stages")):
        family = "w2v-bert" if name.startswith("w2v_bert") else "wavlm"
        embed = trained(system(name, ssl_hub=encoders[family]))
        there = moved(embed)
        with torch.no_grad():
            for relative in (lengths, None):
                found = there(moved(wavs), moved(relative))
                check_same(found, embed(wavs, relative))


def encoders(folder):
    """Hidden states of every family of encoders, and the gradient of its weights."""
    wavs, lengths = batch_of(torch.randn(9000), torch.randn(16000))
    for family in FAMILIES:
        source = save_random_encoder(family, folder / family)
        encoder = load_encoder(source, freeze=False).eval()
        there = moved(encoder)
        states, relative = encoder(wavs, lengths)
        found, _ = there(moved(wavs), moved(lengths))
        n_frames = round(relative[1].item() * states.shape[2])
        check_same(found[:, 0], states[:, 0])
        check_same(found[:, 1, :n_frames], states[:, 1, :n_frames])
        states[:, 0].sum().backward()
        found[:, 0].sum().backward()
        weights = dict(encoder.named_parameters())
        gradients = [
            (own.grad, weights[name].grad)
            for name, own in there.named_parameters()
            if own.grad is not None
        ]
        assert gradients
        for own, expected in gradients:
            check_same(own, expected, 1e-3 * expected.abs().max().item() + 1e-4)


def models(folder):
    """What a trained model is asked for."""
    embed = trained(
        system("ltdnn_wavlm", ssl_hub=save_random_encoder("wavlm", folder / "wavlm"))
    )
    model = SpeakerRecognition(embed.encoder, embed.embedding_model, 16000, 0.3)
    there = moved(model)
    assert there.device == DEVICE and there.fingerprint == model.fingerprint
    wavs, lengths = batch_of(torch.randn(9000), torch.randn(16000))
    check_same(there.encode_batch(wavs, lengths), model.encode_batch(wavs, lengths))
    scores, decisions = model.verify_batch(wavs, wavs.flip(0))
    found = there.verify_batch(moved(wavs), moved(wavs.flip(0)))
    check_same(found[0], scores)
    check_same(found[1], decisions)
    utterances = utterances_of(write_corpus(folder / "corpus", 2, 2))
    files = [item["wav"] for item in utterances.values()]
    check_same(there.encode_file(files[0]), model.encode_file(files[0]))
    for own in (model, there):
        own.enrol("ann", files[:2])
        own.enrol("bob", files[2:])
    expected = model.identify(files[1])
    found = there.identify(files[1])
    assert [one.name for one in found] == [one.name for one in expected]
    check_same([one.score for one in found], [one.score for one in expected])
    check_same(there.layer_weights(wavs[0]), model.layer_weights(wavs[0]))
    check_same(
        extract_embeddings(there, utterances, folder / "there.safetensors").embeddings,
        extract_embeddings(model, utterances, folder / "here.safetensors").embeddings,
    )
    teacher = TeacherFrames(model, ["layer_pooling", "hidden_states.2"])
    check_same(moved(teacher)(moved(wavs))[0], teacher(wavs)[0])


def scoring(folder):
    """Scores, normalisation, back ends, search and metrics of embeddings there."""
    speakers = [str(i // 8) for i in range(80)]
    rows = torch.randn(80, 6) + 3 * torch.randn(10, 6).repeat_interleave(8, 0)
    names = [str(i) for i in range(80)]
    embeddings, queries = dict(zip(names, rows)), rows[:5] + 0.1
    trials = Trials([1, 0] * 4, names[:8], names[4:12])
    cosines = cosine_scores(embeddings, trials)
    plda = PLDA.fit(rows, speakers)
    columns, labels = torch.randn(60, 1), [0, 1, 1] * 20
    calibration = Calibration.fit(["score"], columns, labels)

    def everything(place):
        searched = EmbeddingSearch(place(rows))
        yield from searched.nearest(place(queries))
        searched.build_index()
        yield from searched.nearest(place(queries))
        yield row_cosines(place(queries), place(rows[:5]))
        yield cosine_scores(place(embeddings), trials)
        yield from cohort_statistics(place(queries), place(rows), 20)
        yield normalize_scores(place(cosines), trials, place(embeddings), place(rows))
        yield PLDA.fit(place(rows), speakers).between
        yield plda.adapt(place(queries)).between
        yield plda.score_pairs(place(queries), place(rows[:5]))
        yield plda.score(place(embeddings), trials)
        counts = place(torch.tensor([[2.0]]))
        yield plda.log_ratios(
            plda.transform(place(queries)), plda.transform(place(queries)), counts
        )
        yield calibration.apply(place(columns))
        own = Calibration.fit(["score"], place(columns), place(torch.tensor(labels)))
        yield torch.tensor(own.weights)
        scores = place(columns[::3]), place(columns[1::3])
        for metric in (EER, minDCF, Cllr, minCllr, actDCF):
            yield metric(*scores)
        yield EER_star(*scores, 0.1)
        yield eer_interval(place(columns[:, 0]), labels, ["a", "b"] * 30, ["c"] * 60)

    for found, expected in zip(everything(moved), everything(lambda value: value)):
        check_same(found, expected)


def losses(folder):
    """Sub-center AAM with Inter-TopK and its gradient."""
    loss = SubCenterAAM(6, 12)
    there = moved(loss)
    embeddings, speakers = torch.randn(4, 1, 6), torch.tensor([[0], [3], [1], [4]])
    value, found = loss(embeddings, speakers), there(moved(embeddings), moved(speakers))
    check_same(found, value)
    value.backward()
    found.backward()
    for own, expected in zip(there.parameters(), loss.parameters(), strict=True):
        check_same(own.grad, expected.grad)


def trainings(folder):
    """Steps, validation and checkpoints end with the weights of the processor."""
    corpus = write_corpus(folder / "corpus", 3, 4)
    distillation = functools.partial(speaker_training, distil=True, accumulation=2)
    for number, build in enumerate((speaker_training, distillation, pretraining)):
        weights = []
        for device in ("cpu", str(DEVICE)):
            brain, data = build(corpus, folder / f"{number} {device}", device=device)
            weights.append(state_of(fit(brain, data)))
        for name, expected in weights[0].items():
            check_same(weights[1][name], expected, 1e-3)


if __name__ == "__main__":
    torch.manual_seed(1986)
    with PretendDevice():
        globals()[sys.argv[1]](Path(sys.argv[2]))

"""Distillation: student, targets, loss, the whole recipe; export to ONNX."""

import csv
import json
import runpy
import subprocess
import sys

import pytest
import soundfile
import torch
from conftest import ROOT, TINY, run, write_voice
from processes import run_python

from speechbrain_ext.analysis.cka import linear_cka
from speechbrain_ext.config import read_configuration
from speechbrain_ext.dataio.embedding_store import EmbeddingStore, row_keys_of
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.inference.teacher_frames import TeacherFrames
from speechbrain_ext.lobes import (
    DTDNN,
    ETDNN,
    LTDNN,
    KDStudent,
    LearnableDictionaryEncoding,
    MaskedECAPA,
    MaskedXvector,
    SSLEncoder,
)
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.nnet.pooling import MaskedStatisticsPooling
from speechbrain_ext.training.distillation import (
    DistillationHeads,
    DistillationLoss,
    TargetEmbeddings,
    distillation_dataset,
)
from speechbrain_ext.utils.errors import InputError

RECIPES = ROOT / "recipes" / "VoxCeleb"
sys.path.insert(0, str(RECIPES))
TARGETS = ["utterance", "wide_bn", "sp_aggr", "lde_aggr"]
# Of an x-vector with an embedding of 512
SIZES = {
    "utterance": 512, "narrow_bn": 512, "wide_bn": 1500, "sp_aggr": 512,
    "lde_aggr": 512,
}  # fmt: skip


def trained_batch_norms(model, *inputs):
    """Runs a batch in training mode, so that batch norms do something."""
    model(*inputs)
    return model.eval()


def test_student_does_not_see_padding():
    torch.manual_seed(0)
    frames, lengths = torch.randn(4, 60, 20), torch.tensor([1.0, 0.5, 0.7, 0.2])
    student = trained_batch_norms(KDStudent(20, channels=24), frames, lengths)
    padded = student(frames, lengths)
    for i, n in enumerate((60, 30, 42, 12)):
        alone = student(frames[i : i + 1, :n])
        assert (padded[i] - alone[0]).abs().max() < 1e-5


def test_student_sees_context_and_long_term_spectrum():
    torch.manual_seed(0)
    student = KDStudent(20, channels=24).eval()
    frames = torch.randn(1, 60, 20)
    shuffled = frames[:, torch.randperm(60)]
    louder_band = frames + torch.eye(20)[3]
    for other in (shuffled, louder_band):
        assert (student(frames) - student(other)).abs().max() > 1e-4


def test_gain_norm_keeps_the_spectrum():
    wav = torch.randn(2, 16000)
    lengths = torch.tensor([1.0, 0.5])
    features = NormalizedFbank(24, keep_spectrum=True)
    frames, frame_lengths = features(wav, lengths)
    louder, _ = features(10 * wav, lengths)
    assert torch.allclose(frames, louder, atol=1e-2)
    assert frames[0].mean(0).abs().max() > 1.0
    n = round(float(frame_lengths[1]) * frames.shape[1])
    assert frames[1, :n].mean().abs() < 0.05


def test_dictionary_encoding_against_loops():
    torch.manual_seed(0)
    pooling = LearnableDictionaryEncoding(6, 3)
    pooling.smoothing.data = torch.tensor([0.5, 1.0, 2.0])
    frames, lengths = torch.randn(2, 10, 6), torch.tensor([1.0, 0.4])
    expected = torch.zeros(2, 3, 6)
    for utterance, n in enumerate((10, 4)):
        for frame in frames[utterance, :n]:
            residuals = frame - pooling.components
            weights = torch.softmax(-pooling.smoothing * (residuals**2).sum(1), dim=0)
            expected[utterance] += weights[:, None] * residuals / n
    assert torch.allclose(pooling(frames, lengths), expected.view(2, 1, -1), atol=1e-5)


def xvector_teacher():
    torch.manual_seed(0)
    xvector = MaskedXvector(in_channels=24, tdnn_channels=[16, 16, 16, 16, 30])
    return SpeakerRecognition(NormalizedFbank(24), xvector, 16000, 0.5)


def test_teacher_frames_are_those_of_its_layers():
    teacher = xvector_teacher()
    wav, lengths = torch.randn(2, 16000), torch.tensor([1.0, 0.5])
    frames, frame_lengths = TeacherFrames(teacher, ["blocks.11", "blocks.14"])(
        wav, lengths
    )
    for utterance, n_samples, n_frames in ((0, 16000, 101), (1, 8000, 51)):
        x, _ = teacher.encoder(wav[utterance : utterance + 1, :n_samples])
        outputs = []
        for block in teacher.embedding_model.blocks[:15]:
            x = block(x)
            outputs.append(x)
        expected = torch.cat([outputs[11], outputs[14]], dim=2)[0]
        assert expected.shape[0] == n_frames
        assert torch.allclose(frames[utterance, :n_frames], expected, atol=1e-5)
    assert torch.allclose(frame_lengths * 101, torch.tensor([101.0, 51.0]))


def test_frames_of_ecapa_have_channels_last():
    ecapa = MaskedECAPA(24, channels=[16, 16, 16, 16, 48], lin_neurons=8)
    teacher = SpeakerRecognition(NormalizedFbank(24), ecapa, 16000, 0.5)
    frames = TeacherFrames(teacher, ["blocks.3", "mfa"], channels_first=True)
    assert frames(torch.randn(2, 16000))[0].shape == (2, 101, 64)
    assert frames.channels == 64


def test_teacher_stays_as_it_is():
    frames = TeacherFrames(xvector_teacher(), ["blocks.11"]).train()
    assert not any(module.training for module in frames.modules())
    assert not any(p.requires_grad for p in frames.parameters())


def test_unknown_layer_is_an_error():
    with pytest.raises(InputError, match="no layer blocks.99; it has .*blocks.11"):
        TeacherFrames(xvector_teacher(), ["blocks.99"])


def ssl_teacher(folder, layers=None):
    torch.manual_seed(0)
    encoder = SSLEncoder(
        save_small_wavlm(folder, n_layers=3, channels=32, n_bands=8), layers=layers
    )
    back_end = LTDNN(
        in_channels=32, n_layers=encoder.n_layers, conv_channels=8, pooled_channels=16,
        emb_dim=8, scale=2,
    )  # fmt: skip
    return SpeakerRecognition(encoder, back_end, 16000, 0.5).eval()


def test_frames_of_an_ssl_teacher(tmp_path):
    teacher = ssl_teacher(tmp_path / "wavlm")
    names = ["hidden_states.2", "layer_pooling", "hidden_states.0"]
    frames = TeacherFrames(teacher, names)
    assert frames.channels == 32 + 16 + 32
    wav, lengths = torch.randn(2, 16000), torch.tensor([1.0, 0.5])
    given, frame_lengths = frames(wav, lengths)
    hidden_states, expected_lengths = teacher.encoder(wav, lengths)
    model = teacher.embedding_model
    n_valid = round(float(frame_lengths[1]) * given.shape[1])
    convolved = model.convolutions(hidden_states[:, 1:, :n_valid].permute(1, 3, 0, 2))
    pooled = model.layer_pooling(convolved.permute(2, 0, 3, 1))
    assert torch.equal(frame_lengths, expected_lengths)
    assert torch.equal(given[:, :, :32], hidden_states[2])
    assert torch.equal(given[:, :, 48:], hidden_states[0])
    assert torch.allclose(given[1, :n_valid, 32:48], pooled[0], atol=1e-5)


def test_hidden_states_are_called_as_the_encoder_counts_them(tmp_path):
    teacher = ssl_teacher(tmp_path / "wavlm", layers=[1, 3])
    frames = TeacherFrames(teacher, ["hidden_states.3"])
    wav = torch.randn(1, 16000)
    assert torch.equal(frames(wav)[0], teacher.encoder(wav)[0][1])
    with pytest.raises(
        InputError, match="no layer hidden_states.2; .*states.1, hidden"
    ):
        TeacherFrames(teacher, ["hidden_states.2"])


# Published sizes in millions, on 30 MFCCs (Yu and Li, Interspeech 2020, table 3)
@pytest.mark.parametrize(
    "lobe, published", [(MaskedXvector, 4.2), (ETDNN, 6.1), (DTDNN, 2.8)]
)
def test_teachers_have_the_published_sizes(lobe, published):
    assert round(n_parameters(lobe(in_channels=30)) / 1e6, 1) == published


@pytest.mark.parametrize(
    "lobe, last, n_seen",
    [
        # To each side 2, 2, 3 and 4 frames; 2, 6 times 1 and 12 times 3
        (ETDNN, "blocks.29", 2 * 11 + 1),
        (DTDNN, "transitions.1", 2 * 44 + 1),
    ],
)
def test_teachers_see_the_published_context(lobe, last, n_seen):
    torch.manual_seed(0)
    model = lobe(8)
    frames = torch.randn(1, 201, 8, requires_grad=True)
    outputs = []
    dict(model.eval().named_modules())[last].register_forward_hook(
        lambda module, inputs, output: outputs.append(output)
    )
    model(frames)
    outputs[0][0, 100].abs().sum().backward()
    (seen,) = frames.grad[0].abs().sum(1).nonzero(as_tuple=True)
    assert (seen[0].item(), seen[-1].item()) == (100 - n_seen // 2, 100 + n_seen // 2)


def test_dense_layers_see_all_layers_before_them():
    torch.manual_seed(0)
    block = DTDNN(8, growth_channels=4).eval().blocks[0]
    x = torch.randn(2, 30, 8)
    outputs = [x]
    for bottleneck, conv in zip(block.bottlenecks, block.convs):
        seen = torch.cat(outputs, dim=2).transpose(1, 2)
        narrow = bottleneck.conv.conv(torch.relu(bottleneck.norm.norm(seen)))
        padded = torch.nn.functional.pad(
            torch.relu(conv.norm.norm(narrow)), (1, 1), mode="reflect"
        )
        outputs.append(conv.conv.conv(padded).transpose(1, 2))
    assert torch.allclose(block(x), torch.cat(outputs, dim=2), atol=1e-5)


@pytest.mark.parametrize("teacher", ["xvector", "etdnn", "dtdnn", "ecapa"])
def test_declared_layers_are_those_of_the_teacher(teacher, monkeypatch):
    distillation, training = (
        read_configuration([str(ROOT / f"hparams/{name}.yaml")], demo=False)
        for name in (f"kd_{teacher}_fc", f"{teacher}_fbank")
    )
    parts = training.build(["encoder", "embedding_model"])
    model = SpeakerRecognition(*parts.values(), 16000, 0.5)
    monkeypatch.setattr(SpeakerRecognition, "from_training", lambda *_, **__: model)
    sizes = {}
    for name, build in distillation.build(["target_models"])["target_models"].items():
        if name == "utterance" or name.endswith("_aggr"):
            continue
        sizes[name] = build().encode_batch(torch.randn(1, 8000)).shape[2]
    expected = {
        "xvector": [512] * 4 + [1500],
        "etdnn": [512] * 9 + [1500],
        "dtdnn": [128, 512, 256, 1024, 512],
        "ecapa": [512] * 4 + [1536],
    }[teacher]
    assert list(sizes.values()) == expected
    assert sizes["narrow_bn"] < sizes["wide_bn"] == max(expected)


def test_students_have_the_papers_sizes():
    """85 to 91 % fewer parameters, by the target, and 75 % for all of them."""
    configuration = read_configuration(
        [str(ROOT / "hparams/kd_xvector_fc.yaml")], demo=False
    )
    teacher = MaskedXvector(in_channels=80, lin_neurons=512)
    smaller = {}
    for targets in (["utterance"], ["wide_bn"], ["utterance", "sp_aggr"], SIZES):
        student = configuration.with_values(
            {"emb_dim": sum(SIZES[name] for name in targets)}
        ).build(["embedding_model"])["embedding_model"]
        share = n_parameters(student) / n_parameters(teacher)
        smaller[" + ".join(targets)] = int(100 * (1 - share) + 0.5)
    assert list(smaller.values()) == [89, 85, 87, 75]


def n_parameters(model):
    return sum(p.numel() for p in model.parameters())


def save_targets(folder, **embeddings):
    for name, values in embeddings.items():
        n = len(values)
        ids = [f"s{i}/u" for i in range(n)]
        store = EmbeddingStore(ids, values, ids, [1.0] * n, "f")
        store.save(folder / f"{name}.safetensors")


def test_targets_and_their_means(tmp_path):
    first, second = torch.randn(3, 2), torch.randn(3, 4)
    save_targets(tmp_path, first=first, second=second)
    targets = TargetEmbeddings(tmp_path, ["second", "first"])
    assert torch.equal(targets["s1/u"], torch.cat([second[1], first[1]]))
    assert targets.sizes == {"second": 4, "first": 2}
    centred = TargetEmbeddings(tmp_path, ["first"], subtract_mean=True)
    assert torch.allclose(centred["s2/u"], first[2] - first.mean(0))
    with pytest.raises(InputError, match="third.safetensors.*train_kd.py"):
        TargetEmbeddings(tmp_path, ["third"])


def test_wide_targets_are_projected_on_their_principal_axes(tmp_path):
    torch.manual_seed(0)
    wide = torch.randn(40, 3) @ torch.randn(3, 10)  # three dimensions of ten
    wide = wide + 1e-4 * torch.randn(40, 10) + 5.0 * (torch.arange(10) == 4)
    save_targets(tmp_path, wide=wide, narrow=wide[:, :2])
    targets = TargetEmbeddings(tmp_path, ["wide", "narrow"], max_dim=4)
    assert targets.sizes == {"wide": 4, "narrow": 2}
    kept = torch.stack([targets[f"s{i}/u"][:4] for i in range(40)])
    assert torch.allclose(kept @ kept.T, wide @ wide.T, atol=1e-2)
    assert torch.equal(targets["s7/u"][4:], wide[7, :2])
    centred = TargetEmbeddings(tmp_path, ["wide"], subtract_mean=True, max_dim=3)
    kept = torch.stack([centred[f"s{i}/u"] for i in range(40)])
    expected = wide - wide.mean(0)
    assert torch.allclose(kept @ kept.T, expected @ expected.T, atol=1e-2)


def test_utterances_without_targets_are_an_error(tmp_path):
    save_targets(tmp_path, first=torch.randn(2, 2))
    targets = TargetEmbeddings(tmp_path, ["first"])
    utterances = {f"s{i}/u": {"wav": "gone.wav", "duration": 1.0} for i in range(3)}
    arguments = (None, 16000, 1.0)
    with pytest.raises(InputError, match="1 training utterances .* such as s2/u"):
        distillation_dataset(utterances, *arguments, [100], targets)
    with pytest.raises(InputError, match="speeds"):
        distillation_dataset(utterances, *arguments, [90, 100], targets)


def test_targets_of_other_audio_are_an_error(tmp_path):
    wav = tmp_path / "u.wav"
    write_voice(wav, 0, 0, duration=1.0)
    utterances = {"s0/u": {"wav": str(wav), "speaker": "s0", "duration": 1.0}}
    keys = row_keys_of(utterances)
    store = EmbeddingStore(["s0/u"], torch.ones(1, 2), ["s0"], [1.0], "f", keys)
    store.save(tmp_path / "first.safetensors")
    targets = TargetEmbeddings(tmp_path, ["first"])
    copy = tmp_path / "copy.wav"
    copy.write_bytes(wav.read_bytes())
    assert not targets.stale({"s0/u": {**utterances["s0/u"], "wav": str(copy)}})
    write_voice(wav, 0, 0, duration=1.5)
    with pytest.raises(InputError, match="1 training utterances are of other audio"):
        distillation_dataset(utterances, None, 16000, 1.0, [100], targets)


def test_loss_by_hand():
    predictions = {
        "a": torch.tensor([[1.0, 0.0], [3.0, 4.0]]), "b": torch.tensor([[2.0], [1.0]]),
    }  # fmt: skip
    targets = {
        "a": torch.tensor([[0.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([[-1.0], [5.0]]),
    }  # fmt: skip
    cosine_distances = (1.0 + 0.0) / 2, (2.0 + 0.0) / 2
    loss = DistillationLoss()(predictions, targets)
    assert loss == pytest.approx(sum(cosine_distances) / 2)
    squared = (1 + 4 + 0 + 0) / 4, (9 + 16) / 2
    loss = DistillationLoss(mse_weight=0.1)(predictions, targets)
    assert loss == pytest.approx((sum(cosine_distances) + 0.1 * sum(squared)) / 2)


def test_labels_count_only_where_asked_for():
    embeddings = torch.randn(4, 1, 8)
    heads = DistillationHeads(8, 5, {"a": 3}, separate_heads=True)
    assert "speaker" not in heads(embeddings)
    heads = DistillationHeads(8, 5, {"a": 3}, classify=0.5, separate_heads=True)
    predictions = heads(embeddings)
    targets = {"a": torch.randn(4, 3)}
    speakers = torch.zeros(4, 1).long()
    loss = DistillationLoss(
        speaker_weight=0.5, speaker_loss=lambda cosines, _: cosines.sum()
    )
    difference = loss(predictions, targets, speakers) - DistillationLoss()(
        predictions, targets
    )
    expected = 0.5 * predictions["speaker"].sum().item()
    assert difference.item() == pytest.approx(expected, rel=1e-4)


def test_the_embedding_is_the_target_itself():
    embeddings = torch.randn(4, 1, 5)
    heads = DistillationHeads(5, 3, {"a": 2, "b": 3})
    assert not list(heads.parameters())
    (predicted,) = heads(embeddings).values()
    assert torch.equal(predicted, embeddings.squeeze(1))
    assert heads.sizes == {"targets": 5}
    with pytest.raises(InputError, match="6 dimensions, its targets have 5"):
        DistillationHeads(6, 3, {"a": 2, "b": 3})


def test_cka():
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6))
    assert linear_cka(x, 5 * x @ rotation + 3) == pytest.approx(1.0)
    assert linear_cka(x, torch.randn(200, 6)) < 0.1
    # By its definition with kernel matrices
    y = x[:, :2] + torch.randn(200, 2)
    centre = torch.eye(200) - 1 / 200
    k, m = (centre @ (z @ z.T) @ centre for z in (x, y))
    expected = (k * m).sum() / (k.norm() * m.norm())
    assert linear_cka(x, y) == pytest.approx(expected.item(), rel=1e-4)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """A student of all kinds of targets, and how it was made."""
    folder = tmp_path_factory.mktemp("kd")
    for speaker in range(12):
        for utterance in range(4):
            path = folder / f"corpus/s{speaker}/{utterance}.wav"
            write_voice(path, speaker, utterance)
    options = {
        **TINY,
        "data_folder": folder / "corpus",
        "output_folder": folder / "student",
        "teacher": folder / "teacher",
        "teacher_overrides": "{emb_dim: 16, xvector_channels: 16, augment: True}",
        "teacher_training": (
            "{number_of_steps: 4, steps_per_epoch: 2, batch_size: 4, "
            "sentence_len: 1.0, ckpt_interval_minutes: 0}"
        ),
        "targets": TARGETS,
        "student_channels": 32,
        "emb_dim": 24,
        "separate_heads": True,
        "lda_dim": 4,
    }
    hparams = ROOT / "hparams" / "kd_xvector_fc.yaml"
    done = run(RECIPES / "train_kd.py", hparams, options, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, options


def test_one_command_makes_teacher_targets_student_and_scores(distilled):
    folder, _ = distilled
    for part in ("teacher", "teacher/sp_aggr", "teacher/lde_aggr", "student"):
        metrics = json.loads((folder / part / "test/metrics.json").read_text())
        assert 0 <= metrics["EER"] <= 1
    plda = json.loads((folder / "student/verification_plda/metrics.json").read_text())
    assert plda["backend"] == "PLDA"
    sizes = {}
    for name in TARGETS:
        store = EmbeddingStore.load(folder / f"teacher/targets/{name}.safetensors")
        assert store.embeddings.isfinite().all()
        sizes[name] = store.embeddings.shape[1]
    assert sizes == {**{name: SIZES[name] for name in TARGETS}, "utterance": 16}


def test_targets_are_the_teachers_embeddings(distilled):
    folder, _ = distilled
    teacher = SpeakerRecognition.from_training(folder / "teacher")
    store = EmbeddingStore.load(folder / "teacher/targets/utterance.safetensors")
    assert store.fingerprint == teacher.fingerprint
    wide = EmbeddingStore.load(folder / "teacher/targets/wide_bn.safetensors").by_id()
    frames = TeacherFrames(teacher, ["blocks.14"])
    name = store.ids[0]
    wav = teacher.load_audio(folder / "corpus" / name).unsqueeze(0)
    assert torch.allclose(
        store.by_id()[name], teacher.encode_batch(wav)[0, 0], atol=1e-3
    )
    pooled = MaskedStatisticsPooling(return_std=False)(frames(wav)[0])
    assert torch.allclose(wide[name], pooled[0, 0], atol=1e-3)


def test_student_keeps_no_head(distilled):
    folder, _ = distilled
    student = SpeakerRecognition.from_training(folder / "student")
    expected = n_parameters(KDStudent(80, channels=32, emb_dim=24))
    assert n_parameters(student) == expected


def test_size_of_the_student_is_printed(distilled, caplog):
    folder, _ = distilled
    print_size = runpy.run_path(str(RECIPES / "train_kd.py"))["print_size"]
    with caplog.at_level("INFO"):
        print_size(folder / "teacher", folder / "student", trust_source=False)
    student, teacher = (
        n_parameters(SpeakerRecognition.from_training(folder / name))
        for name in ("student", "teacher")
    )
    smaller = f"{100 * (1 - student / teacher):.0f} % fewer"
    expected = f"{student:,} parameters, {smaller} than its teacher's {teacher:,}."
    assert expected in caplog.text


def test_what_is_done_is_not_done_again(distilled):
    folder, options = distilled
    files = [
        folder / "teacher/test/metrics.json",
        folder / "teacher/targets/sp_aggr.safetensors",
    ]
    before = [file.stat().st_mtime_ns for file in files]
    done = run(
        RECIPES / "train_kd.py", ROOT / "hparams/kd_xvector_fc.yaml", options, folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [file.stat().st_mtime_ns for file in files] == before
    unknown = {**options, "targets": ["utterance", "middle"]}
    done = run(
        RECIPES / "train_kd.py", ROOT / "hparams/kd_xvector_fc.yaml", unknown, folder
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("error: targets: no middle; the teacher has utterance, sp_aggr")
    )


TINY_TEACHERS = {
    "kd_ecapa_fc": "{ecapa_channels: 16}",
    "kd_etdnn_fc": "{xvector_channels: 8}",
    "kd_dtdnn_fc": "{growth_channels: 4}",
}


@pytest.mark.parametrize("name", [*TINY_TEACHERS, "kd_xvector_tdnn"])
def test_other_students_and_teachers(distilled, tmp_path, name):
    folder, options = distilled
    options = {
        **options, "output_folder": tmp_path / "student", "aam_weight": 0.1,
        "targets": "[utterance, narrow_bn]",
    }  # fmt: skip
    if name in TINY_TEACHERS:
        options["teacher"] = tmp_path / "teacher"
        options["teacher_overrides"] = TINY_TEACHERS[name]
    else:
        options["student_channels"] = 16
        del options["emb_dim"], options["separate_heads"]
    done = run(RECIPES / "train_kd.py", ROOT / f"hparams/{name}.yaml", options, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "student/verification_plda/metrics.json").is_file()
    student = SpeakerRecognition.from_training(tmp_path / "student")
    # Without heads the embedding has the targets' dimensions, 16 and 16 channels.
    dim = 24 if name in TINY_TEACHERS else 32
    assert student.encode_batch(torch.randn(1, 16000)).shape[2] == dim


def test_frames_of_an_ssl_system_as_targets(distilled, tmp_path):
    folder, options = distilled
    wavlm = save_small_wavlm(tmp_path / "wavlm", n_layers=2, channels=32, n_bands=8)
    options = {
        **options, "output_folder": tmp_path / "student", "student_channels": 8,
        "teacher": tmp_path / "teacher", "max_target_dim": 24,
        "teacher_overrides": json.dumps(
            {"ssl_hub": str(wavlm), "conv_channels": 8, "pooled_channels": 16}
        ),
        "targets": "[layer_pooled, hidden_1, sp_aggr]",
    }  # fmt: skip
    del options["emb_dim"], options["separate_heads"]
    hparams = ROOT / "hparams/kd_ltdnn_tdnn.yaml"
    done = run(RECIPES / "train_kd.py", hparams, options, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    sizes = [
        EmbeddingStore.load(tmp_path / f"teacher/targets/{name}.safetensors").embeddings
        for name in ("layer_pooled", "hidden_1", "sp_aggr")
    ]
    assert [embeddings.shape[1] for embeddings in sizes] == [16, 32, 512]
    student = SpeakerRecognition.from_training(tmp_path / "student")
    assert student.encode_batch(torch.randn(1, 16000)).shape[2] == 16 + 24 + 24


def test_cka_of_targets(distilled, tmp_path):
    folder, _ = distilled
    done = run_python(
        [
            RECIPES / "compare_targets.py",
            folder / "teacher/targets",
            "--output_folder",
            tmp_path,
        ]
    )
    assert done.returncode == 0, done.stderr[-2000:]
    similarities = json.loads((tmp_path / "cka.json").read_text())
    assert set(TARGETS) <= set(similarities)
    for first in TARGETS:
        assert similarities[first][first] == pytest.approx(1.0)
        for second in TARGETS:
            assert similarities[first][second] == pytest.approx(
                similarities[second][first]
            )
    assert (tmp_path / "cka.png").is_file()


def test_exported_model_needs_no_pytorch(distilled, tmp_path):
    folder, _ = distilled
    export = run_python(
        [RECIPES / "export_onnx.py", folder / "student", "--output_folder", tmp_path]
    )
    assert export.returncode == 0, export.stderr[-2000:]
    script = (
        "import sys, runpy\n"
        "for name in ('torch', 'torchaudio', 'speechbrain', 'speechbrain_ext'):\n"
        "    sys.modules[name] = None\n"
        f"runpy.run_path({str(RECIPES / 'verify_onnx.py')!r}, run_name='__main__')\n"
    )
    paths = [folder / f"corpus/s0/{i}.wav" for i in (0, 1)]
    command = [sys.executable, "-c", script]
    done = subprocess.run([*command, tmp_path, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    student = SpeakerRecognition.from_training(folder / "student")
    score, decision = student.verify_files(*paths)
    printed, words = done.stdout.split(maxsplit=1)
    assert float(printed) == pytest.approx(score.item(), abs=1e-4)
    assert words.strip() == ("same speaker" if decision else "different speakers")
    soundfile.write(tmp_path / "8k.wav", [0.0] * 8000, 8000)
    done = subprocess.run(
        [*command, tmp_path, tmp_path / "8k.wav", paths[0]],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "mono at 8000 Hz" in done.stderr


def test_deployment_table(distilled, tmp_path):
    folder, _ = distilled
    done = run_python(
        [
            RECIPES / "deployment_table.py",
            folder / "teacher",
            folder / "student",
            "--output_folder",
            tmp_path,
        ]
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with open(tmp_path / "deployment.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["form"] for row in rows[:4]] == [
        "PyTorch float32", "ONNX float32", "ONNX float16", "ONNX int8",
    ]  # fmt: skip
    assert len(rows) == 8
    teacher, student = rows[0], rows[4]
    assert float(student["M multiplications a second"]) < float(
        teacher["M multiplications a second"]
    )
    metrics = json.loads((folder / "student/test/metrics.json").read_text())
    for row in rows[4:]:
        assert float(row["EER %"]) == pytest.approx(100 * metrics["EER"], abs=6)
    teacher_metrics = json.loads((folder / "teacher/test/metrics.json").read_text())
    for row in rows[:4]:
        assert float(row["EER %"]) == pytest.approx(100 * teacher_metrics["EER"], abs=6)
    sizes = [float(row["MB"]) for row in rows[5:]]
    assert sizes == sorted(sizes, reverse=True)
    for row in rows:
        assert float(row["latency ms"]) > 0 and float(row["processor ms"]) > 0
        assert float(row["lowest cosine"]) > 0.999

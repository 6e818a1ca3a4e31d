"""An embedding is the same alone, in any batch, inside SpeechBrain, and again."""

import pytest
import torch
from conftest import ROOT
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.integrations.huggingface.wavlm import WavLM
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.lobes.models.Xvector import Xvector
from speechbrain.nnet.pooling import StatisticsPooling
from trainings import trained

from speechbrain_ext import lobes
from speechbrain_ext.config import read_configuration
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.inference.teacher_frames import TeacherFrames
from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.nnet import pooling
from speechbrain_ext.nnet.dictionary_encoding import LDEEmbedding
from speechbrain_ext.nnet.pooling import FrameStatistics
from speechbrain_ext.utils.checkpoints import AtomicCheckpointer
from speechbrain_ext.utils.errors import InputError

TOLERANCE = 1e-5
SHORT, LONG = 7013, 20 * 7013  # samples; no multiple of any hop

# Keys that make the systems small, of those YAMLs that have them
TINY = {
    "ecapa_channels": 16,
    "xvector_channels": 16,
    "growth_channels": 4,
    "student_channels": 16,
    "conv_channels": 16,
    "pooled_channels": 16,
    "adapter_channels": 8,
    "compressed_channels": 8,
    "vgg_width": 4,
    "n_heads": 4,
}
# YAMLs of no system of their own; those on a teacher's layers have a test of their own.
OTHERS = (
    "verification_", "pretrain_", "prepare", "base", "data", "ssl_base", "lde_teacher",
    "sp_teacher",
)  # fmt: skip
SYSTEMS = sorted(
    path.stem
    for path in (ROOT / "hparams").glob("*.yaml")
    if not path.stem.startswith(OTHERS)
)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Random encoders with both kinds of front end, and w2v-BERT."""
    folder = tmp_path_factory.mktemp("encoders")
    return {
        "group": save_random_encoder("wavlm", folder / "group"),
        "layer": save_random_encoder(
            "wavlm", folder / "layer", feat_extract_norm="layer",
            do_stable_layer_norm=True,
        ),
        "hubert": save_random_encoder("hubert", folder / "hubert"),
        "wav2vec2": save_random_encoder("wav2vec2", folder / "wav2vec2"),
        "w2v-bert": save_random_encoder("w2v-bert", folder / "w2v-bert"),
    }  # fmt: skip


def system(name, **given):
    """Encoder and embedding model of a recipe's YAML, as a lobe."""
    yaml = str(ROOT / f"hparams/{name}.yaml")
    configuration = read_configuration([yaml], demo=False)
    known = configuration.entries
    options = {key: value for key, value in {**TINY, **given}.items() if key in known}
    parts = configuration.with_values(options).build(["encoder", "embedding_model"])
    return lobes.SpeakerEmbedder(parts["encoder"], parts["embedding_model"])


def batch_of(short, long):
    """Both in one batch; what stands in the padding is not to be seen."""
    padding = 0.3 * torch.randn(len(long) - len(short))
    lengths = torch.tensor([1.0, len(short) / len(long)])
    return torch.stack([long, torch.cat([short, padding])]), lengths


@torch.no_grad()
def check_invariance(embed):
    torch.manual_seed(2)
    short = torch.randn(SHORT) * torch.linspace(0.05, 0.5, SHORT)
    long = 3 * torch.randn(LONG)
    wavs, lengths = batch_of(short, long)
    together = embed(wavs, lengths)
    alone = embed(short.unsqueeze(0), torch.ones(1))
    assert together.shape[1] == 1 and together.isfinite().all()
    # The two say something, so that their agreement does.
    assert (together[0] - together[1]).abs().max() > 100 * TOLERANCE
    assert (together[1] - alone[0]).abs().max() < TOLERANCE
    assert (together[0] - embed(long.unsqueeze(0), None)[0]).abs().max() < TOLERANCE
    assert torch.equal(embed(wavs, lengths), together)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system(encoders, name):
    encoder = encoders["w2v-bert" if name.startswith("w2v_bert") else "group"]
    check_invariance(trained(system(name, ssl_hub=encoder)))


@pytest.mark.parametrize("encoder", ["layer", "hubert", "wav2vec2"])
def test_every_kind_of_encoder(encoders, encoder):
    check_invariance(trained(system("superb_ecapa", ssl_hub=encoders[encoder])))


@pytest.mark.parametrize(
    "changes",
    [
        {"keep_spectrum": True},
        {"preemphasis": 0.97},
        {"preemphasis": 0.97, "keep_spectrum": True},
    ],
    ids=str,
)
def test_every_kind_of_filter_banks(changes):
    check_invariance(trained(system("ecapa_fbank", **changes)))


def tiny_xvector(cls=lobes.MaskedXvector, n_in=24):
    return cls(in_channels=n_in, tdnn_channels=[16] * 4 + [30], lin_neurons=12)


def tiny_ecapa(cls=lobes.MaskedECAPA, n_in=24, **options):
    return cls(n_in, channels=[16] * 4 + [48], lin_neurons=12, **options)


def tiny_etdnn(n_in=24):
    return lobes.ETDNN(n_in, channels=16, pooled_channels=30, lin_neurons=12)


def tiny_dtdnn(n_in=24):
    return lobes.DTDNN(n_in, growth_channels=4, lin_neurons=12)


@pytest.mark.parametrize(
    "embedding_model, layers, channels_first",
    [
        (tiny_xvector, ["blocks.2", "blocks.14"], False),
        (tiny_ecapa, ["blocks.1", "mfa"], True),
        (tiny_etdnn, ["blocks.2", "blocks.26", "blocks.29"], False),
        (tiny_dtdnn, ["tdnn", "blocks.0", "transitions.1"], False),
    ],
)
def test_layers_of_teachers(embedding_model, layers, channels_first):
    teacher = SpeakerRecognition(
        lobes.NormalizedFbank(24), trained_back_end(embedding_model()), 16000, None
    )
    check_pooled_layers(TeacherFrames(teacher, layers, channels_first))


def test_layers_of_an_ssl_teacher(encoders):
    embedder = trained(system("ltdnn_wavlm", ssl_hub=encoders["group"]))
    teacher = SpeakerRecognition(
        embedder.encoder, embedder.embedding_model, 16000, None
    )
    check_pooled_layers(
        TeacherFrames(teacher, ["layer_pooling", "hidden_states.0", "hidden_states.2"])
    )


def check_pooled_layers(frames):
    pooled = [
        LDEEmbedding(frames.channels, 8, n_components=4, emb_dim=12),
        lobes.ASTP(frames.channels, 12, frame_pooling=FrameStatistics(frames.channels)),
        lobes.MaskedStatisticsPooling(return_std=False),
    ]
    for back_end in pooled:
        check_invariance(lobes.SpeakerEmbedder(frames, back_end.eval()))


def trained_back_end(model):
    trained(lobes.SpeakerEmbedder(lobes.NormalizedFbank(24), model))
    return model


@pytest.mark.parametrize("global_context", [True, False])
@pytest.mark.parametrize("n_long", [40, 41, 300])
def test_every_length_of_frames(n_long, global_context):
    models = [
        trained_back_end(tiny_xvector()),
        trained_back_end(tiny_ecapa(global_context=global_context)),
        trained_back_end(tiny_etdnn()),
        trained_back_end(tiny_dtdnn()),
    ]
    counts = [n_long, *range(1, 12), *range(n_long - 12, n_long)]
    frames = torch.randn(len(counts), n_long, 24)
    with torch.no_grad():
        for model in models:
            together = model(frames, torch.tensor(counts) / n_long)
            for i, n in enumerate(counts):
                alone = model(frames[i : i + 1, :n])
                assert (together[i] - alone[0]).abs().max() < TOLERANCE, n


def without_noise(monkeypatch):
    monkeypatch.setattr(
        StatisticsPooling,
        "_get_gauss_noise",
        lambda self, shape, device="cpu": torch.zeros(shape, device=device),
    )


@pytest.mark.parametrize(
    "theirs, ours",
    [
        (lambda: tiny_xvector(Xvector), tiny_xvector),
        (lambda: tiny_ecapa(ECAPA_TDNN), tiny_ecapa),
        (
            lambda: tiny_ecapa(ECAPA_TDNN, global_context=False),
            lambda: tiny_ecapa(global_context=False),
        ),
    ],
    ids=["xvector", "ecapa", "ecapa without global context"],
)
def test_speechbrains_weights_give_speechbrains_embeddings(monkeypatch, theirs, ours):
    theirs = trained_back_end(theirs())
    ours = ours().eval()
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    frames = torch.randn(1, 150, 24)
    with torch.no_grad():
        # Up to the noise of up to 9e-5 that its pooling adds
        assert (ours(frames) - theirs(frames)).abs().max() < 1e-3
        without_noise(monkeypatch)
        assert (ours(frames) - theirs(frames)).abs().max() < TOLERANCE


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("model", [tiny_xvector, tiny_ecapa])
def test_training_counts_no_padding(model, padded):
    """A batch of pieces trains as one recording's frames where nothing mixes."""
    model = model().train()
    frames = torch.randn(3, 60, 24)
    lengths = torch.tensor([1.0, 0.5, 0.25]) if padded else None
    model(frames, lengths).pow(2).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    statistics = {name: b.clone() for name, b in model.named_buffers()}
    model.zero_grad()
    for name, buffer in model.named_buffers():
        buffer.fill_(1 if "var" in name else 0)
    if padded:
        frames[1, 30:], frames[2, 15:] = 1e3, -1e3
    model(frames, lengths).pow(2).sum().backward()
    for name, parameter in model.named_parameters():
        scale = 1e-4 * gradients[name].abs().max() + 1e-5
        assert (parameter.grad - gradients[name]).abs().max() < scale, name
    for name, buffer in model.named_buffers():
        assert torch.allclose(buffer, statistics[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("options", [{}, {"deltas": True, "context": True}], ids=str)
@pytest.mark.parametrize(
    "ours, theirs", [(lobes.MaskedFbank, Fbank), (lobes.MaskedMFCC, MFCC)]
)
def test_features_are_speechbrains_and_see_no_padding(ours, theirs, options):
    torch.manual_seed(0)
    ours, theirs = ours(**options), theirs(**options)
    short, long = 1e-3 * torch.randn(SHORT), 3 * torch.randn(LONG)
    short[-800:] = 0.0  # so quiet that `top_db` cuts
    wavs, lengths = batch_of(short, long)
    frames, counts = ours(wavs, lengths), ours.frame_counts(wavs, lengths)
    for utterance, count, wav in zip(frames, counts, (long, short)):
        alone = theirs(wav.unsqueeze(0))
        assert alone.shape[1] == count
        assert (utterance[:count] - alone[0]).abs().max() < 1e-3  # dB
    assert torch.equal(ours(short.unsqueeze(0)), theirs(short.unsqueeze(0)))


def test_statistics_of_one_frame_are_finite():
    layer = lobes.MaskedStatisticsPooling()
    frames = torch.randn(2, 5, 3, requires_grad=True)
    pooled = layer(frames, torch.tensor([1.0, 0.2]))
    assert torch.equal(pooled[1, 0, :3], frames[1, 0])
    assert torch.allclose(pooled[1], layer(frames[1:, :1])[0])
    pooled.sum().backward()
    assert frames.grad.isfinite().all() and (frames.grad[1, 1:] == 0).all()


def test_statistics_are_speechbrains(monkeypatch):
    without_noise(monkeypatch)
    frames, lengths = torch.randn(3, 40, 8), torch.tensor([1.0, 0.7, 0.25])
    for options in ({}, {"return_std": False}, {"return_mean": False}):
        expected = StatisticsPooling(**options)(frames, lengths)
        pooled = lobes.MaskedStatisticsPooling(**options)(frames, lengths)
        assert torch.allclose(pooled, expected, atol=1e-6)


def test_models_of_speechbrain_leave_padding_out():
    back_ends = {
        "xvector": tiny_xvector(Xvector),
        "ecapa": tiny_ecapa(ECAPA_TDNN),
        "vgg": lobes.VGGEmbedding(StatisticsPooling(), 192, 24, (8, 16, 32)),
    }
    for back_end in back_ends.values():
        state = {
            k: v.clone() for k, v in trained_back_end(back_end).state_dict().items()
        }
        embed = lobes.SpeakerEmbedder(lobes.NormalizedFbank(24), back_end)
        with pytest.raises(AssertionError):
            check_invariance(embed)
        assert lobes.leave_padding_out(back_end) is back_end
        assert all(torch.equal(v, state[k]) for k, v in back_end.state_dict().items())
        check_invariance(embed)


@pytest.mark.filterwarnings("ignore:.*is called:FutureWarning")
@pytest.mark.parametrize(
    "path, options, build",
    [
        (
            "speechbrain.lobes.models.Xvector.Xvector",
            "{in_channels: 24, tdnn_channels: [16, 16, 16, 16, 30], lin_neurons: 12}",
            lambda: tiny_xvector(Xvector),
        ),
        (
            "speechbrain_ext.lobes.models.ecapa.ECAPA_TDNN",
            "{input_size: 24, channels: [16, 16, 16, 16, 48], lin_neurons: 12}",
            lambda: tiny_ecapa(ECAPA_TDNN),
        ),
    ],
    ids=["xvector", "ecapa"],
)
def test_trainings_of_earlier_versions_leave_padding_out(
    tmp_path, path, options, build
):
    (tmp_path / "hyperparams.yaml").write_text(
        "sample_rate: 16000\n"
        "encoder: !new:speechbrain_ext.lobes.features.NormalizedFbank {n_mels: 24}\n"
        f"embedding_model: !new:{path} {options}\n"
    )
    theirs = trained_back_end(build())
    checkpointer = AtomicCheckpointer(tmp_path / "save", {"embedding_model": theirs})
    checkpointer.save_checkpoint(meta={"EER": 0.1, "threshold": 0.5})
    model = SpeakerRecognition.from_training(tmp_path)
    for name, value in model.embedding_model.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])
    check_invariance(lambda wavs, lengths: model.encode_batch(wavs, lengths))


def test_old_names_are_found_with_a_warning():
    from speechbrain_ext.lobes.models import ecapa

    with pytest.warns(FutureWarning, match="ECAPA_TDNN is called MaskedECAPA now"):
        assert ecapa.ECAPA_TDNN is lobes.MaskedECAPA
    for module in (lobes, pooling):
        with pytest.warns(FutureWarning, match="ChannelAttentiveStatisticsPooling"):
            assert (
                module.AttentiveStatisticsPooling
                is pooling.ChannelAttentiveStatisticsPooling
            )
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lobes.nothing


BACK_ENDS = {
    "LTDNN": "!new:speechbrain_ext.lobes.LTDNN {in_channels: 32, n_layers: 4, "
    "conv_channels: 16, pooled_channels: 16, emb_dim: 12}",
    "LAP_ASTP": "!new:speechbrain_ext.lobes.LAP_ASTP {in_channels: 32, n_layers: 4, "
    "pooled_channels: 16, emb_dim: 12, n_heads: 4}",
    "KDStudent": "!new:speechbrain_ext.lobes.KDStudent {in_channels: 24, channels: 16, "
    "emb_dim: 12}",
    "MaskedXvector": "!new:speechbrain_ext.lobes.MaskedXvector {in_channels: 24, "
    "tdnn_channels: [16, 16, 16, 16, 30], lin_neurons: 12}",
}


@pytest.mark.parametrize("name", BACK_ENDS)
def test_lobes_inside_speechbrain(encoders, tmp_path, name):
    if name in ("LTDNN", "LAP_ASTP"):
        encoder = (
            f"!new:speechbrain_ext.lobes.SSLEncoder {{source: {encoders['group']}}}"
        )
    else:
        encoder = (
            "!new:speechbrain_ext.lobes.NormalizedFbank "
            "{n_mels: 24, keep_spectrum: True}"
        )
    (tmp_path / "hyperparams.yaml").write_text(
        f"encoder: {encoder}\n"
        f"back_end: {BACK_ENDS[name]}\n"
        "embedding_model: !new:speechbrain_ext.lobes.SpeakerEmbedder\n"
        "    encoder: !ref <encoder>\n"
        "    embedding_model: !ref <back_end>\n"
        "modules:\n"
        "    compute_features: !new:torch.nn.Identity\n"
        "    mean_var_norm: !new:speechbrain.nnet.containers.LengthsCapableSequential\n"
        "        - !new:torch.nn.Identity\n"
        "    embedding_model: !ref <embedding_model>\n"
        "    classifier: !new:torch.nn.Identity\n"
        "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n"
        "    loadables: {embedding_model: !ref <embedding_model>}\n"
        f"    paths: {{embedding_model: {tmp_path}/saved.ckpt}}\n"
        "label_encoder: null\n"
    )
    with open(tmp_path / "hyperparams.yaml") as stream:
        model = trained(load_hyperpyyaml(stream)["embedding_model"])
    torch.save(model.state_dict(), tmp_path / "saved.ckpt")
    theirs = EncoderClassifier.from_hparams(
        str(tmp_path), savedir=str(tmp_path / "copy")
    )
    check_invariance(theirs.encode_batch)
    wavs = torch.randn(2, SHORT)
    # Encoder and back end were saved and loaded as one.
    with torch.no_grad():
        expected = model(wavs)
    assert torch.equal(theirs.encode_batch(wavs), expected)


def test_frozen_encoder_of_the_lobe_is_not_trained(encoders):
    model = lobes.SpeakerEmbedder(
        lobes.SSLEncoder(encoders["group"], freeze=True),
        lobes.LTDNN(32, 4, conv_channels=16, pooled_channels=16, emb_dim=12),
    ).train()
    assert not any(part.training for part in model.encoder.modules())
    model(torch.randn(2, SHORT)).sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert any(p.grad is not None for p in model.embedding_model.parameters())


@pytest.mark.parametrize("half", [False, True])
def test_our_encoders_run_in_speechbrains_lobe(tmp_path, half):
    source = str(ROOT / "speechbrain_ext/pretrained/wavlm-small")
    if not half:
        source = save_small_wavlm(tmp_path / "wavlm", n_layers=2, channels=32)
    encoder = WavLM(source, str(tmp_path), output_all_hiddens=True).eval()
    wav = torch.randn(1, SHORT)
    expected, _ = lobes.SSLEncoder(source)(wav)
    assert encoder(wav).dtype == torch.float32
    assert torch.allclose(encoder(wav), expected, atol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda p: lobes.LTDNN(32, 4, pooled_channels=16, frame_pooling=p),
        lambda p: lobes.LAP_ASTP(32, 4, pooled_channels=16, n_heads=4, frame_pooling=p),
        lambda p: lobes.ASTP(16, 12, frame_pooling=p),
        lambda p: lobes.MaskedECAPA(24, channels=[16] * 5, frame_pooling=p),
        lambda p: lobes.VGGEmbedding(p, 24, n_mels=8, channels=(4, 8, 16)),
    ],
    ids=["LTDNN", "LAP_ASTP", "ASTP", "MaskedECAPA", "VGGEmbedding"],
)
@pytest.mark.parametrize(
    "frame_pooling",
    [
        lambda n: lobes.MultiHeadAttnPooling(n, n_heads=4),
        lambda n: lobes.DoubleMultiHeadAttnPooling(n, n_heads=4),
        lambda n: lobes.ChannelAttentiveStatisticsPooling(n, attention_channels=4),
        lambda n: lobes.LearnableDictionaryEncoding(n, n_components=4),
    ],
    ids=["MHA", "double MHA", "attentive", "dictionary"],
)
def test_poolings_of_other_channels_are_refused(build, frame_pooling):
    build(frame_pooling(16))
    with pytest.raises(InputError, match="takes 24 channels, and the frames have 16"):
        build(frame_pooling(24))

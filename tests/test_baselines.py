"""The baselines of arXiv 2409.07770 as its authors train them."""

import functools
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from speechbrain_ext.augment.frame_masking import FrameMasking
from speechbrain_ext.config import read_configuration, training_stages
from speechbrain_ext.lobes.encoders.factory import load_encoder
from speechbrain_ext.lobes.features import NormalizedMFCC
from speechbrain_ext.lobes.models.layer_pooled import LayerPooled
from speechbrain_ext.lobes.models.ltdnn import LTDNN
from speechbrain_ext.nnet.pooling import FrameStatistics, WeightedLayerSum
from speechbrain_ext.schema import has_tag, plain_value
from speechbrain_ext.training.brains import SpeakerBrain
from speechbrain_ext.training.grids import option_text, read_grid
from speechbrain_ext.utils.errors import InputError

SMALL = "speechbrain_ext/wavlm-small"


def build(system, *options):
    path = ROOT / "hparams" / f"{system}.yaml"
    return read_configuration([str(path), *options], demo=False).build()


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("system", ["xvector_mfcc", "superb_xvector"])
def test_xvector_is_trained_by_cross_entropy_on_a_second_layer(system):
    options = [f"--ssl_hub={SMALL}"] if system == "superb_xvector" else []
    hparams = build(system, *options)
    classifier = hparams["classifier"](out_neurons=7)
    embeddings = torch.randn(4, 1, 512)
    linear = [m for m in classifier.modules() if isinstance(m, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [512, 7]
    output = classifier(embeddings)
    speakers = torch.tensor([[3], [0], [6], [3]])
    expected = torch.nn.functional.cross_entropy(output.squeeze(1), speakers.squeeze(1))
    assert torch.allclose(hparams["compute_cost"](output, speakers), expected)
    optimizer = hparams["opt_class"](classifier.parameters())
    schedule = hparams["lr_scheduler"](optimizer)
    for _ in range(3):
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["lr"] == 0.001


def test_ecapa_on_mfcc_as_its_authors_train_it():
    hparams = build("ecapa_mfcc")
    assert hparams["sentence_len"] == 2.0
    assert hparams["opt_class"].keywords == {"weight_decay": 2e-5}
    assert hparams["classifier_weight_decay"] == 2e-4
    frames, lengths = hparams["encoder"](torch.randn(2, 16000), torch.ones(2))
    assert frames.shape[2] == 80
    torch.testing.assert_close(frames.norm(dim=2), torch.ones(frames.shape[:2]))
    attention = hparams["embedding_model"].asp.tdnn.conv.conv
    assert attention.out_channels == 256


def test_superb_ecapa_has_the_papers_size():
    model = build("superb_ecapa", f"--ssl_hub={SMALL}")["embedding_model"]
    assert isinstance(model, LayerPooled)
    assert isinstance(model.layer_pooling, WeightedLayerSum)
    first = model.embedding_model.blocks[0].conv.conv
    # On 768 channels in place of those of the small encoder
    more = first.out_channels * first.kernel_size[0] * (768 - first.in_channels)
    assert n_parameters(model.embedding_model) + more == 8_742_144


@pytest.mark.parametrize(
    "options, expected",
    [({}, 5_717_272), ({"projected_channels": 768}, 6_044_952)],
)
def test_head_sizes_of_the_code_and_of_the_text(options, expected):
    assert n_parameters(LTDNN(768, 13, **options)) == expected


@pytest.mark.parametrize("n_blocks", [2, 3, 4])
def test_ltdnn_has_as_many_blocks_as_dilations(n_blocks):
    dilations = list(range(2, 2 + n_blocks))
    model = build("ltdnn_wavlm", f"--ssl_hub={SMALL}", f"--dilations={dilations}")
    convolutions = model["embedding_model"].convolutions
    assert [block.res2conv.convs[0].conv.dilation[0] for block in convolutions.blocks] \
        == dilations  # fmt: skip
    assert convolutions.out_channels == n_blocks * 256


@pytest.mark.parametrize("normalization", ["mean", "mean-variance", "frame-length"])
def test_mfccs_are_normalised_over_valid_frames(normalization):
    torch.manual_seed(0)
    features = NormalizedMFCC(normalization=normalization)
    wav = torch.randn(2, 16000)
    padded, lengths = features(wav, torch.tensor([1.0, 0.5]))
    alone, _ = features(wav[1:, :8000])
    n_frames = alone.shape[1]
    assert round(float(lengths[1] * padded.shape[1])) == n_frames
    torch.testing.assert_close(padded[1:, :n_frames], alone, atol=1e-3, rtol=1e-3)
    if normalization == "frame-length":
        torch.testing.assert_close(alone.norm(dim=2), torch.ones(1, n_frames))
    else:
        assert alone.mean(1).abs().max() < 1e-3
    if normalization == "mean-variance":
        deviation = alone.std(1, correction=0)
        torch.testing.assert_close(deviation, torch.ones_like(deviation))


def test_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="mean, mean-variance, frame-length"):
        NormalizedMFCC(normalization="median")


def test_masks_are_narrower_than_their_maximum():
    torch.manual_seed(0)
    masking = FrameMasking(max_freq_mask=4, max_time_mask=3)
    frames, _ = masking(torch.ones(400, 20, 12), torch.ones(400))
    bands = (frames == 0).all(dim=1).sum(1)
    spans = (frames == 0).all(dim=2).sum(1)
    assert set(bands.tolist()) == {0, 1, 2, 3}
    assert set(spans.tolist()) == {0, 1, 2}
    # Anywhere, the ends too
    assert (frames == 0).all(dim=1).any(0).all()
    short, _ = masking(torch.ones(3, 1, 1), torch.ones(3))
    assert short.shape == (3, 1, 1)


def test_temporal_mean_trains_the_transformer_alone():
    hparams = build("ssl_mean_wavlm", f"--ssl_hub={SMALL}")
    assert hparams["validate_after"] == hparams["encoder_frozen_steps"] == 7692
    trained = {
        name.split(".")[0]
        for name, parameter in hparams["encoder"].model.named_parameters()
        if parameter.requires_grad
    }
    assert trained == {"encoder"}
    hparams["encoder"].train()
    assert not hparams["encoder"].model.feature_projection.training


def test_inserted_frame_has_masks_and_may_train_its_front_end():
    hparams = build("ssl_cls_wavlm", f"--ssl_hub={SMALL}")
    encoder = hparams["encoder"]
    config = encoder.model.config
    assert (config.mask_time_prob, config.mask_time_length) == (0.05, 10)
    torch.manual_seed(0)
    encoder.train()
    hidden_states, _ = encoder(torch.randn(2, 48000), torch.ones(2))
    hidden_states[-1][:, 0].sum().backward()
    front = encoder.model.feature_extractor.conv_layers[0].conv.weight
    assert front.grad is not None and front.grad.abs().max() > 0
    assert encoder.model.masked_spec_embed.grad is not None
    options = ["--freeze_feature_extractor=True", "--mask_time_prob=0.0"]
    encoder = build("ssl_cls_wavlm", f"--ssl_hub={SMALL}", *options)["encoder"]
    assert not encoder.model.masked_spec_embed.requires_grad
    front_end = encoder.model.feature_extractor.parameters()
    assert not any(p.requires_grad for p in front_end)


def test_masked_frames_get_the_learned_vector():
    encoder = load_encoder(SMALL, freeze=False, mask_time_prob=0.5)
    torch.nn.init.constant_(encoder.model.masked_spec_embed, 7.0)
    seen = []
    encoder.model.encoder.register_forward_pre_hook(
        lambda module, arguments: seen.append(arguments[0])
    )
    for mode in (True, False):
        encoder.train(mode)
        encoder(torch.randn(2, 48000), torch.ones(2))
    masked = (seen[0] == 7.0).all(dim=2).float().mean()
    assert 0.25 < masked < 0.55
    assert not (seen[1] == 7.0).all(dim=2).any()


@pytest.mark.parametrize("unbiased", [True, False])
def test_deviation_in_the_context_is_a_key(unbiased):
    hparams = build(
        "ltdnn_wavlm", f"--ssl_hub={SMALL}", f"--unbiased_context={unbiased}"
    )
    assert hparams["embedding_model"].astp.frame_pooling.unbiased is unbiased


def test_deviation_of_no_context_is_refused():
    options = ["--unbiased_context=True", "--attentive=False"]
    with pytest.raises(InputError, match="unbiased_context has no effect"):
        path = str(ROOT / "hparams" / "ltdnn_wavlm.yaml")
        training_stages(read_configuration([path, *options], demo=False))


def test_plain_statistics_in_place_of_attention():
    model = LTDNN(24, 5, conv_channels=16, pooled_channels=24, attentive=False)
    frames = torch.randn(2, 9, 24)
    pooled = model.astp.frame_pooling(frames).squeeze(1)
    expected = torch.cat([frames.mean(1), frames.std(1)], dim=1)
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-4)
    assert n_parameters(model) < n_parameters(
        LTDNN(24, 5, conv_channels=16, pooled_channels=24)
    )
    with pytest.raises(InputError, match="attentive: False"):
        LTDNN(24, 5, attentive=False, frame_pooling=FrameStatistics(512))


@pytest.mark.parametrize(
    "grid", ["ltdnn_ablations", "ltdnn_joint", "lap_ablations", "lap_back_ends"]
)
def test_settings_of_the_grids(grid, monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = read_grid(ROOT / "hparams" / "grids" / f"{grid}.yaml")
    for path, overrides, _ in settings.values():
        given = [f"--{key}={option_text(value)}" for key, value in overrides.items()]
        for stage in training_stages(read_configuration([path, *given], demo=False)):
            for key, value in overrides.items():
                assert stage.values()[key] == value


def test_rival_of_lap_has_its_training():
    """All that is not of the back end is the same."""
    lap, rival = (
        read_configuration(
            [str(ROOT / "hparams" / f"{name}.yaml"), "--output_folder=out"], demo=False
        ).values()
        for name in ("lap_wavlm", "superb_ecapa_stages")
    )
    plain = [key for key in lap if not has_tag(lap[key]) and key != "modules"]
    assert {"ssl_hub", "stages", "augment_prob", "margin", "lr"} <= set(plain)
    for key in plain:
        assert plain_value(rival[key]) == plain_value(lap[key]), key


def test_classifier_decays_by_itself_and_all_gradients_are_clipped():
    brain = object.__new__(SpeakerBrain)
    brain.modules = torch.nn.ModuleDict(
        {name: torch.nn.Linear(2, 2) for name in ("encoder", "model", "classifier")}
    )
    brain.modules["encoder"].requires_grad_(False)
    brain.checkpointer = None
    brain.max_grad_norm = 5.0
    brain.remove_vector_weight_decay = False
    brain.opt_class = lambda groups: torch.optim.SGD(groups, lr=1.0, weight_decay=2e-5)
    schedule = functools.partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    brain.hparams = SimpleNamespace(
        classifier_weight_decay=2e-4, lr_scheduler=schedule,
        encoder_lr_scheduler=schedule, layer_lr_decay=1.0, number_of_steps=10,
    )  # fmt: skip
    brain.init_optimizers()
    optimizer = brain.optimizers_dict["optimizer"]
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == [2e-5, 2e-4]
    classifier = set(brain.modules["classifier"].parameters())
    assert set(optimizer.param_groups[1]["params"]) == classifier
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 100.0)
    optimizer.step()
    norm = torch.stack([p.grad.norm() for p in parameters]).norm()
    assert norm.item() == pytest.approx(5.0, abs=1e-3)
    brain.hparams.classifier_weight_decay = None
    assert len(brain.trained_parameters()["optimizer"][0]) == 1

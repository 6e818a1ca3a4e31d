"""LAP against the published implementation; its fronts, loss and margins."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from speechbrain.core import Stage
from speechbrain.dataio.batch import PaddedBatch
from torch.nn import functional as F

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.lobes import (
    LAP_ASTP,
    MHFA,
    LayerAttentivePooling,
    LayerPooled,
    MaskedECAPA,
    MaskedXvector,
)
from speechbrain_ext.lobes.official_checkpoints import lap_astp_from_official
from speechbrain_ext.nnet.losses import (
    InterTopKAAM,
    MarginSchedule,
    SubCenterAAM,
    SubCenterClassifier,
)
from speechbrain_ext.training.brains import SpeakerBrain

TOLERANCE = 1e-5


def small_pooling(**changes):
    torch.manual_seed(0)
    sizes = dict(
        in_channels=24, out_channels=16, n_layers=5, n_heads=4,
        projected_channels=24, bias=True,
    )  # fmt: skip
    return LayerAttentivePooling(**{**sizes, **changes}).eval()


@pytest.mark.parametrize(
    "channels, n_layers, n_heads, expected",
    [(768, 13, 12, 1713780), (1024, 25, 16, 2312464)],
)
def test_parameter_count(channels, n_layers, n_heads, expected):
    model = LAP_ASTP(channels, n_layers, n_heads=n_heads)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_every_stage_matches_the_published_implementation(reference):
    tensors = reference("lap_astp.safetensors")
    official = {
        name.removeprefix("param."): value
        for name, value in tensors.items()
        if name.startswith("param.")
    }
    model = lap_astp_from_official(official, n_heads=4)
    hidden_states = tensors["input"].permute(3, 0, 2, 1)
    with torch.no_grad():
        frames, weights = model.layer_pooling(hidden_states, return_weights=True)
        _, frame_weights = model.embedding_model.frame_pooling(
            frames, return_weights=True
        )
        embedding = model(hidden_states)
    for ours, name in (
        (frames.transpose(1, 2), "layer_pooled"),
        (weights, "layer_attention"),
        (frame_weights.transpose(1, 2), "frame_attention"),
        (embedding.squeeze(1), "embedding"),
    ):
        assert (ours - tensors[name]).abs().max() < TOLERANCE, name


def test_official_checkpoints_that_do_not_fit_are_refused(reference):
    tensors = reference("lap_astp.safetensors")
    official = {
        name.removeprefix("param."): value
        for name, value in tensors.items()
        if name.startswith("param.")
    }
    with pytest.raises(ValueError, match="4 heads"):
        lap_astp_from_official(official, n_heads=12)
    with pytest.raises(ValueError, match="lap.extra"):
        lap_astp_from_official({**official, "lap.extra": torch.zeros(1)}, n_heads=4)
    with pytest.raises(ValueError, match="lap.out_weight.weight"):
        lap_astp_from_official({}, n_heads=4)


def test_padding_changes_no_embedding():
    torch.manual_seed(0)
    model = LAP_ASTP(24, 5, pooled_channels=16, emb_dim=8, n_heads=4).eval()
    hidden_states = torch.rand(5, 2, 20, 24)
    hidden_states[:, 1, 12:] = 9.0
    with torch.no_grad():
        padded = model(hidden_states, torch.tensor([1.0, 0.6]))
        alone = model(hidden_states[:, 1:, :12])
    assert (padded[1] - alone[0]).abs().max() < TOLERANCE


@pytest.mark.parametrize("pool, of_layers", [("sum", 5.0), ("mean", 1.0)])
def test_pools_of_the_ablation(pool, of_layers):
    # Equal layers with weights of 1/2: the sum is n_layers times the mean.
    largest, other = small_pooling(), small_pooling(pool=pool)
    for pooling in (largest, other):
        for name, parameter in pooling.named_parameters():
            if "squeeze" in name or "excite" in name:
                torch.nn.init.zeros_(parameter)
    one_layer = torch.rand(1, 2, 7, 24)
    hidden_states = one_layer.expand(5, -1, -1, -1)
    with torch.no_grad():
        largest = (largest(hidden_states) - largest.out_proj.bias).flatten()
        other = (other(hidden_states) - other.out_proj.bias).flatten()
    assert torch.allclose(other, of_layers * largest, atol=1e-3)


def test_unknown_pool_is_refused():
    with pytest.raises(ValueError, match="max, sum, mean"):
        small_pooling(pool="median")


def test_dropped_frames_leave_weights_that_add_up_to_one():
    torch.manual_seed(0)
    model = LAP_ASTP(24, 5, pooled_channels=16, emb_dim=8, n_heads=4, dropout=0.5)
    _, weights = model.embedding_model.frame_pooling(
        torch.rand(3, 40, 16), return_weights=True
    )
    dropped = (weights == 0).all(dim=2)
    assert 0.3 < dropped.float().mean() < 0.7
    assert torch.allclose(weights.sum(1), torch.ones(3, 16))


@pytest.mark.parametrize(
    "back_end",
    [
        lambda: LayerPooled(small_pooling(), MaskedXvector(in_channels=16)),
        lambda: LayerPooled(
            small_pooling(),
            MaskedECAPA(16, channels=[32] * 4 + [96], lin_neurons=12),
        ),
        lambda: MHFA(small_pooling(), small_pooling(), in_channels=16),
    ],
    ids=["x-vector", "ECAPA-TDNN", "MHFA"],
)
def test_lap_before_any_back_end(back_end):
    model = back_end()
    model.train()
    hidden_states = torch.rand(5, 3, 30, 24)
    lengths = torch.tensor([1.0, 0.8, 0.5])
    embeddings, weights = model(hidden_states, lengths, return_weights=True)
    assert embeddings.shape[:2] == (3, 1) and weights.shape == (3, 4, 30, 5)
    embeddings.pow(2).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("context", [0, 4])
def test_mhfa_leaves_padded_frames_out(context):
    torch.manual_seed(0)
    model = MHFA(
        small_pooling(), small_pooling(), in_channels=16, context=context
    ).eval()
    hidden_states = torch.rand(5, 2, 20, 24)
    with torch.no_grad():
        padded = model(hidden_states, torch.tensor([1.0, 0.6]))
        alone = model(hidden_states[:, 1:, :12])
    assert (padded[1] - alone[0]).abs().max() < TOLERANCE


def test_a_head_of_ca_mhfa_sees_the_keys_around_a_frame():
    """Its score is the mean of the products of queries and keys (eq. 2)."""
    torch.manual_seed(0)
    layers = torch.nn.Identity()
    layers.forward = lambda x, lengths=None, return_weights=False: (
        (x[0], None) if return_weights else x[0]
    )
    model = MHFA(
        layers, layers, in_channels=4, compressed_channels=3, n_heads=2, context=1
    ).eval()
    frames = torch.rand(1, 1, 5, 4)
    scores = []
    model.queries.register_forward_hook(lambda m, args, out: scores.append(out))
    model(frames)
    keys = torch.nn.functional.pad(model.key_proj(frames[0, 0]), (0, 0, 1, 1))
    for head in range(2):
        queries = model.queries.weight[head].T
        for frame in range(5):
            expected = (queries * keys[frame : frame + 3]).sum()
            got = scores[0][0, head, frame] - model.queries.bias[head]
            assert (got - expected).abs() < TOLERANCE


@pytest.mark.parametrize("case", [0, 1, 2])
def test_loss_matches_the_published_implementation(reference, case):
    tensors = reference("subcenter_intertopk_aam.safetensors")
    margin, top_k, penalty = tensors[f"case{case}.margin_topk_penalty"].tolist()
    n_subcenters, dim, n_speakers = tensors["param.weight"].shape
    loss = SubCenterAAM(
        dim, n_speakers, n_subcenters, margin=margin, top_k=int(top_k),
        penalty=penalty, base_margin=0.3,
    )  # fmt: skip
    loss.classifier.weight.data = tensors["param.weight"]
    embeddings = tensors["input"].clone().requires_grad_()
    value = loss(embeddings.unsqueeze(1), tensors["labels"].unsqueeze(1))
    value.backward()
    assert abs(value - tensors[f"case{case}.loss"]) < TOLERANCE
    error = embeddings.grad - tensors[f"case{case}.grad_input"]
    assert error.abs().max() < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cosine", [-1.0, 1.0])
def test_gradients_are_finite_at_the_ends(cosine, dtype):
    classifier = SubCenterClassifier(4, 6)
    center = F.normalize(classifier.weight[0, :, 2].detach(), dim=0)
    embeddings = (cosine * center).view(1, 1, 4).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = InterTopKAAM(top_k=10)(classifier(embeddings), torch.tensor([[2]]))
    loss.backward()
    assert loss.isfinite() and embeddings.grad.isfinite().all()
    assert classifier.weight.grad.isfinite().all()


def test_without_margin_and_centers_it_is_a_softmax():
    cosines = 2 * torch.rand(5, 1, 7) - 1
    speakers = torch.randint(7, (5, 1))
    loss = InterTopKAAM(margin=0.0)(cosines, speakers)
    expected = F.cross_entropy(30 * cosines.squeeze(1), speakers.squeeze(1))
    assert torch.allclose(loss, expected, atol=1e-4)


@pytest.mark.parametrize("course", ["log", "exp", "cos"])
def test_margin_rises_from_zero_to_its_value(course):
    schedule = MarginSchedule(0.3, 200, course)
    margins = [schedule(step) for step in range(0, 260)]
    assert margins[0] == pytest.approx(0.0, abs=1e-9)
    assert all(a <= b for a, b in zip(margins, margins[1:]))
    assert margins[200:] == [0.3] * 60
    halfway = {"log": math.log(0.5025 / 0.005) / math.log(200), "cos": 0.5}
    halfway["exp"] = (math.exp(2.45) - 1) / (math.exp(4.9) - 1)
    assert margins[100] == pytest.approx(0.3 * halfway[course], rel=1e-6)


def test_unknown_margin_course_is_refused():
    with pytest.raises(ValueError, match="log, exp, cos"):
        MarginSchedule(0.3, 10, "linear")


def test_brain_sets_the_margin_of_each_step():
    brain = object.__new__(SpeakerBrain)
    schedule = MarginSchedule(0.3, 10, "cos")
    loss = InterTopKAAM()
    brain.hparams = SimpleNamespace(margin_schedule=schedule, compute_cost=loss)
    for step, margin in ((0, 0.0), (5, 0.15), (30, 0.3)):
        brain.optimizer_step = step
        brain.on_fit_batch_start(batch=None, should_step=True)
        assert loss.margin == pytest.approx(margin)


@pytest.mark.parametrize("collapsed", [True, False])
def test_collapsed_attention_is_named_in_validation(collapsed, caplog):
    class Encoder(torch.nn.Module):
        def forward(self, wavs, lengths):
            return wavs.view(5, -1, 20, 24), lengths

    model = LAP_ASTP(24, 5, pooled_channels=16, emb_dim=8, n_heads=4).eval()
    if collapsed:
        torch.nn.init.zeros_(model.layer_pooling.excite_weight)
    brain = object.__new__(SpeakerBrain)
    brain.device = "cpu"
    brain.hparams = SimpleNamespace(epoch_counter=None)
    brain.modules = SimpleNamespace(encoder=Encoder(), embedding_model=model)
    trials = Trials([1, 0], ["a", "b"], ["b", "a"])
    brain.valid_trials = trials
    brain.end_validation = lambda *args, **kwargs: None
    torch.manual_seed(0)
    batch = PaddedBatch(
        [{"id": name, "sig": torch.randn(5 * 20 * 24)} for name in "ab"]
    )
    brain.on_stage_start(Stage.VALID)
    with caplog.at_level(logging.WARNING):
        with torch.no_grad():
            embeddings = brain.compute_forward(batch, Stage.VALID)
        brain.compute_objectives(embeddings, batch, Stage.VALID)
        brain.on_stage_end(Stage.VALID, 0.0)
    assert ("collapsed" in caplog.text) is collapsed

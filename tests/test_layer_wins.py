"""Which layers the maximum keeps."""

import json
import runpy

import numpy as np
import pytest
import torch
from conftest import ROOT

from speechbrain_ext.analysis.layer_wins import (
    find_layer_maximum,
    layer_wins,
    phone_class,
    wins_by_phone_class,
)
from speechbrain_ext.lobes.models.lap import LAP_ASTP
from speechbrain_ext.utils.errors import InputError


def test_a_layer_that_stands_out_wins():
    model = LAP_ASTP(8, 4, pooled_channels=8, emb_dim=4, n_heads=2).eval()
    torch.nn.init.eye_(model.layer_pooling.in_proj.weight.data.view(8, 8))
    # The same weight, a half, for each layer
    torch.nn.init.zeros_(model.layer_pooling.excite_weight)
    hidden_states = torch.rand(4, 1, 6, 8)
    hidden_states[2, :, :3] += 50.0
    hidden_states[0, :, 3:] += 50.0
    wins = layer_wins(model, hidden_states)
    expected = torch.zeros(6, 4)
    expected[:3, 2] = expected[3:, 0] = 1.0
    torch.testing.assert_close(wins, expected)


def test_wins_are_those_of_the_pooled_values():
    torch.manual_seed(0)
    model = LAP_ASTP(8, 4, pooled_channels=8, emb_dim=4, n_heads=2).eval()
    pooling = find_layer_maximum(model)
    hidden_states = torch.randn(4, 1, 6, 8)
    weighted, weights = pooling.weigh(hidden_states)
    frames = pooling.out_norm(pooling.out_proj(weighted.amax(3).flatten(1, 2)))
    expected, expected_weights = pooling(hidden_states, return_weights=True)
    torch.testing.assert_close(frames.transpose(1, 2), expected)
    torch.testing.assert_close(weights, expected_weights)
    shares = layer_wins(model, hidden_states)
    for frame in range(6):
        winners = weighted[0, :, :, :, frame].argmax(dim=2)
        counts = torch.bincount(winners.flatten(), minlength=4) / 8
        torch.testing.assert_close(shares[frame], counts)


def test_a_sum_has_no_winner():
    assert find_layer_maximum(LAP_ASTP(8, 4, n_heads=2, pool="sum")) is None


@pytest.mark.parametrize(
    "phone, expected",
    [
        ("IY1", "vowel"), ("ɑː", "vowel"), ("aɪ", "vowel"), ("T", "plosive"),
        ("tʃ", "affricate"), ("JH", "affricate"), ("ʃ", "fricative"),
        ("DH", "fricative"),
        ("ŋ", "nasal"), ("R", "approximant"), ("sil", "silence"), ("%", "other"),
        ("", "other"),
    ],
)  # fmt: skip
def test_classes_of_phones(phone, expected):
    assert phone_class(phone) == expected


def test_frames_before_the_first_phone_do_not_count():
    wins = torch.eye(4)
    phones = np.array([0.25, 0.5]), ["m", "n"]
    classes = wins_by_phone_class([(wins, phones, 1.0)])
    shares, n_frames = classes.pop("nasal")
    assert not classes and n_frames == 3
    assert shares == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert wins_by_phone_class([]) == {}


def test_plot_by_classes_of_phones(training, voices, tmp_path, monkeypatch):
    script = ROOT / "recipes" / "VoxCeleb" / "plot_layer_attention.py"
    main = runpy.run_path(str(script))["main"]
    for other_plot in ("plot_layer_attention", "plot_layer_usage"):
        main.__globals__[other_plot] = lambda *args: None
    phones = tmp_path / "phones.csv"
    arguments = [training, voices[0], "--phones", phones, "--output_folder", tmp_path]
    monkeypatch.setattr("sys.argv", ["plot", *map(str, arguments)])
    name = voices[0].name
    phones.write_text(f"id,start,phone\n{name},0.1,AA1\n{name},0.5,S\n", "utf-8")
    main()
    wins = json.loads((tmp_path / "layer_wins.json").read_text("utf-8"))
    assert set(wins) == {"all", "vowel", "fricative"}
    for shares, n_frames in wins.values():
        assert sum(shares) == pytest.approx(1) and n_frames > 10
    assert (tmp_path / "layer_wins.png").stat().st_size > 3000
    phones.write_text("id,start,phone\nanother.wav,0.1,AA1\n", "utf-8")
    with pytest.raises(InputError, match=f"none of the recordings.*'{name}'"):
        main()

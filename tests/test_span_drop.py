"""Span drop: what is removed, and that the rest is closed up in order."""

import torch

from speechbrain_ext.augment.span_drop import SpanDrop
from speechbrain_ext.nnet.masking import frame_counts


def numbered_frames(n_batch, n_frames):
    """Hidden states (2, batch, time, 1) that hold the frame's number + 1."""
    numbers = torch.arange(1, n_frames + 1, dtype=torch.float32)
    return numbers.view(1, 1, -1, 1).expand(2, n_batch, -1, 1)


def test_frames_stay_in_order_and_gaps_are_closed():
    torch.manual_seed(0)
    hidden_states = numbered_frames(200, 100)
    shorter, lengths = SpanDrop(1.0, 0.05, 3)(hidden_states, torch.ones(200))
    counts = frame_counts(lengths, shorter.shape[2])
    for i, count in enumerate(counts):
        kept = shorter[0, i, :count, 0]
        assert (kept.diff() > 0).all() and kept[0] > 0
        assert (shorter[:, i, count:] == 0).all()
        gaps = kept.diff() - 1
        # A span removes three frames, overlapping ones more, never one or two.
        assert ((gaps == 0) | (gaps >= 3)).all()
    # A frame stays if none of three starts fell on it: 0.95 ** 3
    assert abs(counts.float().mean() / 100 - 0.857) < 0.01


def test_probability_counts_utterances():
    torch.manual_seed(0)
    hidden_states = numbered_frames(1000, 100)
    _, lengths = SpanDrop(0.3, 0.05, 3)(hidden_states, torch.ones(1000))
    assert abs((lengths < 1).float().mean() - 0.3) < 0.05


def test_padding_is_not_counted_as_frames():
    torch.manual_seed(0)
    hidden_states = numbered_frames(2, 100)
    lengths = torch.tensor([1.0, 0.4])
    same, same_lengths = SpanDrop(0.0)(hidden_states, lengths)
    torch.testing.assert_close(same_lengths, lengths)
    assert (same[:, 1, :40] == hidden_states[:, 1, :40]).all()
    _, lengths = SpanDrop(1.0, 0.2, 3)(hidden_states, lengths)
    assert lengths[1] < lengths[0]


def test_an_utterance_never_vanishes():
    shorter, lengths = SpanDrop(1.0, 1.0, 3)(numbered_frames(2, 10), torch.ones(2))
    assert shorter.shape[2] == 10
    assert lengths.tolist() == [1.0, 1.0]

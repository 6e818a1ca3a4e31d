"""Span drop, an augmentation of frame sequences."""

import torch
from torch import nn

from speechbrain_ext.nnet.masking import frame_counts


class SpanDrop(nn.Module):
    """Removes random spans of frames and closes the gaps (arXiv 2409.07770).

    Arguments
    ---------
    utterance_prob : float
        Probability that an utterance is changed at all.
    start_prob : float
        Probability that a span starts, for each frame.
    span_length : int
        Frames of a span.

    Example
    -------
    >>> span_drop = SpanDrop(utterance_prob=1.0, start_prob=0.05, span_length=3)
    >>> _ = torch.manual_seed(0)
    >>> hidden_states = torch.rand(13, 2, 150, 768)
    >>> shorter, lengths = span_drop(hidden_states, torch.ones(2))
    >>> shorter.shape[2] < 150
    True
    """

    def __init__(self, utterance_prob=0.3, start_prob=0.05, span_length=3):
        super().__init__()
        self.utterance_prob = utterance_prob
        self.start_prob = start_prob
        self.span_length = span_length

    def forward(self, hidden_states, lengths):
        """Drops spans; call it in training only.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            The frames that are left, zero-padded to the longest utterance, of
            shape (layer, batch, shorter_time, channel).
        torch.Tensor
            Relative lengths, of shape (batch,).
        """
        _, n_batch, n_frames, _ = hidden_states.shape
        device = hidden_states.device
        counts = frame_counts(lengths, n_frames)
        frames = torch.arange(n_frames, device=device)
        valid = frames < counts.unsqueeze(1)
        chosen = torch.rand(n_batch, 1, device=device) < self.utterance_prob
        starts = torch.rand(n_batch, n_frames, device=device) < self.start_prob
        starts = starts & chosen
        dropped = starts.clone()
        for offset in range(1, self.span_length):
            dropped[:, offset:] |= starts[:, : n_frames - offset]
        kept = valid & ~dropped
        # An utterance that would vanish is left as it was.
        kept = torch.where(kept.any(1, keepdim=True), kept, valid)
        counts = kept.sum(1)
        order = torch.argsort((~kept).byte(), dim=1, stable=True)
        order = order[:, : int(counts.max())]
        index = order.view(1, n_batch, -1, 1).expand(
            hidden_states.shape[0], -1, -1, hidden_states.shape[3]
        )
        closed = hidden_states.gather(2, index)
        padding = frames[: closed.shape[2]] >= counts.unsqueeze(1)
        closed = closed.masked_fill(padding.view(1, n_batch, -1, 1), 0.0)
        return closed, counts / closed.shape[2]

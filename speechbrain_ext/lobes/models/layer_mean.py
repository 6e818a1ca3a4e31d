"""The mean of a layer of an SSL encoder as the embedding."""

from torch import nn

from speechbrain_ext._moved import renamed
from speechbrain_ext.nnet.masking import frame_mask, masked_mean
from speechbrain_ext.utils.errors import InputError


class LayerMean(nn.Module):
    """Temporal mean of one hidden state, for fine-tuned encoders.

    A baseline of arXiv 2409.07770; it has no parameters of its own.

    Arguments
    ---------
    layer : int
        Which hidden state: 0 is the input of the first transformer layer, and -1 the
        output of the last.
    n_layers : int
        Hidden states of the encoder, to check the layer; None for no check.

    Raises
    ------
    InputError
        If the encoder has no such layer.

    Example
    -------
    >>> import torch
    >>> hidden_states = torch.rand(13, 2, 50, 768)
    >>> LayerMean()(hidden_states, torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 768])
    """

    def __init__(self, layer=-1, n_layers=None):
        super().__init__()
        if n_layers is not None and not -n_layers <= layer < n_layers:
            raise InputError(
                f"mean_layer: {layer}, but the encoder has the hidden states 0 to "
                f"{n_layers - 1}, or -1 for the last"
            )
        self.layer = layer

    def forward(self, hidden_states, lengths=None):
        """Averages the valid frames.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Pooled vectors, of shape (batch, 1, channel).
        """
        frames = hidden_states[self.layer].transpose(1, 2)
        mask = frame_mask(lengths, frames.shape[2])
        return masked_mean(frames, mask, (2,)).transpose(1, 2)


def __getattr__(name):
    return renamed(__name__, name)

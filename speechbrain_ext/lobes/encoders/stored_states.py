"""What stands for a frozen encoder whose hidden states are there already."""

from torch import nn


class StoredStates(nn.Module):
    """Gives stored hidden states the shape in which an encoder gives them.

    Example
    -------
    >>> import torch
    >>> stored = torch.rand(2, 48, 7, 192).half()
    >>> states, lengths = StoredStates()(stored, torch.ones(2))
    >>> states.shape, states.dtype
    (torch.Size([7, 2, 48, 192]), torch.float32)
    """

    freeze = True  # as the encoder that it stands for

    def forward(self, states, lengths):
        """Turns and casts them.

        Arguments
        ---------
        states : torch.Tensor
            Hidden states, of shape (batch, time, layer, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Hidden states in float32, of shape (layer, batch, time, channel).
        torch.Tensor
            The lengths.
        """
        return states.permute(2, 0, 1, 3).float(), lengths

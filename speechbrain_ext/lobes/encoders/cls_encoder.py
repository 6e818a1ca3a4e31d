"""An SSL encoder with a constant frame that gathers the speaker."""

from torch import nn

from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder


class CLSEncoder(SSLEncoder):
    """An SSL encoder that sees a constant frame before the first one.

    Fine-tuned, the transformer gathers the utterance in that frame (a
    baseline of arXiv 2409.07770).

    Arguments
    ---------
    *args
        As of `SSLEncoder`.
    **kwargs
        As of `SSLEncoder`.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
    >>> folder = save_small_wavlm(getfixture("tmpdir") / "wavlm", n_layers=2)
    >>> encoder = CLSEncoder(folder, freeze=False)
    >>> hidden_states, _ = encoder(torch.rand(2, 16000), torch.ones(2))
    >>> hidden_states.shape
    torch.Size([3, 2, 49, 192])
    """

    CONSTANT = 1.0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model.encoder.register_forward_pre_hook(
            self._insert_frame, with_kwargs=True
        )

    def _insert_frame(self, module, arguments, named):
        frames, *rest = arguments
        frames = nn.functional.pad(frames, (0, 0, 1, 0), value=self.CONSTANT)
        mask = named.get("attention_mask")
        if mask is not None:
            mask = nn.functional.pad(mask, (1, 0), value=1)
        return (frames, *rest), {**named, "attention_mask": mask}


class FirstFrame(nn.Module):
    """The first frame of the last hidden state, for `CLSEncoder`.

    Example
    -------
    >>> import torch
    >>> FirstFrame()(torch.rand(13, 2, 50, 768)).shape
    torch.Size([2, 1, 768])
    """

    def forward(self, hidden_states, lengths=None):
        """Takes the frame.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Not needed.

        Returns
        -------
        torch.Tensor
            Of shape (batch, 1, channel).
        """
        return hidden_states[-1][:, :1]

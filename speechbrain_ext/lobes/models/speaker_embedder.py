"""Encoder and back end as one module."""

from torch import nn


class SpeakerEmbedder(nn.Module):
    """From waveforms to speaker embeddings, the `embedding_model` of a recipe.

    SpeechBrain's recipes compute features without lengths, so that whatever
    looks beyond a frame sees the padding. With encoder and back end as one
    module the lengths reach both, an embedding is the same in any batch, and
    both are moved, trained, saved and loaded as one. In such a recipe
    `compute_features` and `mean_var_norm` let everything through.

    Arguments
    ---------
    encoder : torch.nn.Module
        Module from waveforms (batch, time) and relative lengths to features and their
        relative lengths: `SSLEncoder`, `W2VBertEncoder`, `NormalizedFbank`,
        `NormalizedMFCC`.
    embedding_model : torch.nn.Module
        Module from features and relative lengths to embeddings (batch, 1, dim).

    Example
    -------
    >>> import torch
    >>> from speechbrain_ext.lobes import MaskedECAPA, NormalizedFbank
    >>> ecapa = MaskedECAPA(80, channels=[16] * 4 + [48], lin_neurons=192)
    >>> model = SpeakerEmbedder(NormalizedFbank(n_mels=80), ecapa).eval()
    >>> wavs = torch.rand(2, 16000)
    >>> embeddings = model(wavs, torch.tensor([1.0, 0.5]))
    >>> embeddings.shape
    torch.Size([2, 1, 192])
    >>> torch.allclose(embeddings[1:], model(wavs[1:, :8000]), atol=1e-5)
    True
    """

    def __init__(self, encoder, embedding_model):
        super().__init__()
        self.encoder = encoder
        self.embedding_model = embedding_model

    def forward(self, wavs, lengths=None):
        """Embeds a batch of waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at the encoder's sample rate, of shape (batch, time).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Embeddings, of shape (batch, 1, dim).
        """
        return self.embedding_model(*self.encoder(wavs, lengths))

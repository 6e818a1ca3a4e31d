"""Speaker embeddings for the diarization pipeline of pyannote.audio."""

import numpy as np
import torch
from torch import nn

from speechbrain_ext.inference.speaker import SpeakerRecognition


class PyannoteEmbedding:
    """A model with the protocol of pyannote.audio's speaker embeddings.

    To be given to its diarization pipeline, which needs no more than this; the
    package itself is not needed here.

    Arguments
    ---------
    model : SpeakerRecognition
        The model.

    Attributes
    ----------
    sample_rate : int
        Sample rate of the waveforms, in Hz.
    dimension : int
        Dimension of the embeddings.
    metric : str
        "cosine".
    min_num_samples : int
        Length of the shortest waveform that is embedded.

    Example
    -------
    >>> from speechbrain_ext.lobes import MaskedXvector, NormalizedFbank
    >>> model = SpeakerRecognition(
    ...     NormalizedFbank(24), MaskedXvector(in_channels=24), 16000, threshold=0.25
    ... )
    >>> embedding = PyannoteEmbedding(model)
    >>> masks = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> vectors = embedding(torch.rand(2, 1, 16000), masks)
    >>> vectors.shape, bool(np.isnan(vectors[1]).all())
    ((2, 512), True)
    """

    metric = "cosine"

    def __init__(self, model):
        self.model = model
        self.sample_rate = model.sample_rate
        self.min_num_samples = self._shortest()
        shortest = torch.zeros(1, self.min_num_samples)
        self.dimension = model.encode_batch(shortest).shape[-1]

    @classmethod
    def from_hparams(cls, source, **settings):
        """Loads an exported model.

        Arguments
        ---------
        source : str or Path
            See `SpeakerRecognition.from_hparams`.
        **settings
            Handed on to `SpeakerRecognition.from_hparams`.

        Returns
        -------
        PyannoteEmbedding
            The model in pyannote.audio's protocol.
        """
        return cls(SpeakerRecognition.from_hparams(source, **settings))

    def to(self, device):
        """Moves the model.

        Arguments
        ---------
        device : torch.device
            Where to compute.

        Returns
        -------
        PyannoteEmbedding
            The same object.
        """
        self.model.to(device)
        return self

    def __call__(self, waveforms, masks=None):
        """Embeds what the masks keep of waveforms.

        Arguments
        ---------
        waveforms : torch.Tensor
            Waveforms, of shape (batch, channel, sample), of which there is one channel.
        masks : torch.Tensor
            Weight of each frame, above 0.5 where it is kept, of shape
            (batch, frame); everything is kept if None.

        Returns
        -------
        numpy.ndarray
            Embeddings, of shape (batch, dimension); NaN where too little is kept.
        """
        wavs = waveforms[:, 0]
        kept = torch.ones_like(wavs, dtype=torch.bool)
        if masks is not None:
            masks = masks.to(wavs.device).float().unsqueeze(1)
            kept = nn.functional.interpolate(masks, wavs.shape[1])[:, 0] > 0.5
        parts = [wav[keep] for wav, keep in zip(wavs, kept)]
        counts = torch.tensor([len(part) for part in parts])
        long_enough = counts >= self.min_num_samples
        vectors = np.full((len(wavs), self.dimension), np.nan, dtype=np.float32)
        if bool(long_enough.any()):
            chosen = [part for part, use in zip(parts, long_enough) if use]
            batch = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
            lengths = counts[long_enough] / batch.shape[1]
            embeddings = self.model.encode_batch(batch, lengths)[:, 0]
            vectors[long_enough.numpy()] = embeddings.cpu().numpy()
        return vectors

    def _shortest(self):
        """Samples of the shortest waveform whose embedding is finite."""

        def embeds(n_samples):
            noise = torch.randn(
                1, n_samples, generator=torch.Generator().manual_seed(0)
            )
            try:
                return bool(self.model.encode_batch(noise).isfinite().all())
            except (RuntimeError, ValueError, AssertionError):
                return False

        low, high = 1, self.sample_rate // 2
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if embeds(middle) else (middle + 1, high)
        return low

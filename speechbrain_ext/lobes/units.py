"""Discrete units of speech: what masked prediction predicts."""

from pathlib import Path

import torch
import torchaudio
from safetensors.torch import load_file, save_file
from sklearn.cluster import MiniBatchKMeans
from torch import nn

from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path


class MFCCFeatures(nn.Module):
    """MFCCs with first and second differences at an SSL encoder's frames.

    Arguments
    ---------
    n_mfcc : int
        Coefficients.
    sample_rate : int
        Sample rate in Hz.
    window : int
        Samples of a frame.
    receptive_field : int
        Samples that the encoder's front end sees for a frame, in whose middle
        the window is.
    hop : int
        Samples from frame to frame.

    Example
    -------
    >>> MFCCFeatures()(torch.rand(2, 16000)).shape
    torch.Size([2, 49, 39])
    """

    def __init__(
        self,
        n_mfcc=13,
        sample_rate=16000,
        window=400,
        receptive_field=400,
        hop=320,
    ):
        super().__init__()
        self.mfcc = torchaudio.transforms.MFCC(
            sample_rate=sample_rate,
            n_mfcc=n_mfcc,
            melkwargs={
                "n_fft": receptive_field, "win_length": window, "hop_length": hop,
                "n_mels": 40, "center": False,
            },
        )  # fmt: skip

    def forward(self, wavs):
        """Computes the features.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape (batch, time), without padding.

        Returns
        -------
        torch.Tensor
            Features, of shape (batch, frame, 3 * n_mfcc).
        """
        with torch.autocast(wavs.device.type, enabled=False):
            mfcc = self.mfcc(wavs.float())
        first = torchaudio.functional.compute_deltas(mfcc)
        second = torchaudio.functional.compute_deltas(first)
        return torch.cat([mfcc, first, second], dim=1).transpose(1, 2)


class HiddenStateFeatures(nn.Module):
    """One hidden state of a frozen SSL encoder.

    Arguments
    ---------
    encoder : SSLEncoder
        Frozen, with one layer.

    Example
    -------
    >>> from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
    >>> from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
    >>> folder = save_small_wavlm(getfixture("tmpdir") / "wavlm", n_layers=2)
    >>> features = HiddenStateFeatures(SSLEncoder(folder, layers=[1]))
    >>> features(torch.rand(2, 16000)).shape
    torch.Size([2, 48, 192])
    """

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, wavs):
        """Computes the features.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape (batch, time), without padding.

        Returns
        -------
        torch.Tensor
            Features, of shape (batch, frame, channel).
        """
        hidden_states, _ = self.encoder(wavs)
        return hidden_states[0]


class KMeansUnits(nn.Module):
    """The cluster that each frame belongs to (HuBERT, arXiv 2106.07447).

    Arguments
    ---------
    features : torch.nn.Module
        Module from waveforms to (batch, frame, channel).
    n_units : int
        Clusters.
    seed : int
        Seed of k-means.

    Example
    -------
    >>> units = KMeansUnits(MFCCFeatures(), n_units=4)
    >>> wavs = torch.rand(2, 16000)
    >>> units.fit([wavs])
    >>> units(wavs).shape
    torch.Size([2, 49])
    """

    def __init__(self, features, n_units, seed=1986):
        super().__init__()
        self.features = features
        self.n_units = n_units
        self.seed = seed
        for name in ("mean", "scale", "centroids"):
            self.register_buffer(name, None)

    def fit(self, batches):
        """Clusters the frames of some batches.

        Arguments
        ---------
        batches : iterable of torch.Tensor
            Waveforms, each of shape (batch, time).

        Raises
        ------
        InputError
            If there are fewer frames than units.
        """
        with torch.no_grad():
            frames = torch.cat(
                [self.features(wavs).flatten(0, 1).float() for wavs in batches]
            )
        if len(frames) < self.n_units:
            raise InputError(
                f"n_units={self.n_units}, but there are {len(frames)} frames "
                "to cluster; give more speech or fewer units"
            )
        mean, scale = frames.mean(0), frames.std(0).clamp(min=1e-5)
        kmeans = MiniBatchKMeans(
            self.n_units,
            batch_size=10000,
            n_init=3,
            max_no_improvement=50,
            random_state=self.seed,
        ).fit(((frames - mean) / scale).cpu().numpy())
        self.mean, self.scale = mean, scale
        self.centroids = torch.from_numpy(kmeans.cluster_centers_).to(mean)

    @torch.no_grad()
    def forward(self, wavs):
        """Gives each frame its unit.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape (batch, time), without padding.

        Returns
        -------
        torch.Tensor
            Unit of each frame, of shape (batch, frame), dtype long.
        """
        frames = (self.features(wavs).float() - self.mean) / self.scale
        with torch.autocast(wavs.device.type, enabled=False):
            distances = torch.cdist(frames, self.centroids.unsqueeze(0))
        return distances.argmin(-1)

    def save(self, path):
        """Writes the clusters.

        Arguments
        ---------
        path : str or Path
            A safetensors file.
        """
        clusters = {
            name: getattr(self, name).cpu().contiguous()
            for name in ("mean", "scale", "centroids")
        }
        with atomic_path(Path(path)) as partial:
            save_file(clusters, partial)

    def load(self, path):
        """Reads the clusters.

        Arguments
        ---------
        path : str or Path
            A safetensors file of `save`.
        """
        for name, value in load_file(path).items():
            setattr(self, name, value)

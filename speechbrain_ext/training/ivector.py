"""The training of an i-vector extractor, iteration after iteration."""

import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_ext.dataio.datasets import embedding_loader
from speechbrain_ext.nnet.gaussian_mixture import GaussianMixture
from speechbrain_ext.nnet.masking import frame_mask
from speechbrain_ext.utils.errors import InputError

logger = get_logger(__name__)

START = "start of the UBM"
UBM = "UBM"
TOTAL_VARIABILITY = "total variability"

FRAMES_AT_ONCE = 20000


def ivector_iterations(ubm_iterations, tv_iterations):
    """What the iterations of a training are of, in their order.

    Arguments
    ---------
    ubm_iterations : int
        Iterations of the UBM on the whole corpus.
    tv_iterations : int
        Iterations of the total variability.

    Returns
    -------
    list of str
        A name for each.

    Example
    -------
    >>> ivector_iterations(1, 2)
    ['start of the UBM', 'UBM', 'total variability', 'total variability']
    """
    return [START, *[UBM] * ubm_iterations, *[TOTAL_VARIABILITY] * tv_iterations]


class SpeechFrames:
    """The frames of a corpus, computed anew at each pass over it.

    Statistics of a large corpus do not fit into memory, and are soon computed.

    Arguments
    ---------
    encoder : torch.nn.Module
        From waveforms and lengths to frames and lengths.
    utterances : dict
        Utterances as `read_manifest` gives them.
    sample_rate : int
        In Hz.
    max_batch_duration : float
        Seconds of speech in a batch.
    num_workers : int
        Processes that read audio.
    device : str
        Where to compute.
    """

    def __init__(
        self,
        encoder,
        utterances,
        sample_rate,
        max_batch_duration,
        num_workers=0,
        device="cpu",
    ):
        self.encoder = encoder.to(device).eval()
        self.n_utterances = len(utterances)
        self.device = device
        self.loader = embedding_loader(
            utterances, sample_rate, max_batch_duration, num_workers
        )

    @torch.no_grad()
    def batches(self, name):
        """Goes through the corpus once.

        Arguments
        ---------
        name : str
            What for, for the progress bar.

        Yields
        ------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).
        """
        with tqdm(
            total=self.n_utterances, unit="utterance", desc=name, dynamic_ncols=True
        ) as bar:
            for batch in self.loader:
                wavs, lengths = batch.sig
                yield self.encoder(wavs.to(self.device), lengths.to(self.device))
                bar.update(len(wavs))

    def valid(self, name):
        """Goes through the corpus once, padding left out.

        Arguments
        ---------
        name : str
            As of `batches`.

        Yields
        ------
        torch.Tensor
            Frames, of shape (frame, channel).
        """
        for frames, lengths in self.batches(name):
            mask = frame_mask(lengths, frames.shape[1])
            yield frames.flatten(0, 1) if mask is None else frames[mask]

    def sample(self, name, n_frames, generator):
        """Draws frames, about as many from each batch in proportion to its own.

        Arguments
        ---------
        name : str
            As of `batches`.
        n_frames : int
            How many; all where there are no more.
        generator : torch.Generator
            For the draw.

        Returns
        -------
        torch.Tensor
            Frames, of shape (n_frames, channel).
        """
        kept, keys = None, None
        for frames in self.valid(name):
            # Those with the highest of random keys are a fair draw.
            drawn = torch.rand(len(frames), generator=generator).to(frames.device)
            kept = frames if kept is None else torch.cat([kept, frames])
            keys = drawn if keys is None else torch.cat([keys, drawn])
            if len(keys) > 2 * n_frames:
                kept, keys = _highest(kept, keys, n_frames)
        return _highest(kept, keys, n_frames)[0]


def _highest(frames, keys, n_frames):
    keys, rows = keys.topk(min(n_frames, len(keys)))
    return frames[rows], keys


def take_iteration(extractor, name, frames, n_frames, start_iterations, seed):
    """Takes one iteration of the training.

    Arguments
    ---------
    extractor : IVectorExtractor
        To train.
    name : str
        One of `ivector_iterations`.
    frames : SpeechFrames
        The training set.
    n_frames : int
        Frames that the UBM starts from.
    start_iterations : int
        Iterations on these, of a UBM of variances.
    seed : int
        For the draw of the frames.

    Returns
    -------
    float
        Log-likelihood of a frame before the iteration; for the total
        variability, by how much it is above that of the UBM.

    Raises
    ------
    InputError
        If there are fewer frames than components.
    """
    if name == TOTAL_VARIABILITY:
        return extractor.em_step(frames.batches(name))
    if name == UBM:
        return extractor.ubm.em_step(frames.valid(name))
    generator = torch.Generator().manual_seed(seed)
    drawn = frames.sample(name, n_frames, generator)
    n_components = extractor.ubm.n_components
    if len(drawn) < n_components:
        raise InputError(
            f"ubm_components: {n_components} components, but the training set has "
            f"{len(drawn)} frames of speech; lower ubm_components"
        )
    diagonal = GaussianMixture(drawn.shape[1], n_components).to(drawn.device)
    diagonal.start_from(drawn, generator)
    for _ in range(start_iterations):
        likelihood = diagonal.em_step(drawn.split(FRAMES_AT_ONCE))
    extractor.ubm.take_diagonal(diagonal)
    return likelihood

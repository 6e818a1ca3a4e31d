"""I-vectors: the total variability of a Gaussian mixture's means."""

import torch
from torch import nn

from speechbrain_ext.nnet.derived import Derived
from speechbrain_ext.nnet.gaussian_mixture import GaussianMixture
from speechbrain_ext.nnet.masking import frame_mask
from speechbrain_ext.nnet.symmetric import from_upper_triangles, upper_triangles


class IVectorExtractor(nn.Module):
    """The i-vector of an utterance (Dehak et al., 2011).

    The means of a universal background model (UBM) move from utterance to
    utterance within a space of few dimensions,

        M_c = m_c + T_c w,   w ~ N(0, I),

    and the i-vector is the mean of w, given the frames. Which component a frame
    is of is taken from the UBM, as are the covariances. T is kept in units of
    them.

    Its parameters have no gradients: `ubm.em_step` and `em_step` train them.

    Arguments
    ---------
    in_channels : int
        Channels of the frames.
    n_components : int
        Gaussians of the UBM.
    emb_dim : int
        Dimension of the i-vector.
    covariance : str
        Of the UBM, "full" or "diagonal".

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> extractor = IVectorExtractor(60, n_components=8, emb_dim=16)
    >>> frames, lengths = torch.randn(2, 150, 60), torch.tensor([1.0, 0.5])
    >>> extractor(frames, lengths).shape
    torch.Size([2, 1, 16])
    >>> before = extractor.em_step([(frames, lengths)])
    >>> extractor.em_step([(frames, lengths)]) > before
    True
    """

    UTTERANCES_AT_ONCE = 256

    def __init__(self, in_channels, n_components=1024, emb_dim=400, covariance="full"):
        super().__init__()
        self.emb_dim = emb_dim
        self.ubm = GaussianMixture(in_channels, n_components, covariance)
        # Together they move a mean by as much as its component's spread.
        loadings = torch.randn(n_components, in_channels, emb_dim) / emb_dim**0.5
        self.loadings = nn.Parameter(loadings, requires_grad=False)
        # Most of the work of a few utterances
        self._products = Derived(_products)

    def forward(self, frames, lengths=None):
        """Embeds a batch.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            I-vectors, of shape (batch, 1, emb_dim).
        """
        mean, _, _ = self.posterior(*self.statistics(frames, lengths))
        return mean.unsqueeze(1)

    def statistics(self, frames, lengths=None):
        """Baum-Welch statistics of order zero and one.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        counts : torch.Tensor
            Frames of each component, of shape (batch, component).
        deviations : torch.Tensor
            Sums of the frames' deviations from each component's mean, in units
            of its spread, of shape (batch, component, channel).
        """
        posteriors = self.ubm.posteriors(frames)
        mask = frame_mask(lengths, frames.shape[1])
        if mask is not None:
            posteriors = posteriors * mask.unsqueeze(2)
        counts = posteriors.sum(1)
        deviations = posteriors.mT @ frames - counts.unsqueeze(2) * self.ubm.means
        return counts, self.ubm.whiten(deviations)

    def posterior(self, counts, deviations):
        """The posterior distribution of w.

        Arguments
        ---------
        counts : torch.Tensor
            As of `statistics`, of shape (batch, component).
        deviations : torch.Tensor
            As of `statistics`, of shape (batch, component, channel).

        Returns
        -------
        mean : torch.Tensor
            The i-vectors, of shape (batch, emb_dim).
        covariance : torch.Tensor
            Of shape (batch, emb_dim, emb_dim).
        gain : torch.Tensor
            By how much w raises the log-likelihood of the frames over that of the
            UBM's means, of shape (batch,).
        """
        precision = from_upper_triangles(
            counts @ self._products(self.loadings), self.emb_dim
        )
        precision.diagonal(dim1=1, dim2=2).add_(1.0)
        linear = torch.einsum("bcd,cdr->br", deviations, self.loadings)
        factor = torch.linalg.cholesky(precision)
        mean = torch.cholesky_solve(linear.unsqueeze(2), factor).squeeze(2)
        log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        gain = 0.5 * ((linear * mean).sum(1) - log_det)
        return mean, torch.cholesky_inverse(factor), gain

    @torch.no_grad()
    def em_step(self, batches):
        """Takes one step of EM for T.

        The prior of w is kept at N(0, I) by moving the covariance that w has over
        the utterances into T (minimum divergence).

        Arguments
        ---------
        batches : iterable of tuple
            Frames and lengths of all utterances, as of `forward`.

        Returns
        -------
        float
            By how much T raises the log-likelihood of a frame over that of the
            UBM, before the step.
        """
        cross = second = covariance = 0.0
        counts_of_all, gain_of_all, n_utterances = 0.0, 0.0, 0
        for counts, deviations in self._statistics_of_many(batches):
            mean, spread, gain = self.posterior(counts, deviations)
            square = upper_triangles(spread + mean.unsqueeze(2) * mean.unsqueeze(1))
            cross = cross + torch.einsum("bcd,br->cdr", deviations, mean).double()
            second = second + (counts.T @ square).double()
            covariance = covariance + square.double().sum(0)
            counts_of_all = counts_of_all + counts.double().sum(0)
            gain_of_all += gain.double().sum().item()
            n_utterances += len(mean)
        used = counts_of_all >= GaussianMixture.MIN_FRAMES
        for component in used.nonzero().flatten().tolist():
            square = from_upper_triangles(second[component], self.emb_dim)
            solved = torch.linalg.solve(square, cross[component].T).T
            self.loadings[component] = solved.to(self.loadings.dtype)
        covariance = from_upper_triangles(covariance / n_utterances, self.emb_dim)
        factor = torch.linalg.cholesky(covariance)
        self.loadings.copy_(self.loadings.double() @ factor)
        return gain_of_all / counts_of_all.sum().item()

    def _statistics_of_many(self, batches):
        """Joins the statistics of batches, since sums over T are large for each."""
        waiting, n_waiting = [], 0
        for frames, lengths in batches:
            waiting.append(self.statistics(frames, lengths))
            n_waiting += len(frames)
            if n_waiting >= self.UTTERANCES_AT_ONCE:
                yield map(torch.cat, zip(*waiting))
                waiting, n_waiting = [], 0
        if waiting:
            yield map(torch.cat, zip(*waiting))


@torch.no_grad()
def _products(loadings):
    """T_c' T_c of each component, of shape (component, pair of dimensions)."""
    # Component by component, as all squares together take twice the memory.
    return torch.stack([upper_triangles(t.T @ t) for t in loadings])

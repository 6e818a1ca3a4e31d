"""Gaussian mixtures of frames, trained by EM over batches of them."""

import math

import torch
from torch import nn

from speechbrain_ext.nnet.derived import Derived
from speechbrain_ext.nnet.symmetric import (
    from_upper_triangles,
    pair_indices,
    upper_triangles,
)


class GaussianMixture(nn.Module):
    """A mixture of Gaussians, the universal background model of i-vectors.

    Its parameters have no gradients: `em_step` trains them.

    Arguments
    ---------
    n_channels : int
        Channels of a frame.
    n_components : int
        Gaussians.
    covariance : str
        "full", or "diagonal" for variances only.

    Raises
    ------
    ValueError
        If the covariance is another one.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> frames = torch.cat([torch.randn(500, 2) - 5, torch.randn(500, 2) + 5])
    >>> mixture = GaussianMixture(2, 2)
    >>> mixture.start_from(frames)
    >>> steps = [mixture.em_step([frames]) for _ in range(5)]
    >>> steps[0] < steps[-1]
    True
    >>> mixture.posteriors(torch.tensor([[5.0, 5.0]])).amax() > 0.99
    tensor(True)
    """

    COVARIANCES = ("diagonal", "full")
    # Share of the frames' variance below which none of a component falls
    VARIANCE_FLOOR = 0.01
    # Frames below which a component stays as it is
    MIN_FRAMES = 2.0

    def __init__(self, n_channels, n_components, covariance="diagonal"):
        super().__init__()
        if covariance not in self.COVARIANCES:
            raise ValueError(
                f'covariance="{covariance}": use {" or ".join(self.COVARIANCES)}'
            )
        self.n_channels = n_channels
        self.n_components = n_components
        self.is_full = covariance == "full"
        spread = torch.ones(n_components, n_channels)
        if self.is_full:
            spread = torch.diag_embed(spread)
        self.weights = _constant(torch.full((n_components,), 1 / n_components))
        self.means = _constant(torch.randn(n_components, n_channels))
        self.covariances = _constant(spread)
        # Of all frames, and much work for the few of a batch
        self._terms = Derived(_density_terms)
        self._inverse_factors = Derived(_inverse_factors)

    def start_from(self, frames, generator=None):
        """Starts at frames that are drawn, with the variances of all frames.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (frame, channel); as many as components at least.
        generator : torch.Generator
            For the draw; PyTorch's own if None.
        """
        drawn = torch.randperm(len(frames), generator=generator)[: self.n_components]
        variance = frames.double().var(0, correction=0).to(frames.dtype)
        self.weights.fill_(1 / self.n_components)
        self.means.copy_(frames[drawn.to(frames.device)])
        self.covariances.copy_(torch.diag(variance) if self.is_full else variance)

    def take_diagonal(self, diagonal):
        """Starts at a mixture of diagonal covariances.

        Arguments
        ---------
        diagonal : GaussianMixture
            With as many channels and components.
        """
        self.weights.copy_(diagonal.weights)
        self.means.copy_(diagonal.means)
        variances = diagonal.covariances
        self.covariances.copy_(
            torch.diag_embed(variances) if self.is_full else variances
        )

    def log_likelihoods(self, frames):
        """Logarithms of weight times density.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (..., channel).

        Returns
        -------
        torch.Tensor
            For each component, of shape (..., component).
        """
        linear, quadratic, constant = (
            term.to(frames.dtype)
            for term in self._terms(self.weights, self.means, self.covariances)
        )
        return frames @ linear.T - 0.5 * self._squares(frames) @ quadratic.T + constant

    def posteriors(self, frames):
        """Probability of each component, given a frame.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (..., channel).

        Returns
        -------
        torch.Tensor
            They add up to one, of shape (..., component).
        """
        return torch.softmax(self.log_likelihoods(frames), dim=-1)

    def whiten(self, deviations):
        """Deviations from the means in units of each component's spread.

        Arguments
        ---------
        deviations : torch.Tensor
            Of shape (..., component, channel).

        Returns
        -------
        torch.Tensor
            With unit covariance for each component, of the same shape.
        """
        if not self.is_full:
            return deviations / self.covariances.sqrt()
        inverse = self._inverse_factors(self.covariances).to(deviations.dtype)
        return torch.einsum("cde,...ce->...cd", inverse, deviations)

    @torch.no_grad()
    def em_step(self, batches):
        """Takes one step of EM.

        Arguments
        ---------
        batches : iterable of torch.Tensor
            All frames, in batches of shape (frame, channel).

        Returns
        -------
        float
            Mean log-likelihood of a frame, before the step.
        """
        counts = self.weights.new_zeros(self.n_components, dtype=torch.double)
        first = second = likelihood = 0.0
        for frames in batches:
            joint = self.log_likelihoods(frames)
            total = joint.logsumexp(1, keepdim=True)
            posteriors = (joint - total).exp()
            likelihood += total.double().sum().item()
            counts += posteriors.double().sum(0)
            first = first + (posteriors.T @ frames).double()
            second = second + (posteriors.T @ self._squares(frames)).double()
        self._maximise(counts, first, second)
        return likelihood / counts.sum().item()

    def _maximise(self, counts, first, second):
        """Sets the parameters from the sums over frames and posteriors."""
        n_frames = counts.sum()
        mean_of_all = first.sum(0) / n_frames
        square_of_all = self._from_squares(second.sum(0) / n_frames)
        if self.is_full:
            square_of_all = square_of_all.diagonal()
        floor = self.VARIANCE_FLOOR * (square_of_all - mean_of_all**2)
        weight = counts.clamp(min=self.MIN_FRAMES).unsqueeze(1)
        means = first / weight
        spread = self._from_squares(second / weight)
        if self.is_full:
            spread = spread - means.unsqueeze(2) * means.unsqueeze(1)
            unit = floor.sqrt()
            values, vectors = torch.linalg.eigh(spread / torch.outer(unit, unit))
            spread = vectors * values.clamp(min=1.0).unsqueeze(1) @ vectors.mT
            spread = spread * torch.outer(unit, unit)
        else:
            spread = (spread - means**2).maximum(floor)
        used = counts >= self.MIN_FRAMES
        self.weights.copy_(counts / n_frames)
        self.means[used] = means[used].to(self.means.dtype)
        self.covariances[used] = spread[used].to(self.covariances.dtype)

    def _squares(self, frames):
        """Products of a frame's channels, each pair once, or the squares."""
        if not self.is_full:
            return frames**2
        rows, columns = pair_indices(self.n_channels, frames.device)
        return frames[..., rows] * frames[..., columns]

    def _from_squares(self, squares):
        """Symmetric matrices, or the squares."""
        if not self.is_full:
            return squares
        return from_upper_triangles(squares, self.n_channels)


def _constant(values):
    return nn.Parameter(values, requires_grad=False)


@torch.no_grad()
def _density_terms(weights, means, covariances):
    """What a frame, its squares and one are multiplied by in log(weight * density)."""
    n_channels = means.shape[1]
    means, spread = means.double(), covariances.double()
    if spread.dim() == 3:
        factor = torch.linalg.cholesky(spread)
        precision = torch.cholesky_inverse(factor)
        log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        linear = (precision @ means.unsqueeze(2)).squeeze(2)
        # Each product of two channels stands for both of their orders.
        once = precision.diagonal(dim1=1, dim2=2).diag_embed()
        quadratic = upper_triangles(2 * precision - once)
    else:
        quadratic = 1 / spread
        log_det = spread.log().sum(1)
        linear = quadratic * means
    constant = weights.double().log() - 0.5 * (
        n_channels * math.log(2 * math.pi) + log_det + (means * linear).sum(1)
    )
    return linear, quadratic, constant


@torch.no_grad()
def _inverse_factors(covariances):
    """The inverse of each full covariance's Cholesky factor."""
    factor = torch.linalg.cholesky(covariances.double())
    unit = torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, unit, upper=False)

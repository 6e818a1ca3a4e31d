"""Two-covariance PLDA with LDA, length normalisation and adaptation.

An embedding is y + e with the speaker's y ~ N(mean, B) and the recording's
e ~ N(0, W). SpeechBrain's `PLDA_LDA` matches enrolment names as substrings and
scores every pair of models and segments; this one scores the listed trials.
"""

import dataclasses

import numpy as np
import scipy.linalg
import torch
from sklearn.covariance import ledoit_wolf

from speechbrain_ext.processing.scoring import score_in_blocks, trial_sides
from speechbrain_ext.utils.errors import InputError

AUTO_LDA_DIM = 64


@dataclasses.dataclass
class PLDA:
    """A trained two-covariance model in the space where W = 1, B is diagonal.

    Arguments
    ---------
    projection : numpy.ndarray
        LDA before length normalisation, of shape (dim, lda_dim).
    center : numpy.ndarray
        Vector that is subtracted before the projection, of shape (dim,).
    mean : numpy.ndarray
        Mean of projected embeddings, of shape (lda_dim,).
    diagonalizer : numpy.ndarray
        Into the space of the scores, of shape (lda_dim, lda_dim).
    between : numpy.ndarray
        Diagonal of B in that space, of shape (lda_dim,).

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> speakers = np.repeat(np.arange(50), 6)
    >>> x = rng.normal(size=(50, 8))[speakers] + 0.5 * rng.normal(size=(300, 8))
    >>> plda = PLDA.fit(torch.tensor(x), speakers.tolist(), lda_dim=6)
    >>> same = plda.score_pairs(torch.tensor(x[:1]), torch.tensor(x[1:2]))
    >>> other = plda.score_pairs(torch.tensor(x[:1]), torch.tensor(x[6:7]))
    >>> bool(same > other)
    True
    """

    projection: np.ndarray
    center: np.ndarray
    mean: np.ndarray
    diagonalizer: np.ndarray
    between: np.ndarray

    @classmethod
    def fit(cls, embeddings, speakers, lda_dim=None, n_iterations=20):
        """Trains LDA and then PLDA by expectation maximisation.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings, of shape (n_utterance, dim).
        speakers : list
            Speaker of each utterance.
        lda_dim : int or str
            Dimension after LDA, less than the number of speakers; "auto" for
            64, or the highest that is possible where that is less; no LDA if
            None.
        n_iterations : int
            Number of iterations of the expectation maximisation.

        Returns
        -------
        PLDA
            The trained model.

        Raises
        ------
        InputError
            If no speaker has two utterances, or lda_dim is too large.
        """
        x = _as_array(embeddings)
        names, numbers = np.unique(np.asarray(speakers), return_inverse=True)
        if len(names) < 2 or len(names) == len(x):
            raise InputError(
                f"PLDA needs speakers with several utterances, and got "
                f"{len(x)} utterances of {len(names)} speakers; give a training "
                "set with its speakers (utt2spk)"
            )
        limit = min(x.shape[1], len(names) - 1)
        if lda_dim == "auto":
            lda_dim = min(AUTO_LDA_DIM, limit)
        if lda_dim is not None and lda_dim > limit:
            raise InputError(
                f"lda_dim={lda_dim}: {len(names)} speakers and embeddings of "
                f"{x.shape[1]} dimensions allow at most {limit}"
            )
        center = x.mean(axis=0)
        projection = np.eye(x.shape[1])
        if lda_dim is not None:
            projection = _discriminants(x - center, numbers)[:, :lda_dim]
        x = _length_normalize((x - center) @ projection)
        mean = x.mean(axis=0)
        between, within = _two_covariances(x - mean, numbers, n_iterations)
        return cls._diagonal(projection, center, mean, between, within)

    @classmethod
    def _diagonal(cls, projection, center, mean, between, within):
        values, vectors = scipy.linalg.eigh(between, within)
        return cls(projection, center, mean, vectors, np.maximum(values, 0.0))

    def transform(self, embeddings):
        """Embeddings in the space of the scores.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings, of shape (n_utterance, dim).

        Returns
        -------
        torch.Tensor
            Transformed embeddings, of shape (n_utterance, lda_dim).
        """
        x = _as_array(embeddings)
        x = _length_normalize((x - self.center) @ self.projection)
        transformed = torch.from_numpy((x - self.mean) @ self.diagonalizer)
        return transformed.to(torch.as_tensor(embeddings).device)

    def score_pairs(self, enrol, test):
        """Log-likelihood ratios of pairs, row by row.

        Arguments
        ---------
        enrol : torch.Tensor
            Embeddings, of shape (n_trial, dim), or those of several
            utterances of each enrolment, of shape (n_trial, n_enrol, dim).
        test : torch.Tensor
            Embeddings, of shape (n_trial, dim).

        Returns
        -------
        torch.Tensor
            Scores, of shape (n_trial,).
        """
        n_enrol = enrol.shape[1] if enrol.dim() == 3 else 1
        each = self.transform(enrol.reshape(-1, enrol.shape[-1]))
        means = each.reshape(len(enrol), n_enrol, -1).mean(dim=1)
        return self.log_ratios(means, self.transform(test), n_enrol)

    def log_ratios(self, enrol, test, n_enrol=1):
        """Log-likelihood ratios of transformed pairs.

        Arguments
        ---------
        enrol : torch.Tensor
            Embeddings as `transform` gives them, or means of n_enrol such
            rows, of shape (n_trial, lda_dim).
        test : torch.Tensor
            Embeddings as `transform` gives them, of shape (n_trial, lda_dim).
        n_enrol : int or torch.Tensor
            Utterances of each enrolment, of shape (n_trial, 1).

        Returns
        -------
        torch.Tensor
            Scores, of shape (n_trial,).
        """
        between = torch.from_numpy(self.between).to(test.device)
        n_enrol = torch.as_tensor(n_enrol, device=test.device)
        gain = n_enrol * between / (n_enrol * between + 1)
        same = 1 + between / (n_enrol * between + 1)
        different = 1 + between
        return 0.5 * (
            different.log()
            - same.log()
            + test**2 / different
            - (test - gain * enrol) ** 2 / same
        ).sum(dim=1)

    def score(self, embeddings, trials):
        """Log-likelihood ratios of the listed trials only.

        Arguments
        ---------
        embeddings : dict
            Embedding of each utterance id, of shape (dim,).
        trials : Trials
            Trial list.

        Returns
        -------
        torch.Tensor
            Scores, of shape (n_trial,).

        Raises
        ------
        InputError
            If embeddings are missing, NaN or zero.
        """
        sides = trial_sides(embeddings, trials)
        x = sides.mean(self.transform(sides.embeddings))
        return score_in_blocks(self.log_ratios, x, sides)

    def adapt(self, embeddings, within_share=0.3):
        """Adapts to unlabelled embeddings of another domain.

        The mean becomes theirs; where they vary more than the model says, the
        excess is shared between W and B.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings, of shape (n_utterance, dim).
        within_share : float
            Share of the excess that goes to W.

        Returns
        -------
        PLDA
            The adapted model.
        """
        x = _as_array(embeddings)
        x = _length_normalize((x - self.center) @ self.projection)
        mean = x.mean(axis=0)
        x = (x - mean) @ self.diagonalizer
        total = np.diag(1 + self.between)
        values, vectors = scipy.linalg.eigh(np.cov(x.T, bias=True), total)
        # In the basis of `vectors` the model's total covariance is 1.
        back = np.linalg.inv(vectors)
        excess = back.T @ np.diag(np.maximum(values - 1, 0.0)) @ back
        adapted = self._diagonal(
            self.projection,
            self.center,
            mean,
            np.diag(self.between) + (1 - within_share) * excess,
            np.eye(len(total)) + within_share * excess,
        )
        return dataclasses.replace(
            adapted, diagonalizer=self.diagonalizer @ adapted.diagonalizer
        )


def _as_array(embeddings):
    return torch.as_tensor(embeddings).detach().cpu().double().numpy()


def _length_normalize(x):
    # The centre itself has no direction, and stays.
    norms = np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    return x / norms * np.sqrt(x.shape[1])


def _discriminants(x, numbers):
    """Directions of LDA, those that tell most speakers apart first.

    The correlations within speakers are shrunk (Ledoit and Wolf, 2004): fewer
    utterances than dimensions leave their covariance singular.
    """
    means = np.zeros((numbers.max() + 1, x.shape[1]))
    np.add.at(means, numbers, x)
    means /= np.bincount(numbers)[:, None]
    deviations = x - means[numbers]
    scale = np.sqrt((deviations**2).mean(axis=0))
    scale[scale == 0] = 1.0
    correlations, _ = ledoit_wolf(deviations / scale, assume_centered=True)
    correlations += 1e-10 * np.eye(len(scale))
    within = scale[:, None] * correlations * scale
    between = np.cov(means[numbers].T, bias=True).reshape(within.shape)
    _, vectors = scipy.linalg.eigh(between, within)
    return vectors[:, ::-1]


def _two_covariances(x, numbers, n_iterations):
    """Maximum likelihood B and W of centred embeddings."""
    n_speakers, dim = numbers.max() + 1, x.shape[1]
    counts = np.bincount(numbers)
    means = np.zeros((n_speakers, dim))
    np.add.at(means, numbers, x)
    means /= counts[:, None]
    deviations = x - means[numbers]
    scatter = deviations.T @ deviations
    # Length normalisation makes the mean variance 1, so this is relative.
    ridge = 1e-4 * np.eye(dim)
    within = scatter / max(1, len(x) - n_speakers) + ridge
    between = np.cov(means.T, bias=True).reshape(dim, dim) + ridge
    for _ in range(n_iterations):
        new_between, new_within = np.zeros_like(between), scatter.copy()
        # The posterior covariance depends on the number of utterances only.
        for count in np.unique(counts):
            chosen = means[counts == count]
            gain = between @ np.linalg.inv(between + within / count)
            posterior = between - gain @ between
            y = chosen @ gain.T
            new_between += y.T @ y + len(chosen) * posterior
            error = chosen - y
            new_within += count * (error.T @ error + len(chosen) * posterior)
        between = new_between / n_speakers
        within = new_within / len(x) + ridge
    return between, within

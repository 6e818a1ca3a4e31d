"""How a model scores two embeddings and decides, which travels with it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.processing.backends import CosineBackend
from speechbrain_ext.processing.calibration import Calibration, quality_columns
from speechbrain_ext.processing.score_norm import speaker_means
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import write_json


class Cohort(nn.Module):
    """What scoring keeps of the training speakers.

    As a module it subtracts the mean, so that SpeechBrain takes it as its
    `mean_var_norm_emb`.

    Arguments
    ---------
    n_speakers : int
        Speakers of the cohort; 0 where none is known, and the mean is zero.
    dim : int
        Dimension of the embeddings.

    Example
    -------
    >>> store = EmbeddingStore(["a", "b"], torch.eye(2), ["x", "y"], [1.0, 1.0], "")
    >>> cohort = Cohort.of(store, CosineBackend())
    >>> cohort(torch.ones(1, 1, 2), torch.ones(1))
    tensor([[[0.5000, 0.5000]]])
    """

    mean: torch.Tensor
    speaker_means: torch.Tensor

    def __init__(self, n_speakers: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("speaker_means", torch.zeros(n_speakers, dim))

    @classmethod
    def of(cls, store: EmbeddingStore, backend: CosineBackend) -> "Cohort":
        """Takes the statistics of embeddings.

        Arguments
        ---------
        store : EmbeddingStore
            Embeddings of training utterances.
        backend : CosineBackend
            Back end whose conventions the speakers' means follow.

        Returns
        -------
        Cohort
            The mean over utterances and that of each speaker.
        """
        backend.fit(store)
        means = backend.cohort if backend.score_norm else None
        if means is None:
            means = speaker_means(store.by_id(), store.speaker_of())
        cohort = cls(*means.shape)
        cohort.mean.copy_(store.embeddings.mean(dim=0))
        cohort.speaker_means.copy_(means)
        return cohort

    def __len__(self) -> int:
        return len(self.speaker_means)

    def forward(
        self, embeddings: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Subtracts the mean.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings, of shape (..., dim).
        lengths : torch.Tensor
            Not needed; SpeechBrain gives them.

        Returns
        -------
        torch.Tensor
            Embeddings, of the same shape.
        """
        return embeddings - self.mean


class Verification(tuple):
    """Scores and decisions, a pair as in SpeechBrain, and what else is known.

    Arguments
    ---------
    score : torch.Tensor
        Score of each pair of utterances.
    decision : torch.Tensor
        Whether they are of one speaker; of the shape of score.
    log_likelihood_ratio : torch.Tensor
        Natural logarithm of the likelihood ratio of one speaker against two; None
        without calibration.

    Attributes
    ----------
    probability : torch.Tensor
        That they are of one speaker, where this is as likely as not before they
        are heard; None without calibration.

    Example
    -------
    >>> result = Verification(torch.tensor([0.7]), torch.tensor([True]), torch.zeros(1))
    >>> score, decision = result
    >>> result.probability
    tensor([0.5000])
    """

    score: torch.Tensor
    decision: torch.Tensor
    log_likelihood_ratio: torch.Tensor | None
    probability: torch.Tensor | None

    def __new__(
        cls,
        score: torch.Tensor,
        decision: torch.Tensor,
        log_likelihood_ratio: torch.Tensor | None = None,
    ) -> "Verification":
        """Makes the pair."""
        result = super().__new__(cls, (score, decision))
        result.score, result.decision = score, decision
        result.log_likelihood_ratio = log_likelihood_ratio
        result.probability = None
        if log_likelihood_ratio is not None:
            result.probability = torch.sigmoid(log_likelihood_ratio)
        return result


class ModelScoring:
    """Cosine scoring with the threshold and calibration of a model.

    Arguments
    ---------
    threshold : float
        Score above which two utterances are of one speaker; if None, it is where
        the log-likelihood ratio is positive.
    threshold_from : str
        The trials that the threshold is from, for people.
    calibration : Calibration
        Map from scores, and quality measures, to log-likelihood ratios.
    backend : dict
        Settings of the `CosineBackend`; plain cosine if None.
    cohort : Cohort
        Embeddings of the cohort of the training speakers.

    Example
    -------
    >>> scoring = ModelScoring(threshold=0.5, threshold_from="an example")
    >>> score, decision = scoring.compare(torch.eye(2), torch.ones(2, 2))
    >>> score, decision
    (tensor([0.7071, 0.7071]), tensor([True, True]))
    """

    def __init__(
        self,
        threshold: float | None = None,
        threshold_from: str | None = None,
        calibration: Calibration | None = None,
        backend: dict[str, Any] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        self.threshold = threshold
        self.threshold_from = threshold_from
        self.calibration = calibration
        self.backend = backend or {}
        self.cohort = cohort

    @property
    def has_cohort(self) -> bool:
        """Whether the training speakers are known."""
        return self.cohort is not None and len(self.cohort) > 0

    def save(self, path: str | Path) -> None:
        """Writes calibration.json; the cohort is a file of its own.

        Arguments
        ---------
        path : str or Path
            The file.
        """
        calibration = self.calibration
        write_json(
            path,
            {
                "threshold": self.threshold,
                "threshold_from": self.threshold_from,
                "backend": self.backend,
                "log_likelihood_ratio": None
                if calibration is None
                else vars(calibration),
            },
        )

    def load(self, path: str | Path) -> None:
        """Reads calibration.json into this object.

        Arguments
        ---------
        path : str or Path
            File of `save`.

        Raises
        ------
        InputError
            If it is no such file.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            calibration = content.pop("log_likelihood_ratio")
            if calibration is not None:
                calibration = Calibration(**calibration)
            read = ModelScoring(**content, calibration=calibration, cohort=self.cohort)
            if read.threshold is not None and not math.isfinite(read.threshold):
                raise ValueError(f"threshold {read.threshold}")
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise InputError(
                f"'{path}' is no calibration of a model ({error}); export it again"
            ) from None
        vars(self).update(vars(read))

    def compare(
        self,
        enrol: torch.Tensor,
        test: torch.Tensor,
        enrol_seconds: Sequence[float] = (),
        test_seconds: Sequence[float] = (),
        threshold: float | None = None,
    ) -> Verification:
        """Scores pairs of embeddings and decides.

        Arguments
        ---------
        enrol : torch.Tensor
            Embeddings of the enrolment side, of shape (n_pair, dim).
        test : torch.Tensor
            Embeddings of the test side, of shape (n_pair, dim).
        enrol_seconds : list of float
            Durations, for a calibration that takes them in.
        test_seconds : list of float
            Seconds of speech on the test side.
        threshold : float
            See `score`.

        Returns
        -------
        Verification
            Tensors of shape (n_pair,).

        Raises
        ------
        InputError
            See `score`; also if there are not as many of both.
        """
        if enrol.shape != test.shape:
            raise InputError(
                f"{len(enrol)} and {len(test)} utterances are no pairs; give as many "
                "of both"
            )
        sides = [
            [f"{side} {i}" for i in range(len(enrol))] for side in ("enrol", "test")
        ]
        names = [*sides[0], *sides[1]]
        store = EmbeddingStore(
            names,
            torch.cat([enrol, test]).float().cpu(),
            names,
            [*enrol_seconds, *test_seconds],
            "",
        )
        return self.score(store, Trials([0] * len(enrol), *sides), threshold=threshold)

    def score(
        self,
        store: EmbeddingStore,
        trials: Trials,
        enrolments: dict[str, list[str]] | None = None,
        threshold: float | None = None,
    ) -> Verification:
        """Scores a trial list and decides.

        Arguments
        ---------
        store : EmbeddingStore
            Embeddings with the utterances of the trials.
        trials : Trials
            Trial list.
        enrolments : dict
            Utterance ids of each model, where the enrolment ids are models.
        threshold : float
            Threshold for the score, in place of the model's own.

        Returns
        -------
        Verification
            Tensors of shape (n_trial,).

        Raises
        ------
        InputError
            If nothing says where to decide, or the calibration needs durations.
        """
        backend = CosineBackend(**self.backend)
        if backend.needs_cohort and self.cohort is not None:
            backend.take_statistics(
                self.cohort.mean.cpu(), self.cohort.speaker_means.cpu()
            )
        scores, ratios = backend.score(store, trials, enrolments), None
        if self.calibration is not None:
            columns = scores.unsqueeze(1)
            if len(self.calibration.names) > 1:
                if len(store.durations) != len(store.ids):
                    raise InputError(
                        "the model's calibration takes durations; give them, or files"
                    )
                names, columns = quality_columns(
                    scores, trials, store, backend.cohort_means(store), enrolments
                )
                columns = columns[:, [names.index(n) for n in self.calibration.names]]
            ratios = self.calibration.apply(columns).float()
        scores = scores.float()
        if threshold is None:
            threshold = self.threshold
        if threshold is not None:
            decisions = scores > threshold
        elif ratios is not None:
            decisions = ratios > 0
        else:
            raise InputError("the model has no threshold of its own; give threshold")
        return Verification(scores, decisions, ratios)

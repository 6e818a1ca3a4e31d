"""Back ends: from embeddings and trials to scores.

A new back end is a subclass of `Backend` and a line of a verification YAML,
`backend: !new:my_package.MyBackend`.
"""

import numbers
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.processing.enrolment import expand_trials, mean_scores
from speechbrain_ext.processing.plda import PLDA
from speechbrain_ext.processing.score_norm import (
    KINDS,
    cohort_statistics,
    normalize_scores,
    speaker_means,
)
from speechbrain_ext.processing.scoring import (
    TrialSides,
    checked_embeddings,
    row_cosines,
    score_in_blocks,
    side_cosines,
    trial_sides,
)
from speechbrain_ext.utils.errors import InputError

logger = get_logger(__name__)

AVERAGES = ("embeddings", "scores")


class Backend:
    """Scores the trials of a list; the base class of all back ends.

    A subclass says in `compare` how a pair of embeddings is scored. It may
    move the embeddings to another space in `transform`, where the utterances
    of an enrolment are averaged, learn from a cohort in `train`, and change
    the scores of the whole list in `normalize`.

    Arguments
    ---------
    needs_cohort : bool
        Whether the back end learns from the embeddings of a training set.

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> from speechbrain_ext.dataio.embedding_store import EmbeddingStore
    >>> class Distance(Backend):
    ...     def compare(self, enrol, test, n_enrol):
    ...         return -(enrol - test).norm(dim=1)
    >>> store = EmbeddingStore(["a", "b"], torch.eye(2), ["x", "y"], [1.0, 1.0], "")
    >>> Distance().score(store, Trials([0], ["a"], ["b"]))
    tensor([-1.4142], dtype=torch.float64)
    """

    def __init__(self, needs_cohort: bool = False) -> None:
        self.needs_cohort = needs_cohort
        self.dim: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether scores are plain cosines, which a threshold of such ones fits."""
        return False

    def details(self) -> dict[str, Any]:
        """Returns the entries of metrics.json that tell the back end."""
        return {"backend": type(self).__name__}

    def fit(self, cohort: EmbeddingStore) -> "Backend":
        """Trains the back end.

        Arguments
        ---------
        cohort : EmbeddingStore
            Embeddings of a training set with their speakers.

        Returns
        -------
        Backend
            The back end itself.

        Raises
        ------
        InputError
            If the embeddings cannot be used.
        """
        matrix = checked_embeddings(cohort.ids, cohort.embeddings, "the cohort")
        self.dim = matrix.shape[1]
        self.train(cohort)
        return self

    def train(self, cohort: EmbeddingStore) -> None:
        """Learns from the embeddings of a training set; here nothing.

        Arguments
        ---------
        cohort : EmbeddingStore
            Cohort with finite embeddings.
        """

    def adapted_to(self, embeddings: torch.Tensor) -> "Backend":
        """The back end for the embeddings that are to be scored; here itself.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings of the trials' utterances, of shape (n_utterance, dim).

        Returns
        -------
        Backend
            The back end that scores them.
        """
        del embeddings
        return self

    def transform(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Moves embeddings to the space of `compare`; here they stay.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings in float64, of shape (n_utterance, dim).

        Returns
        -------
        torch.Tensor
            Transformed embeddings, of shape (n_utterance, new_dim).
        """
        return embeddings

    def compare(
        self, enrol: torch.Tensor, test: torch.Tensor, n_enrol: torch.Tensor
    ) -> torch.Tensor:
        """Scores pairs.

        Arguments
        ---------
        enrol : torch.Tensor
            Transformed embeddings, or their means over the utterances of an
            enrolment, of shape (n_pair, new_dim).
        test : torch.Tensor
            Transformed embeddings, of shape (n_pair, new_dim).
        n_enrol : torch.Tensor
            Utterances of each enrolment, of shape (n_pair, 1).

        Returns
        -------
        torch.Tensor
            Scores, of shape (n_pair,), higher for pairs of one speaker.
        """
        raise NotImplementedError

    def normalize(
        self,
        scores: torch.Tensor,
        store: EmbeddingStore,
        trials: Trials,
        enrolments: dict[str, list[str]] | None = None,
    ) -> torch.Tensor:
        """Normalises the scores of a trial list; here they stay.

        Arguments
        ---------
        scores : torch.Tensor
            Scores of `compare`, of shape (n_trial,).
        store : EmbeddingStore
            Embeddings with the utterances of the trials.
        trials : Trials
            Trial list.
        enrolments : dict
            Utterance ids of each model, where the enrolment ids are models.

        Returns
        -------
        torch.Tensor
            Scores, of shape (n_trial,).
        """
        del store, trials, enrolments
        return scores

    def cohort_means(self, store: EmbeddingStore) -> dict[str, float] | None:
        """Mean cohort score of each utterance, a quality measure.

        Arguments
        ---------
        store : EmbeddingStore
            Embeddings.

        Returns
        -------
        dict or None
            Mean of each id; None where no cohort is compared with.
        """
        del store
        return None

    def score(
        self,
        store: EmbeddingStore,
        trials: Trials,
        enrolments: dict[str, list[str]] | None = None,
        average: str = "embeddings",
    ) -> torch.Tensor:
        """Scores a trial list.

        Arguments
        ---------
        store : EmbeddingStore
            Embeddings with the utterances of the trials.
        trials : Trials
            Trial list.
        enrolments : dict
            Utterance ids of each model, where the enrolment ids are models.
        average : str
            What is averaged over a model's utterances: "embeddings", in the
            space of the back end, or "scores".

        Returns
        -------
        torch.Tensor
            Scores in float64, of shape (n_trial,).

        Raises
        ------
        InputError
            If the back end was not trained, or was trained on embeddings of
            another dimension, or embeddings are missing, NaN or zero.
        """
        if average not in AVERAGES:
            raise InputError(f"average '{average}': use {' or '.join(AVERAGES)}")
        self._check(store)
        if enrolments is not None and average == "scores":
            expanded, source = expand_trials(trials, enrolments)
            return mean_scores(self.score(store, expanded), source)
        sides = trial_sides(store.by_id(), trials, enrolments)
        backend = self.adapted_to(sides.embeddings)
        embeddings = sides.mean(backend.transform(sides.embeddings))
        scores = backend.score_sides(embeddings, sides)
        return self.normalize(scores, store, trials, enrolments)

    def score_sides(self, embeddings: torch.Tensor, sides: TrialSides) -> torch.Tensor:
        """Scores the sides of trials, whose embeddings are transformed.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings of the sides, of shape (n_side, dim).
        sides : TrialSides
            Which sides each trial compares.

        Returns
        -------
        torch.Tensor
            In float64, of shape (n_trial,).
        """
        return score_in_blocks(self.compare, embeddings, sides)

    def _check(self, store: EmbeddingStore) -> None:
        if self.needs_cohort and self.dim is None:
            raise InputError(
                f"{type(self).__name__} needs a cohort: train it with the "
                "embeddings of a training set"
            )
        dim = store.embeddings.shape[-1]
        if self.dim not in (None, dim):
            raise InputError(
                f"the embeddings of the trials have {dim} dimensions, those of the "
                f"cohort {self.dim}; take both from one model"
            )


class CosineBackend(Backend):
    """Cosine scores, with mean subtraction and score normalisation on request.

    Of several enrolment utterances the unit-length embeddings are averaged,
    after mean subtraction.

    Arguments
    ---------
    subtract_mean : bool
        Whether to subtract the mean of the training embeddings.
    score_norm : str
        "z-norm", "t-norm" or "s-norm" with the speakers' means as cohort;
        none if None.
    cohort_size : int
        Highest cohort scores that count (AS-norm); all if None.
    unbiased_std : bool
        Whether the variance of the cohort scores divides by n - 1, as
        SpeechBrain's does, and not by n, as WeSpeaker's does.
    unit_length_cohort : bool
        Whether the speakers' means are of unit-length embeddings, and not of
        raw ones, as WeSpeaker's are.

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> from speechbrain_ext.dataio.embedding_store import EmbeddingStore
    >>> store = EmbeddingStore(["a", "b"], torch.eye(2), ["x", "y"], [1.0, 1.0], "")
    >>> CosineBackend().score(store, Trials([0], ["a"], ["b"]))
    tensor([0.], dtype=torch.float64)
    """

    def __init__(
        self,
        subtract_mean: bool = False,
        score_norm: str | None = None,
        cohort_size: int | None = None,
        unbiased_std: bool = True,
        unit_length_cohort: bool = True,
    ) -> None:
        super().__init__(needs_cohort=bool(subtract_mean or score_norm))
        if score_norm is None:
            for name, value, default in (
                ("cohort_size", cohort_size, None),
                ("unbiased_std", unbiased_std, True),
                ("unit_length_cohort", unit_length_cohort, True),
            ):
                if value != default:
                    raise InputError(
                        f"{name} has no effect without score_norm; give "
                        f"score_norm: {', '.join(KINDS)}"
                    )
        elif score_norm not in KINDS:
            raise InputError(
                f"score_norm '{score_norm}': use one of {', '.join(KINDS)}"
            )
        if cohort_size is not None:
            require_count("cohort_size", cohort_size, 2)
        self.subtract_mean = subtract_mean
        self.score_norm = score_norm
        self.cohort_size = cohort_size
        self.unbiased_std = unbiased_std
        self.unit_length_cohort = unit_length_cohort
        self.mean: torch.Tensor | float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether scores are plain cosines."""
        return not (self.subtract_mean or self.score_norm)

    def details(self) -> dict[str, Any]:
        """Returns the entries of metrics.json that tell the back end."""
        details = {
            "backend": "cosine",
            "subtract_mean": self.subtract_mean,
            "score_norm": self.score_norm,
            "cohort_size": self.cohort_size,
        }
        if self.score_norm:
            details["unbiased_std"] = self.unbiased_std
            details["unit_length_cohort"] = self.unit_length_cohort
        return details

    def train(self, cohort: EmbeddingStore) -> None:
        """Takes mean and speakers' means of a training set, as far as needed."""
        if self.subtract_mean:
            self.mean = cohort.embeddings.double().mean(dim=0)
        if self.score_norm:
            self.cohort_speakers = set(cohort.speakers)
            self.cohort = speaker_means(
                self._centred(cohort), cohort.speaker_of(), self.unit_length_cohort
            )

    def take_statistics(
        self, mean: torch.Tensor, cohort: torch.Tensor
    ) -> "CosineBackend":
        """Takes what `train` computes, where a model has kept it.

        Arguments
        ---------
        mean : torch.Tensor
            Mean of the training embeddings, of shape (dim,).
        cohort : torch.Tensor
            Speakers' means, of shape (n_speaker, dim).

        Returns
        -------
        CosineBackend
            The back end itself.
        """
        self.dim = len(mean)
        if self.subtract_mean:
            self.mean = mean.double()
        if self.score_norm:
            self.cohort_speakers = set()
            self.cohort = cohort
        return self

    def _centred(self, store: EmbeddingStore) -> dict[str, torch.Tensor]:
        return dict(zip(store.ids, store.embeddings - self.mean))

    def transform(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Subtracts the mean and brings embeddings to unit length."""
        return torch.nn.functional.normalize(embeddings - self.mean, dim=1)

    def compare(
        self, enrol: torch.Tensor, test: torch.Tensor, n_enrol: torch.Tensor
    ) -> torch.Tensor:
        """Cosines of pairs."""
        return row_cosines(enrol, test, n_enrol)

    def score_sides(self, embeddings: torch.Tensor, sides: TrialSides) -> torch.Tensor:
        """Cosines of the sides of trials."""
        return side_cosines(embeddings, sides)

    def normalize(
        self,
        scores: torch.Tensor,
        store: EmbeddingStore,
        trials: Trials,
        enrolments: dict[str, list[str]] | None = None,
    ) -> torch.Tensor:
        """Normalises cosine scores, where there is a score_norm."""
        if not self.score_norm:
            return scores
        self._check(store)
        common = self.cohort_speakers & set(store.speakers)
        if common:
            logger.warning(
                f"{len(common)} speakers of the cohort are in the trials, "
                f"such as {min(common)}; their normalised scores are biased."
            )
        return normalize_scores(
            scores,
            trials,
            self._centred(store),
            self.cohort,
            self.score_norm,
            self.cohort_size,
            self.unbiased_std,
            enrolments,
        )

    def cohort_means(self, store: EmbeddingStore) -> dict[str, float] | None:
        """Mean cohort score of each utterance; None without score_norm."""
        if not self.score_norm:
            return None
        means, _ = cohort_statistics(
            store.embeddings - self.mean,
            self.cohort,
            self.cohort_size,
            self.unbiased_std,
        )
        return dict(zip(store.ids, means.tolist()))


class PLDABackend(Backend):
    """LDA and PLDA trained on the training embeddings.

    An enrolment of n utterances is scored as such: their mean, in the space
    after LDA and length normalisation, varies by B + W / n.

    Arguments
    ---------
    lda_dim : int or str
        Dimension after LDA; "auto" for 64, or as many as speakers and
        dimensions allow where that is less; no LDA if None.
    adapt : bool
        Whether to adapt to the embeddings that are scored.

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> from speechbrain_ext.dataio.embedding_store import EmbeddingStore
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(50, 8).repeat_interleave(4, 0) + 0.5 * torch.randn(200, 8)
    >>> ids = [f"{i // 4}/{i}" for i in range(200)]
    >>> store = EmbeddingStore(ids, x, [i.split("/")[0] for i in ids], [1.0] * 200, "")
    >>> backend = PLDABackend(lda_dim=6).fit(store)
    >>> same, other = backend.score(store, Trials([1, 0], ["0/0"] * 2, ["0/1", "1/4"]))
    >>> bool(same > other)
    True
    """

    def __init__(self, lda_dim: int | str | None = None, adapt: bool = False) -> None:
        super().__init__(needs_cohort=True)
        if lda_dim not in (None, "auto"):
            require_count("lda_dim", lda_dim, 1)
        self.lda_dim = lda_dim
        self.adapt = adapt

    def details(self) -> dict[str, Any]:
        """Returns the entries of metrics.json that tell the back end."""
        lda_dim = self.plda.projection.shape[1] if self.lda_dim else None
        return {"backend": "PLDA", "lda_dim": lda_dim, "adapt": self.adapt}

    def train(self, cohort: EmbeddingStore) -> None:
        """Trains LDA and PLDA."""
        self.plda = PLDA.fit(cohort.embeddings, cohort.speakers, self.lda_dim)

    def adapted_to(self, embeddings: torch.Tensor) -> Backend:
        """With `adapt`, a back end for the domain of the embeddings."""
        if not self.adapt:
            return self
        adapted = PLDABackend(self.lda_dim)
        adapted.plda = self.plda.adapt(embeddings)
        return adapted

    def transform(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Moves embeddings to where W is 1 and B diagonal."""
        return self.plda.transform(embeddings)

    def compare(
        self, enrol: torch.Tensor, test: torch.Tensor, n_enrol: torch.Tensor
    ) -> torch.Tensor:
        """Log-likelihood ratios of pairs."""
        return self.plda.log_ratios(enrol, test, n_enrol)


def require_count(name: str, value: Any, least: int) -> None:
    """Checks that an option is a whole number, and not too low.

    Arguments
    ---------
    name : str
        Name of the option.
    value : object
        Value as it was given.
    least : int
        The lowest that makes sense.

    Raises
    ------
    InputError
        If it is none.

    Example
    -------
    >>> require_count("lda_dim", 0, 1)
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: lda_dim '0': give a whole number ...
    """
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise InputError(f"{name} '{value}': give a whole number from {least} up")

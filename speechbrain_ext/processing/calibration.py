"""Calibration of scores into log-likelihood ratios, with quality measures.

Logistic regression over the score and measures of how far it can be trusted
(arXiv 2010.11255, section 2.5).
"""

import dataclasses
import json
import math
import random
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from speechbrain_ext.processing.scoring import trial_sides
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import write_json


@dataclasses.dataclass
class Calibration:
    """An affine map from score and quality measures to a log-likelihood ratio.

    Arguments
    ---------
    names : list of str
        Names of the columns, "score" first.
    weights : list of float
        Weights of the columns.
    offset : float
        Offset that is added.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> labels = [i % 2 for i in range(2000)]
    >>> scores = torch.randn(2000) + 4 * torch.tensor(labels)
    >>> calibration = Calibration.fit(["score"], scores.unsqueeze(1), labels)
    >>> ratio = calibration.apply(torch.tensor([[2.0]]))
    >>> bool(ratio.abs() < 0.5)
    True
    """

    names: list
    weights: list
    offset: float

    @classmethod
    def fit(cls, names, columns, labels, p_target=0.5):
        """Trains by logistic regression.

        Arguments
        ---------
        names : list of str
            Names of the columns.
        columns : torch.Tensor
            Scores and quality measures, of shape (n_trial, n_column).
        labels : list of int
            1 for target, 0 for non-target trials.
        p_target : float
            Prior at which the calibration is to be best.

        Returns
        -------
        Calibration
            The trained map.

        Raises
        ------
        InputError
            If there is one class only, a column is not finite, all scores are the
            same, or p_target is not between 0 and 1.
        """
        if not 0 < p_target < 1:
            raise InputError(
                f"p_target '{p_target}': give a probability between 0 and 1"
            )
        labels = torch.as_tensor(labels).cpu().numpy()
        if len(set(labels.tolist())) < 2:
            raise InputError(
                "calibration needs target and non-target trials, and got "
                f"{len(labels)} of one kind"
            )
        columns = torch.as_tensor(columns).detach().cpu().double().numpy()
        bad = [n for n, c in zip(names, columns.T) if not np.isfinite(c).all()]
        if bad:
            raise InputError(f"not finite for some trials: {', '.join(bad)}")
        if np.ptp(columns[:, 0]) == 0:
            raise InputError(
                f"the {len(labels)} trials to train on have one and the same "
                f"{names[0]}, {columns[0, 0]:g}; calibration needs scores that differ"
            )
        scaler = StandardScaler().fit(columns)
        share = labels.mean()
        # Newton's steps reach the optimum; the weak penalty keeps the weights of
        # separated scores finite.
        regression = LogisticRegression(
            C=1e6,
            solver="newton-cholesky",
            tol=1e-10,
            max_iter=1000,
            class_weight={1: p_target / share, 0: (1 - p_target) / (1 - share)},
        ).fit(scaler.transform(columns), labels)
        weights = regression.coef_[0] / scaler.scale_
        offset = regression.intercept_[0] - weights @ scaler.mean_
        offset -= math.log(p_target / (1 - p_target))
        return cls(list(names), weights.tolist(), float(offset))

    def apply(self, columns):
        """Turns scores and measures into log-likelihood ratios.

        Arguments
        ---------
        columns : torch.Tensor
            Scores and quality measures, of shape (n_trial, n_column), in the order of
            `names`.

        Returns
        -------
        torch.Tensor
            Scores, of shape (n_trial,).

        Raises
        ------
        InputError
            If the number of columns is another one.
        """
        if columns.shape[1] != len(self.names):
            raise InputError(
                f"the calibration takes {len(self.names)} columns "
                f"({', '.join(self.names)}) and got {columns.shape[1]}"
            )
        columns = columns.double()
        weights = columns.new_tensor(self.weights)
        return columns @ weights + self.offset

    def save(self, path):
        """Writes the map as JSON, atomically.

        Arguments
        ---------
        path : str or Path
            File to write.
        """
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path):
        """Reads a map.

        Arguments
        ---------
        path : str or Path
            File of `save`.

        Returns
        -------
        Calibration
            The map.

        Raises
        ------
        InputError
            If the file is no calibration.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise InputError(f"'{path}' is no calibration ({error})") from None


def quality_columns(scores, trials, store, cohort_means=None, enrolments=None):
    """Score and quality measures of each trial.

    Of both sides' log duration, embedding norm, embedding variance and, where
    given, mean cohort score, the minimum, the maximum and their difference.
    An enrolment of several utterances has their duration together, and the
    means of their other measures.

    Arguments
    ---------
    scores : torch.Tensor
        Scores, of shape (n_trial,).
    trials : Trials
        Trial list.
    store : EmbeddingStore
        Embeddings with the utterances of the trials.
    cohort_means : dict
        Mean cohort score of each utterance id.
    enrolments : dict
        Utterance ids of each model, where the enrolment ids are models.

    Returns
    -------
    names : list of str
        Names of the columns.
    columns : torch.Tensor
        Scores and quality measures, of shape (n_trial, n_column).

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> from speechbrain_ext.dataio.embedding_store import EmbeddingStore
    >>> store = EmbeddingStore(["a", "b"], torch.eye(2), ["x", "y"], [1.0, 4.0], "")
    >>> trials = Trials([0], ["a"], ["b"])
    >>> names, columns = quality_columns(torch.zeros(1), trials, store)
    >>> names[:4]
    ['score', 'duration_min', 'duration_max', 'duration_difference']
    >>> columns[0, :4]
    tensor([0.0000, 0.0000, 1.3863, 1.3863], dtype=torch.float64)
    """
    sides = trial_sides(store.by_id(), trials, enrolments)

    def of_sides(value_of):
        values = [value_of[name] for name in sides.names]
        return sides.mean(torch.tensor(values, dtype=torch.float64))

    durations = of_sides(dict(zip(store.ids, store.durations))) * sides.counts
    measures = {
        "duration": durations.log(),
        "norm": sides.mean(sides.embeddings.norm(dim=1)),
        "variance": sides.mean(sides.embeddings.var(dim=1)),
    }
    if cohort_means is not None:
        measures["cohort_mean"] = of_sides(cohort_means)
    names, columns = ["score"], [torch.as_tensor(scores).double()]
    for name, measure in measures.items():
        pairs = torch.stack([measure[sides.enrol], measure[sides.test]])
        low, high = pairs.amin(dim=0), pairs.amax(dim=0)
        names += [f"{name}_min", f"{name}_max", f"{name}_difference"]
        columns += [low, high, high - low]
    return names, torch.stack(columns, dim=1)


def vary_durations(utterances, n_crops, min_duration=1.0, max_duration=8.0, seed=1986):
    """Draws crops of varied duration, to train a calibration on.

    Arguments
    ---------
    utterances : dict
        Utterances as `read_manifest` gives them.
    n_crops : int
        Crops to draw, spread evenly over the speakers.
    min_duration : float
        Shortest duration in seconds.
    max_duration : float
        Longest duration in seconds; shorter utterances are taken whole.
    seed : int
        Seed of the draw.

    Returns
    -------
    dict
        Utterances as `read_manifest` gives them, with the start of each crop (seconds);
        the id is that of the utterance with `#` and a number.

    Example
    -------
    >>> utterances = {"a/1": {"wav": "1.wav", "speaker": "a", "duration": 9.0}}
    >>> crops = vary_durations(utterances, n_crops=2)
    >>> list(crops)
    ['a/1#0', 'a/1#1']
    """
    rng = random.Random(seed)
    by_speaker = {}
    for name, item in sorted(utterances.items()):
        by_speaker.setdefault(item["speaker"], []).append(name)
    for names in by_speaker.values():
        rng.shuffle(names)
    speakers = sorted(by_speaker)
    crops = {}
    for i in range(n_crops):
        names = by_speaker[speakers[i % len(speakers)]]
        name = names[i // len(speakers) % len(names)]
        item = utterances[name]
        duration = min(
            item["duration"],
            math.exp(rng.uniform(math.log(min_duration), math.log(max_duration))),
        )
        start = rng.uniform(0, item["duration"] - duration)
        crops[f"{name}#{i}"] = {**item, "duration": duration, "start": start}
    return crops

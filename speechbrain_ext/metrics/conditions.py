"""Error rates by condition: gender of the pair, duration of the shorter side."""

import math

import torch

from speechbrain_ext.metrics.detection import EER
from speechbrain_ext.utils.fields import find_same_names, read_csv

DURATION_BOUNDS = (0.0, 2.0, 4.0, 8.0, math.inf)  # seconds


def condition_metrics(trials, scores, store, gender_of=None, enrolments=None):
    """EER of each condition that has target and non-target trials.

    Duration bins go by the shorter side of a trial; an enrolment of several
    utterances is as long as they are together. Target trials are of one
    speaker, so that "same gender" and "cross gender" both take all of them.

    Arguments
    ---------
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Scores, of shape (n_trial,).
    store : EmbeddingStore
        Embeddings with their durations and speakers.
    gender_of : dict
        Gender of each speaker, where known.
    enrolments : dict
        Utterance ids of each model, where the enrolment ids are models.

    Returns
    -------
    dict
        For each condition: n_target, n_nontarget, EER.

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> from speechbrain_ext.dataio.embedding_store import EmbeddingStore
    >>> store = EmbeddingStore(
    ...     ["a", "b", "c"], torch.eye(3), ["x", "x", "y"], [1.0, 5.0, 1.5], ""
    ... )
    >>> trials = Trials([1, 0], ["a", "a"], ["b", "c"])
    >>> conditions = condition_metrics(trials, torch.tensor([0.9, 0.1]), store)
    >>> conditions
    {'shorter side below 2 s': {'n_target': 1, 'n_nontarget': 1, 'EER': 0.0}}
    """
    is_target = torch.tensor(trials.labels, dtype=torch.bool)
    duration_of = dict(zip(store.ids, store.durations))
    enrolled = [
        [name] if enrolments is None else enrolments[name] for name in trials.enrol
    ]
    shorter = torch.tensor(
        [
            min(sum(duration_of[name] for name in names), duration_of[test])
            for names, test in zip(enrolled, trials.test)
        ]
    )
    chosen = {}
    for low, high in zip(DURATION_BOUNDS, DURATION_BOUNDS[1:]):
        if high == math.inf:
            name = f"shorter side from {low:g} s"
        elif low == 0.0:
            name = f"shorter side below {high:g} s"
        else:
            name = f"shorter side {low:g} to {high:g} s"
        chosen[name] = (shorter >= low) & (shorter < high)
    if gender_of is not None:
        speaker_of = store.speaker_of()
        same = find_same_names(store.speakers, gender_of)
        gender_of = {speaker: gender_of[name] for speaker, name in same.items()}
        genders = [
            [gender_of.get(speaker_of[name]) for name in side]
            for side in ([names[0] for names in enrolled], trials.test)
        ]
        known = torch.tensor([None not in pair for pair in zip(*genders)])
        same = torch.tensor([first == second for first, second in zip(*genders)])
        chosen["same gender"] = known & same
        chosen["cross gender"] = known & (is_target | ~same)
        for gender in sorted(set(gender_of.values())):
            of_gender = torch.tensor([g == gender for g in genders[0]])
            chosen[f"both {gender}"] = known & same & of_gender
    conditions = {}
    for name, mask in chosen.items():
        target, nontarget = scores[mask & is_target], scores[mask & ~is_target]
        if len(target) and len(nontarget):
            conditions[name] = {
                "n_target": len(target),
                "n_nontarget": len(nontarget),
                "EER": EER(target, nontarget)[0],
            }
    return conditions


def read_genders(path):
    """Reads a CSV file with the columns speaker and gender.

    Arguments
    ---------
    path : str or Path
        CSV file; further columns and repeated speakers do no harm.

    Returns
    -------
    dict
        Gender of each speaker that has one.

    Raises
    ------
    InputError
        If the file or a column is missing.
    """
    return {
        speaker: gender
        for _, (speaker, gender) in read_csv(
            path, "table of speaker_genders", ("speaker", "gender")
        )
        if gender
    }

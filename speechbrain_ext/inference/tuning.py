"""The threshold of a model on one's own trials."""

from pathlib import Path
from typing import NamedTuple

from speechbrain_ext.dataio.trials import match_utterances
from speechbrain_ext.inference.model_card import with_decision
from speechbrain_ext.inference.model_folder import CALIBRATION, CARD
from speechbrain_ext.metrics.bootstrap import threshold_interval
from speechbrain_ext.metrics.detection import DetectionCurve
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path


class Tuning(NamedTuple):
    """A threshold and how sure it is.

    Arguments
    ---------
    threshold : float
        Score above which two utterances are of one speaker.
    interval : tuple of float
        95 % bootstrap interval of the threshold, over speakers.
    far : float
        False acceptance rate of the trials at the threshold.
    frr : float
        False rejection rate.
    point : str
        The operating point, for people.
    """

    threshold: float
    interval: tuple
    far: float
    frr: float
    point: str


def speakers_of(trials):
    """Speakers of utterances, as far as the target trials tell.

    Utterances of a target trial are of one speaker, and so are those that a chain of
    target trials links.

    Arguments
    ---------
    trials : Trials
        Trial list with labels.

    Returns
    -------
    dict
        For each utterance a name of its speaker, which is one of its utterances.

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> speakers_of(Trials([1, 1, 0], ["a1", "a2", "a1"], ["a2", "a3", "b1"]))
    {'a1': 'a3', 'a2': 'a3', 'a3': 'a3', 'b1': 'b1'}
    """
    link = {name: name for pair in zip(trials.enrol, trials.test) for name in pair}

    def find(name):
        while link[name] != name:
            link[name] = name = link[link[name]]
        return name

    for label, enrol, test in zip(trials.labels, trials.enrol, trials.test):
        if label:
            link[find(enrol)] = find(test)
    return {name: find(name) for name in sorted(link)}


def tune(trials, scores, far=None, costs=None):
    """Chooses the threshold of a trial list.

    Arguments
    ---------
    trials : Trials
        Trial list with labels.
    scores : torch.Tensor
        Scores, of shape (n_trial,).
    far : float
        The false acceptance rate that must not be exceeded.
    costs : dict
        p_target, c_miss and c_fa of a detection cost that is to be least. Without
        far and costs the threshold is that of the EER.

    Returns
    -------
    Tuning
        The threshold.

    Raises
    ------
    InputError
        If both far and costs are given, or no score has the rate.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> trials = Trials(
    ...     [1, 1, 0, 0], ["a1", "b1", "a1", "b1"], ["a2", "b2", "b2", "a2"]
    ... )
    >>> tune(trials, torch.tensor([0.9, 0.8, 0.2, 0.1])).frr
    0.0
    """
    if far is not None and costs:
        raise InputError("give a false acceptance rate or costs, not both")
    if far is not None:
        point = f"FAR {100 * far:g} %"
    elif costs:
        point = "minDCF at " + ", ".join(f"{k}={v:g}" for k, v in costs.items())
    else:
        point = "EER"

    def choose(curve):
        if far is not None:
            return curve.threshold_at_far(far)
        return curve.min_dcf(**costs)[1] if costs else curve.eer()[1]

    target, nontarget = trials.split_by_label(scores)
    threshold = choose(DetectionCurve(target, nontarget))
    speaker_of = speakers_of(trials)
    interval = threshold_interval(
        scores,
        trials.labels,
        [speaker_of[name] for name in trials.enrol],
        [speaker_of[name] for name in trials.test],
        choose,
    )
    return Tuning(
        threshold,
        interval,
        (nontarget > threshold).double().mean().item(),
        (target <= threshold).double().mean().item(),
        point,
    )


def keep_scoring(folder, scoring):
    """Writes how a model decides into its folder, and into its card.

    Arguments
    ---------
    folder : str or Path
        Folder that `export_model` wrote.
    scoring : ModelScoring
        How the model decides now.
    """
    folder = Path(folder)
    scoring.save(folder / CALIBRATION)
    card = folder / CARD
    if card.is_file():
        text = with_decision(card.read_text(encoding="utf-8"), scoring)
        with atomic_path(card) as partial:
            partial.write_text(text, encoding="utf-8")


def score_trials(model, trials, store):
    """Scores trials as the model scores pairs.

    Arguments
    ---------
    model : SpeakerRecognition
        The model.
    trials : Trials
        Trial list with utterances of the store.
    store : EmbeddingStore
        Store with embeddings and durations.

    Returns
    -------
    torch.Tensor
        Scores, of shape (n_trial,).
    """
    matched = match_utterances(trials, store.ids, "the trial list")
    # The threshold is what is sought: any will do.
    return model.scoring.score(store, matched, threshold=0.0).score

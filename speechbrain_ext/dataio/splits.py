"""Splits of the speakers, which have none in common."""

import random

from speechbrain.utils.logger import get_logger

from speechbrain_ext.utils.errors import InputError

logger = get_logger(__name__)


def split_speakers(
    dataset,
    utterances,
    given_trials,
    valid_speakers,
    test_speakers,
    seed,
    attributes_of=None,
):
    """Splits the speakers into disjoint train, valid and test sets.

    Speakers of a given trial list belong to its split, and so do those whose
    corpus says it; for the other splits speakers are drawn among those with
    two utterances or more.

    Arguments
    ---------
    dataset : str
        See `prepare_corpus`.
    utterances : list of Utterance
        The usable ones.
    given_trials : dict
        Trials of "valid" and "test", where given.
    valid_speakers : float or int
        Share or number of speakers held out for validation.
    test_speakers : float or int
        Share or number of speakers held out for the test.
    seed : int
        Seed of the draw.
    attributes_of : dict
        For each speaker a mapping; the speakers of a split are spread evenly
        over its values and over the numbers of utterances. If empty, they are
        drawn at random.

    Returns
    -------
    dict
        Set of speakers of "train", "valid" and "test".

    Raises
    ------
    InputError
        If no speakers are left for training or a split cannot be made.
    """
    n_utterances = {}
    for utterance in utterances:
        n_utterances.setdefault(utterance.speaker, 0)
        n_utterances[utterance.speaker] += 1
    speaker_of = {u.id: u.speaker for u in utterances}
    speakers = {
        split: {speaker_of[name] for name in trials.utterances() if name in speaker_of}
        for split, trials in given_trials.items()
    }
    for utterance in utterances:
        if utterance.split in ("valid", "test") and (
            utterance.split not in given_trials
        ):
            speakers.setdefault(utterance.split, set()).add(utterance.speaker)
    free = set(n_utterances).difference(*speakers.values())
    free &= {u.speaker for u in utterances if u.trainable}
    single = sorted(s for s in free if n_utterances[s] == 1)
    if single:
        logger.warning(
            f"{len(single)} speakers have one utterance and serve in training "
            f"only: {', '.join(single[:5])}{' ...' if len(single) > 5 else ''}"
        )
    drawable = sorted(free - set(single))
    rng = random.Random(seed)
    rng.shuffle(drawable)
    if attributes_of:
        # What is not known of a speaker comes first.
        drawable.sort(
            key=lambda s: ([*attributes_of.get(s, {}).values()], n_utterances[s])
        )
    # By rank of the split, so that a share means the same with given lists.
    for split, wanted in (("test", test_speakers), ("valid", valid_speakers)):
        if split in speakers:
            continue
        n_wanted = (
            max(2, round(wanted * len(free))) if isinstance(wanted, float) else wanted
        )
        if n_wanted < 2 or n_wanted > len(drawable):
            raise InputError(
                f"{split}_speakers={wanted}: the trials need 2 or more of the "
                f"{len(drawable)} speakers that have two utterances"
            )
        speakers[split] = set(
            _spread(drawable, n_wanted, rng) if attributes_of else drawable[:n_wanted]
        )
        drawable = [s for s in drawable if s not in speakers[split]]
    held_out = speakers["valid"] | speakers["test"]
    speakers["train"] = free - held_out
    if len(speakers["train"]) < 2:
        raise InputError(
            f"dataset {dataset}: {len(speakers['train'])} speaker(s) are left "
            f"for training once the {len(held_out)} of the trial lists are "
            "held out; train on other speakers than the test list's"
        )
    check_disjoint(speakers["train"], held_out)
    return speakers


def _spread(ordered, n_wanted, rng):
    """Every so many-th of a list, from a random start on."""
    step = len(ordered) / n_wanted
    start = rng.random() * step
    return [ordered[int(start + place * step)] for place in range(n_wanted)]


def select_attributes(attributes_of, names):
    """Takes some attributes of each speaker.

    Arguments
    ---------
    attributes_of : dict
        For each speaker a mapping.
    names : tuple of str
        Attributes to take.

    Returns
    -------
    dict
        For each speaker a mapping of these; empty if there are no names.

    Example
    -------
    >>> select_attributes({"p225": {"gender": "F", "age": "23"}}, ("age",))
    {'p225': {'age': '23'}}
    """
    if not names:
        return {}
    return {
        speaker: {name: attributes[name] for name in names}
        for speaker, attributes in attributes_of.items()
    }


def check_disjoint(train_speakers, trial_speakers):
    """Checks that no speaker of the trials was trained on.

    Arguments
    ---------
    train_speakers : set of str
        Speakers of the training set.
    trial_speakers : set of str
        Speakers of a trial list.

    Raises
    ------
    InputError
        If they have speakers in common; the first ones are named.

    Example
    -------
    >>> check_disjoint({"a", "b"}, {"c"})
    """
    common = sorted(set(train_speakers) & set(trial_speakers))
    if common:
        raise InputError(
            f"{len(common)} speakers of the trials were trained on: "
            f"{', '.join(common[:5])}{' ...' if len(common) > 5 else ''}; "
            "error rates on them mean nothing"
        )

"""Enrolments: which utterances a model is made of."""

from pathlib import Path

from speechbrain_ext.dataio.trials import Trials, match_utterances
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import find_same_names, read_fields, write_fields


def read_enrolments(path):
    """Reads `model utterance utterance ...` lines, as Kaldi's spk2utt.

    Fields are those of `speechbrain_ext.utils.fields`.

    Arguments
    ---------
    path : str or Path
        File with a model a line.

    Returns
    -------
    dict
        Utterance ids of each model.

    Raises
    ------
    InputError
        If the file is missing or empty, or a model has no utterance, comes
        twice, or has an utterance twice.

    Example
    -------
    >>> path = getfixture("tmpdir") / "enrol.txt"
    >>> path.write_text("anna a/1.wav a/2.wav\\n", "utf-8")
    >>> read_enrolments(path)
    {'anna': ['a/1.wav', 'a/2.wav']}
    """
    enrolments = {}
    for number, (model, *utterances) in read_fields(path, "enrolment file"):
        if not utterances or model in enrolments:
            raise InputError(
                f"'{path}', line {number}: model '{model}' "
                + ("comes twice" if utterances else "has no utterance")
            )
        if len(set(utterances)) < len(utterances):
            raise InputError(
                f"'{path}', line {number}: model '{model}' has an utterance "
                "twice; name each once"
            )
        enrolments[model] = utterances
    if not enrolments:
        raise InputError(
            f"'{path}' has no enrolments; a line is 'model utterance utterance ...'"
        )
    return enrolments


def write_enrolments(path, enrolments):
    """Writes `model utterance utterance ...` lines, atomically.

    Arguments
    ---------
    path : str or Path
        File to write.
    enrolments : dict
        Utterance ids of each model.

    Example
    -------
    >>> path = getfixture("tmpdir") / "enrol.txt"
    >>> write_enrolments(path, {"anna": ["a/1.wav", "a/2.wav"]})
    >>> read_enrolments(path)
    {'anna': ['a/1.wav', 'a/2.wav']}
    """
    write_fields(path, ([model, *names] for model, names in enrolments.items()))


def enrolment_path(trial_list):
    """Where the enrolments of a prepared trial list are, if it has any.

    Arguments
    ---------
    trial_list : str or Path
        See `manifest_paths`.

    Returns
    -------
    Path
        Beside it.

    Example
    -------
    >>> print(enrolment_path("save/test_trials.txt"))
    save/test_enrolments.txt
    """
    trial_list = Path(trial_list)
    stem = trial_list.stem.removesuffix("_trials")
    return trial_list.with_name(f"{stem}_enrolments.txt")


def require_enrolled(trials, enrolments):
    """Checks that each model of a trial list is enrolled.

    Arguments
    ---------
    trials : Trials
        Trial list with models as enrolment ids.
    enrolments : dict
        Utterance ids of each model.

    Raises
    ------
    InputError
        If models are missing.

    Example
    -------
    >>> require_enrolled(Trials([1], ["anna"], ["a/3.wav"]), {"anna": ["a/1.wav"]})
    """
    missing = sorted(set(trials.enrol) - set(enrolments))
    if missing:
        raise InputError(
            f"{len(missing)} models of the trials are not enrolled: "
            f"{', '.join(missing[:5])}; add them to the enrolments"
        )


def match_models(trials, enrolments):
    """Replaces the models of a trial list by enrolled ones that mean the same.

    Arguments
    ---------
    trials : Trials
        Trial list with models as enrolment ids.
    enrolments : dict
        Utterance ids of each model.

    Returns
    -------
    Trials
        With the models' names as they are in the enrolments, in NFC or NFD.

    Raises
    ------
    InputError
        If models are missing.

    Example
    -------
    >>> trials = Trials([1], ["Jose\\u0301"], ["a/3.wav"])
    >>> match_models(trials, {"Jos\\u00e9": ["a/1.wav"]}).enrol == ["Jos\\u00e9"]
    True
    """
    same = find_same_names(trials.enrol, enrolments)
    models = [same.get(name, name) for name in trials.enrol]
    trials = Trials(trials.labels, models, trials.test)
    require_enrolled(trials, enrolments)
    return trials


def trial_utterances(trials, enrolments=None):
    """The utterances that a trial list compares.

    Arguments
    ---------
    trials : Trials
        Trial list.
    enrolments : dict
        Utterance ids of each model, where the enrolment ids are models.

    Returns
    -------
    set of str
        Utterance ids.

    Example
    -------
    >>> trials = Trials([1], ["anna"], ["a/3"])
    >>> sorted(trial_utterances(trials, {"anna": ["a/1", "a/2"]}))
    ['a/1', 'a/2', 'a/3']
    """
    if enrolments is None:
        return trials.utterances()
    require_enrolled(trials, enrolments)
    enrolled = (enrolments[model] for model in set(trials.enrol))
    return set(trials.test).union(*enrolled)


def match_trials(trials, enrolments, utterances, source):
    """Replaces the ids of a trial list and its enrolments by known utterances.

    Arguments
    ---------
    trials : Trials
        Trial list with ids as in the list.
    enrolments : dict
        Utterance ids of each model, where the enrolment ids are models; None or
        empty where they are utterances.
    utterances : iterable of str
        Known ids.
    source : str or Path
        The trial list, for messages.

    Returns
    -------
    trials : Trials
        What `match_utterances` returned; models keep their names.
    enrolments : dict or None
        Enrolments of the models of the trials, with known ids.

    Raises
    ------
    InputError
        If models are not enrolled or utterances unknown.

    Example
    -------
    >>> trials, known = Trials([1], ["anna"], ["a/3"]), ["a/1.wav", "a/3.wav"]
    >>> trials, enrolments = match_trials(trials, {"anna": ["a/1"]}, known, "list")
    >>> trials.test, enrolments
    (['a/3.wav'], {'anna': ['a/1.wav']})
    """
    if not enrolments:
        return match_utterances(trials, utterances, source), enrolments
    trials = match_models(trials, enrolments)
    named = sorted(trial_utterances(trials, enrolments))
    found = match_utterances(Trials([1] * len(named), named, named), utterances, source)
    known = dict(zip(named, found.enrol))
    return (
        Trials(trials.labels, trials.enrol, [known[name] for name in trials.test]),
        {
            model: [known[name] for name in enrolments[model]]
            for model in sorted(set(trials.enrol))
        },
    )

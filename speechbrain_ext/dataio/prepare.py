"""Prepares a corpus: manifests and trial lists for a recipe.

`prepare_corpus` lists the utterances of a corpus, leaves broken files out,
splits the speakers into train, valid and test, and writes

- train.csv, valid.csv, test.csv: id, wav, speaker, duration (seconds);
- valid_trials.txt, test_trials.txt: trial lists in VoxCeleb's format;
- test_enrolments.txt: where the test has models of several utterances, those;
- broken_files.csv: what was left out, and why;
- prepared.json: all that these depend on. If nothing of it changed, the next
  call returns at once.

What is particular to a corpus is in its module of `dataio.corpora`.
"""

import dataclasses
import hashlib
import os
from pathlib import Path

from speechbrain.utils.logger import get_logger

from speechbrain_ext._moved import find_moved
from speechbrain_ext.dataio import manifests
from speechbrain_ext.dataio.broken_files import drop_broken
from speechbrain_ext.dataio.corpora import get_corpus, parts, published_trials
from speechbrain_ext.dataio.downloads import download
from speechbrain_ext.dataio.enrolments import (
    enrolment_path,
    match_trials,
    read_enrolments,
    write_enrolments,
)
from speechbrain_ext.dataio.settings import DataSettings
from speechbrain_ext.dataio.splits import (
    check_disjoint,
    select_attributes,
    split_speakers,
)
from speechbrain_ext.dataio.trials import (
    draw_trials,
    match_utterances,
    read_trials,
    write_trials,
)
from speechbrain_ext.utils.cache_keys import differences, stable_hash
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import read_json, write_json

logger = get_logger(__name__)

# To be raised when the same files and settings give other manifests
VERSION = 3
KEY_FILE = "prepared.json"


def __getattr__(name):
    return find_moved(__name__, name)


def prepare_corpus(dataset, data_folder, save_folder, **settings):
    """Writes manifests and trial lists, unless they are up to date.

    Arguments
    ---------
    dataset : str
        Name of the corpus, as in `DataSettings`.
    data_folder : str or list of str
        Root of the corpus, or several of them.
    save_folder : str
        Where to write.
    **settings
        The other keys of `DataSettings`.

    Returns
    -------
    dict
        Paths of the manifests (train, valid, test) and trial lists
        (valid_trials, test_trials).

    Raises
    ------
    InputError
        If a setting makes no sense, or the corpus or the trial lists cannot
        be used.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> root = Path(getfixture("tmpdir"))
    >>> for speaker in range(10):
    ...     for utterance in range(4):
    ...         path = root / f"data/spk{speaker}/{utterance}.wav"
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         soundfile.write(path, np.zeros(16000), 16000)
    >>> paths = prepare_corpus(
    ...     "folder", root / "data", root / "save",
    ...     valid_speakers=2, test_speakers=2,
    ... )
    >>> train = manifests.read_manifest(paths["train"])
    >>> len(train), len(read_trials(paths["test_trials"]))
    (24, 24)
    """
    settings = DataSettings(dataset, data_folder, **settings)
    paths = manifests.manifest_paths(save_folder)
    corpus, roots = get_corpus(dataset), settings.roots
    seed = settings.seed if corpus.split_seed is None else corpus.split_seed
    corpus.build(roots)
    sources = corpus.trial_sources(
        settings.verification_file, settings.valid_verification_file
    )
    utterances, left_out = corpus.list_utterances(roots)
    speakers_of_corpus = _speakers(corpus, roots)
    attributes_of = select_attributes(speakers_of_corpus, corpus.balanced)
    part = parts().get(sources["valid"])
    if (
        part is not None
        and settings.valid_verification_file is None
        and not _speakers_of(part, utterances)
    ):
        logger.warning(
            f"data_folder has none of {part.description}, which usually validate: "
            "training speakers are held out for it."
        )
        sources["valid"] = None
    trial_lists = {
        split: _trial_list(corpus, source, roots, save_folder)
        for split, source in sources.items()
        if not _is_drawn(source, split, utterances)
    }
    key = _preparation_key(
        {**dataclasses.asdict(settings), "save_folder": save_folder},
        utterances,
        trial_lists,
    )
    key_file = Path(save_folder) / KEY_FILE
    changed = _what_has_changed(save_folder, key, paths)
    if changed == []:
        logger.info(f"Data preparation in {save_folder} is up to date.")
        return paths
    if changed:
        logger.info(
            f"The data in {save_folder} is of other {', '.join(changed)}: prepared "
            "again."
        )

    given_trials = {
        split: match_utterances(
            _read_trials(corpus, sources[split], path),
            [u.id for u in utterances],
            path,
        )
        for split, path in trial_lists.items()
    }
    utterances = drop_broken(
        utterances,
        settings.sample_rate,
        settings.min_duration,
        settings.allow_broken,
        save_folder,
        left_out,
    )
    speakers = split_speakers(
        dataset,
        utterances,
        given_trials,
        settings.valid_speakers,
        settings.test_speakers,
        seed,
        select_attributes(speakers_of_corpus, corpus.stratified),
    )
    speaker_of = {u.id: u.speaker for u in utterances}
    # From here on the files are a mixture, should a kill fall among them.
    key_file.unlink(missing_ok=True)
    for split, n_trials in (
        ("valid", settings.n_valid_trials),
        ("test", settings.n_test_trials),
    ):
        if split in given_trials:
            trials = match_utterances(
                given_trials[split], speaker_of, trial_lists[split]
            )
        else:
            held_out = {
                utterance: speaker
                for utterance, speaker in speaker_of.items()
                if speaker in speakers[split]
            }
            trials = _draw(sources[split], held_out, n_trials, seed, attributes_of)
        enrolments = {}
        if split == "test" and sources[split] in corpus.own_trials:
            enrolments = _enrolments(corpus, roots, trials, speaker_of)
        _write_split(save_folder, split, trials, utterances, enrolments)
    train = [u for u in utterances if u.trainable and u.speaker in speakers["train"]]
    manifests.write_manifest(paths["train"], train)
    write_json(key_file, {"key": key})
    hours = sum(u.duration for u in train) / 3600
    logger.info(
        f"Prepared {len(train)} training utterances ({hours:.2f} h) of "
        f"{len(speakers['train'])} speakers in {save_folder}."
    )
    return paths


def resolve_test_trials(dataset, verification_file=None, valid_verification_file=None):
    """The test trials of a corpus, unless others are given.

    Arguments
    ---------
    dataset : str
        See `DataSettings`, as for the others.
    verification_file : str
        Test trials, if given.
    valid_verification_file : str
        Validation trials, if given.

    Returns
    -------
    str or None
        Name, path or URL of the list; None where trials are drawn.

    Example
    -------
    >>> resolve_test_trials("voxceleb1"), resolve_test_trials("voxceleb2")
    ('vox1-o', 'vox2-test')
    """
    corpus = get_corpus(dataset)
    return corpus.trial_sources(verification_file, valid_verification_file)["test"]


def prepare_trials(
    dataset,
    data_folder,
    save_folder,
    n_trials=10000,
    train_speakers=(),
    enrolment_file=None,
    **settings,
):
    """Writes the manifest of a trial list, for a model trained elsewhere.

    Arguments
    ---------
    dataset : str
        Name of the corpus, as in `DataSettings`.
    data_folder : str or list of str
        Root of the corpus, or several of them.
    save_folder : str
        Where to write.
    n_trials : int
        Trials to draw, where they are drawn: from the test part where the
        corpus has one, else from all speakers.
    train_speakers : iterable of str
        Speakers that the model was trained on.
    enrolment_file : str
        Lines `model utterance utterance ...`, where the enrolment ids of
        verification_file are models.
    **settings
        Other keys of `DataSettings`.

    Returns
    -------
    manifest : str
        Path of the manifest.
    trial_list : str
        Path of the trial list.

    Raises
    ------
    InputError
        If a setting makes no sense, the corpus or the trial list cannot be
        used, or the model was trained on speakers of the trials.
    """
    settings = DataSettings(dataset, data_folder, n_test_trials=n_trials, **settings)
    corpus, roots = get_corpus(dataset), settings.roots
    corpus.build(roots)
    source = corpus.trial_sources(settings.verification_file)["test"]
    utterances, left_out = corpus.list_utterances(roots)
    attributes_of = select_attributes(_speakers(corpus, roots), corpus.balanced)
    path = None
    enrolments = {} if enrolment_file is None else read_enrolments(enrolment_file)
    if not _is_drawn(source, "test", utterances):
        path = _trial_list(corpus, source, roots, save_folder)
        known = {u.id: u.speaker for u in utterances}
        trials, enrolments = match_trials(
            _read_trials(corpus, source, path), enrolments, known, path
        )
        if source in corpus.own_trials and not enrolments:
            enrolments = _enrolments(corpus, roots, trials, known)
        used = trials.utterances().union(*enrolments.values())
        utterances = [u for u in utterances if u.id in used]
    elif any(u.split == "test" for u in utterances):
        utterances = [u for u in utterances if u.split == "test"]
    utterances = drop_broken(
        utterances,
        settings.sample_rate,
        settings.min_duration,
        settings.allow_broken,
        save_folder,
        left_out,
    )
    speaker_of = {u.id: u.speaker for u in utterances}
    if path and enrolment_file is not None:
        trials, enrolments = match_trials(trials, enrolments, speaker_of, path)
    elif path:
        trials = match_utterances(trials, speaker_of, path)
        if enrolments:
            enrolments = _enrolments(corpus, roots, trials, speaker_of)
    elif enrolments:
        raise InputError(
            f"enrolments '{enrolment_file}' need a verification_file, the trials "
            "of their models"
        )
    else:
        trials = _draw(source, speaker_of, n_trials, settings.seed, attributes_of)
    used = trials.utterances().union(*enrolments.values())
    check_disjoint(train_speakers, {speaker_of[u] for u in used if u in speaker_of})
    _write_split(save_folder, "test", trials, utterances, enrolments)
    paths = manifests.manifest_paths(save_folder)
    return paths["test"], paths["test_trials"]


def prepared_key(save_folder):
    """All that the files which `prepare_corpus` has written depend on.

    Arguments
    ---------
    save_folder : str or Path
        Where it has written.

    Returns
    -------
    dict or None
        Plain data; None where nothing is prepared.
    """
    path = Path(save_folder) / KEY_FILE
    if not path.is_file():
        return None
    return read_json(path).get("key")


def list_utterances(dataset, data_folder):
    """Lists the audio files of a corpus without opening them.

    Arguments
    ---------
    dataset : str
        See `DataSettings`.
    data_folder : str or list of str
        Root of the corpus, or several of them.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    InputError
        If the dataset is unknown, or a folder is missing or has no audio.
    """
    settings = DataSettings(dataset, data_folder)
    utterances, _ = get_corpus(dataset).list_utterances(settings.roots)
    return utterances


def _speakers(corpus, roots):
    """Attributes of all speakers, where trials or splits go by any."""
    if not corpus.balanced and not corpus.stratified:
        return {}
    return {
        speaker: attributes
        for root in roots
        for speaker, attributes in corpus.speakers(root).items()
    }


def _is_drawn(source, split, utterances):
    """Whether trials are drawn; marks the speakers of a part for that."""
    if source not in parts():
        return source is None
    part = parts()[source]
    speakers = _speakers_of(part, utterances)
    if not speakers:
        raise InputError(
            f"{split} trials: data_folder has none of {part.description}; add its "
            "folder, or give other trials as verification_file, such as vox1-o"
        )
    for utterance in utterances:
        if utterance.speaker in speakers:
            utterance.split = split
    return True


def _draw(source, speaker_of, n_trials, seed, attributes_of):
    part = parts().get(source)
    if part is not None and part.draw is not None:
        return part.draw(speaker_of, seed)
    return draw_trials(speaker_of, n_trials, seed, attributes_of)


def _speakers_of(part, utterances):
    return part.speakers.intersection(u.speaker for u in utterances)


def _trial_list(corpus, source, roots, save_folder):
    """Path of a trial list of the corpus, of the web or of the user."""
    if source not in corpus.own_trials:
        return local_trial_list(source, save_folder)
    below = corpus.own_trials[source]
    for root in roots:
        if (root / below).is_file():
            return str(root / below)
    raise InputError(
        f"trials {source}: data_folder has no {below}; add the root that has it, "
        "or give other trials as verification_file"
    )


def _read_trials(corpus, source, path):
    own = source in corpus.own_trials
    return corpus.read_own_trials(path) if own else read_trials(path)


def local_trial_list(source, save_folder):
    """Downloads a trial list, unless it is a file.

    Arguments
    ---------
    source : str
        Name of a list on the web, such as "vox1-o", a URL or a path.
    save_folder : str or Path
        Where to save downloads.

    Returns
    -------
    str
        Path of the list.

    Raises
    ------
    InputError
        If the download fails, or is no trial list.

    Example
    -------
    >>> local_trial_list("my_trials.txt", "save")
    'my_trials.txt'
    """
    published = published_trials().get(source)
    url, md5 = (published.url, published.md5) if published else (str(source), None)
    if not url.startswith(("http://", "https://")):
        return url
    try:
        return str(download(url, save_folder, read_trials, md5))
    except InputError as error:
        raise InputError(
            f"the trial list {error}; fetch it elsewhere and give its path as "
            "verification_file"
        ) from None


def _enrolments(corpus, roots, trials, known):
    """Utterances of the trials' models, as far as they are known."""

    def stem(name):
        return name.rpartition(".")[0]

    id_of = {stem(name): name for name in known}
    models = {stem(name): name for name in trials.enrol}
    return {
        models[model]: [id_of[stem(n)] for n in names if stem(n) in id_of]
        for root in roots
        for model, names in corpus.enrolments(root).items()
        if model in models and any(stem(n) in id_of for n in names)
    }


def _write_split(save_folder, split, trials, utterances, enrolments):
    """Writes trial list, manifest and, where there are any, enrolments."""
    paths = manifests.manifest_paths(save_folder)
    write_trials(paths[f"{split}_trials"], trials)
    used = trials.utterances().union(*enrolments.values())
    manifests.write_manifest(paths[split], [u for u in utterances if u.id in used])
    path = enrolment_path(paths[f"{split}_trials"])
    if enrolments:
        write_enrolments(path, enrolments)
    else:
        path.unlink(missing_ok=True)


def _preparation_key(settings, utterances, trial_lists):
    """All that the prepared files depend on, as plain data."""
    key = {
        **{name: _plain(value) for name, value in settings.items()},
        "version of this module": VERSION,
        "audio files": stable_hash([(u.wav, u.stamp, u.fault) for u in utterances]),
    }
    for split, path in trial_lists.items():
        if Path(path).is_file():
            content = Path(path).read_bytes()
            key[f"{split} trial list"] = hashlib.sha256(content).hexdigest()
    return key


def _plain(value):
    if isinstance(value, (list, tuple)):
        return list(map(_plain, value))
    if isinstance(value, (str, Path)):
        # A name that is not UTF-8 cannot stand in a JSON file.
        return os.fspath(value).encode("utf-8", "backslashreplace").decode()
    return value


def _what_has_changed(save_folder, key, paths):
    """Names it; empty if nothing has, None if nothing is prepared."""
    kept = prepared_key(save_folder)
    if kept is None or not all(map(os.path.isfile, paths.values())):
        return None
    # Earlier releases kept a hash.
    return differences(kept, key) if isinstance(kept, dict) else ["release"]

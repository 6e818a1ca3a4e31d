"""Prepares a corpus: manifests and trial lists for a recipe.

`prepare_corpus` lists the utterances of a folder, leaves broken files out,
splits the speakers into train, valid and test, and writes

- train.csv, valid.csv, test.csv: id, wav, speaker, duration (seconds);
- valid_trials.txt, test_trials.txt: trial lists in VoxCeleb's format;
- broken_files.csv: what was left out, and why;
- prepared.json: all that these depend on. If nothing of it changed, the next
  call returns at once.
"""

import concurrent.futures
import csv
import dataclasses
import hashlib
import json
import os
import random
import re
import urllib.request
from pathlib import Path

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_ext.dataio.audio import AUDIO_EXTENSIONS, read_header
from speechbrain_ext.dataio.corpora.demo import build_demo_corpus
from speechbrain_ext.dataio.corpora.layouts import (
    VOXCELEB2_TEST_SPEAKERS,
    librispeech_files,
    librispeech_speakers,
    vctk_files,
    vctk_speakers,
)
from speechbrain_ext.dataio.enrolments import (
    enrolment_path,
    match_trials,
    read_enrolments,
    trial_utterances,
    write_enrolments,
)
from speechbrain_ext.dataio.trials import (
    draw_trials,
    match_utterances,
    read_trials,
    write_trials,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path, write_json

logger = get_logger(__name__)

SPLITS = ("train", "valid", "test")
VOXCELEB_SPEAKERS = {
    "voxceleb1": range(10001, 11252),
    "voxceleb2": range(1, 10001),
    "voxceleb12": range(1, 11252),
}
OWN_LAYOUTS = {"vctk": vctk_files, "librispeech": librispeech_files}
# Of the speakers' attributes, those that non-target trials are balanced over
BALANCED = {
    "vctk": (vctk_speakers, ("gender", "accent")),
    "librispeech": (librispeech_speakers, ("gender",)),
}
DATASETS = ("folder", *VOXCELEB_SPEAKERS, *OWN_LAYOUTS, "demo")
VOXCELEB_TRIALS_URL = (
    "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/{}.txt"
)
VOXCELEB_TRIALS = {
    "vox1-o": VOXCELEB_TRIALS_URL.format("veri_test2"),
    "vox1-e": VOXCELEB_TRIALS_URL.format("list_test_all2"),
    "vox1-h": VOXCELEB_TRIALS_URL.format("list_test_hard2"),
}
# The trials that go with the training speakers (arXiv 2409.07770); those of
# vox2-test are drawn from the test part of VoxCeleb2
VOXCELEB_TEST = {
    "voxceleb1": "vox1-o",
    "voxceleb2": "vox2-test",
    "voxceleb12": "vox1-o",
}
VOXCELEB_VALID = {"vox2-test": "vox1-o"}
# Folders between a VoxCeleb root and the speakers, as people unpack it.
VOXCELEB_ROOTS = (
    "wav", "aac", "dev/wav", "dev/aac", "test/wav", "test/aac", "."
)  # fmt: skip
EXPECTED = {
    "folder": "<root>/<speaker>/**/<audio file> with one of "
    + ", ".join(AUDIO_EXTENSIONS),
    "voxceleb1": "wav/idNNNNN/<session>/NNNNN and one of "
    + ", ".join(AUDIO_EXTENSIONS),
    "vctk": "wav48/pNNN/pNNN_NNN.wav or "
    "wav48_silence_trimmed/pNNN/pNNN_NNN_mic1.flac",
    "librispeech": "<part>/<speaker>/<chapter>/*.flac",
}
MANIFEST_FIELDS = ("id", "wav", "speaker", "duration")


@dataclasses.dataclass
class Utterance:
    """An audio file of a corpus.

    Arguments
    ---------
    id : str
        Path below the speakers' root, with slashes.
    wav : str
        Path of the file.
    speaker : str
        Speaker.
    stamp : tuple
        Size and modification time of the file.
    trainable : bool
        False in the test part of VoxCeleb2 and the dev and test parts of
        LibriSpeech, which are never trained on.
    split : str
        valid or test, where the corpus says so.
    duration : float
        In seconds.
    """

    id: str
    wav: str
    speaker: str
    stamp: tuple
    trainable: bool = True
    split: str | None = None
    duration: float = 0.0


def prepare_corpus(
    dataset,
    data_folder,
    save_folder,
    sample_rate=16000,
    verification_file=None,
    valid_verification_file=None,
    valid_speakers=0.1,
    test_speakers=0.1,
    n_valid_trials=10000,
    n_test_trials=10000,
    min_duration=0.5,
    allow_broken=False,
    seed=1986,
):
    """Writes manifests and trial lists, unless they are up to date.

    Arguments
    ---------
    dataset : str
        "folder" for <root>/<speaker>/**/<audio>; "voxceleb1", "voxceleb2" or
        "voxceleb12" for the speakers to train on, in VoxCeleb's layout;
        "vctk", release 0.80 or 0.92; "librispeech", whose dev and test parts
        are the valid and test sets; "demo" for synthetic voices, which are
        made if need be.
    data_folder : str or list of str
        Root of the corpus, or several of them.
    save_folder : str
        Where to write.
    sample_rate : int
        Of the model, in Hz; other files are resampled when read.
    verification_file : str
        Test trials in VoxCeleb's format: "vox1-o", "vox1-e", "vox1-h"
        (cleaned), a path or a URL; or "vox2-test", drawn from the test part
        of VoxCeleb2. Their speakers are kept out of training. If None,
        Vox1-O for the training speakers of VoxCeleb1, "vox2-test" for those
        of VoxCeleb2, else drawn from held-out speakers.
    valid_verification_file : str
        Validation trials likewise. If None, for VoxCeleb "vox2-test", or Vox1-O
        where the test is on that; where the data lacks that part, and for
        other corpora, drawn from held-out speakers.
    valid_speakers : float or int
        Share or number of speakers held out for validation.
    test_speakers : float or int
        Share or number of speakers held out for the test.
    n_valid_trials : int
        Validation trials to draw.
    n_test_trials : int
        Test trials to draw.
    min_duration : float
        Shorter files, in seconds, count as broken.
    allow_broken : bool
        Whether to go on when more than 1 % of the files are broken.
    seed : int
        Of the split and the draws.

    Returns
    -------
    dict
        Paths of the manifests (train, valid, test) and trial lists
        (valid_trials, test_trials).

    Raises
    ------
    InputError
        If the corpus or the trial lists cannot be used.

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
    >>> len(read_manifest(paths["train"])), len(read_trials(paths["test_trials"]))
    (24, 24)
    """
    settings = dict(locals())
    save_folder = Path(save_folder)
    paths = manifest_paths(save_folder)
    dataset, data_folder, sources = _with_defaults(
        dataset, data_folder, verification_file, valid_verification_file
    )
    utterances = list_utterances(dataset, data_folder)
    attributes_of = speaker_attributes(dataset, data_folder)
    if (
        valid_verification_file is None
        and sources["valid"] == "vox2-test"
        and not _has_voxceleb2_test(utterances)
    ):
        logger.warning(
            "data_folder has none of the 118 speakers of VoxCeleb2's test part, "
            "which usually validate: training speakers are held out for it."
        )
        sources["valid"] = None
    trial_lists = {
        split: local_trial_list(source, save_folder)
        for split, source in sources.items()
        if not _is_drawn(source, split, utterances)
    }
    key = _preparation_key(settings, utterances, trial_lists)
    key_file = save_folder / "prepared.json"
    if _is_prepared(key_file, key, paths):
        logger.info(f"Data preparation in {save_folder} is up to date.")
        return paths

    given_trials = {
        split: match_utterances(read_trials(path), [u.id for u in utterances], path)
        for split, path in trial_lists.items()
    }
    utterances = drop_broken(
        utterances, sample_rate, min_duration, allow_broken, save_folder
    )
    speakers = split_speakers(
        dataset, utterances, given_trials, valid_speakers, test_speakers, seed
    )
    speaker_of = {u.id: u.speaker for u in utterances}
    for split, n_trials in (
        ("valid", n_valid_trials),
        ("test", n_test_trials),
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
            trials = draw_trials(held_out, n_trials, seed, attributes_of)
        used = trials.utterances()
        write_trials(paths[f"{split}_trials"], trials)
        write_manifest(paths[split], [u for u in utterances if u.id in used])
    train = [
        u for u in utterances if u.trainable and u.speaker in speakers["train"]
    ]
    write_manifest(paths["train"], train)
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
        As in `prepare_corpus`, like the others.
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
    usual = VOXCELEB_TEST.get(dataset)
    if usual is not None and usual == valid_verification_file:
        usual = VOXCELEB_VALID.get(usual, "vox2-test")
    return verification_file or usual


def _with_defaults(dataset, data_folder, test, valid=None):
    """Makes the demo's corpus, and takes VoxCeleb's usual trials."""
    if dataset == "demo":
        dataset, (data_folder, test) = "voxceleb1", build_demo_corpus(data_folder)
    elif dataset in VOXCELEB_TEST:
        test = resolve_test_trials(dataset, test, valid)
        valid = valid or VOXCELEB_VALID.get(test, "vox2-test")
    return dataset, data_folder, {"test": test, "valid": valid}


def _is_drawn(source, split, utterances):
    """Whether trials are drawn; marks the speakers of vox2-test for that."""
    if source != "vox2-test":
        return source is None
    if not _has_voxceleb2_test(utterances):
        raise InputError(
            f"{split} trials: data_folder has none of the 118 speakers of "
            "VoxCeleb2's test part; add its folder, or give other trials as "
            "verification_file, such as vox1-o"
        )
    for utterance in utterances:
        if utterance.speaker in VOXCELEB2_TEST_SPEAKERS:
            utterance.split = split
    return True


def _has_voxceleb2_test(utterances):
    return any(u.speaker in VOXCELEB2_TEST_SPEAKERS for u in utterances)


def manifest_paths(save_folder):
    """Paths of what `prepare_corpus` writes.

    Arguments
    ---------
    save_folder : str or Path
        As of `prepare_corpus`.

    Returns
    -------
    dict
        Paths of the manifests (train, valid, test) and trial lists
        (valid_trials, test_trials).

    Example
    -------
    >>> manifest_paths("save")["test_trials"]
    'save/test_trials.txt'
    """
    save_folder = Path(save_folder)
    paths = {split: str(save_folder / f"{split}.csv") for split in SPLITS}
    for split in ("valid", "test"):
        paths[f"{split}_trials"] = str(save_folder / f"{split}_trials.txt")
    return paths


def local_trial_list(source, save_folder):
    """Downloads a trial list, unless it is a file.

    Arguments
    ---------
    source : str
        "vox1-o", "vox1-e", "vox1-h", a URL or a path.
    save_folder : str or Path
        Where to save downloads.

    Returns
    -------
    str
        Path of the list.

    Raises
    ------
    InputError
        If the download fails.

    Example
    -------
    >>> local_trial_list("my_trials.txt", "save")
    'my_trials.txt'
    """
    url = VOXCELEB_TRIALS.get(source, source)
    if not str(url).startswith(("http://", "https://")):
        return url
    path = Path(save_folder) / url.rpartition("/")[2]
    if not path.is_file():
        try:
            with atomic_path(path) as partial:
                urllib.request.urlretrieve(url, partial)
        except OSError as error:
            raise InputError(
                f"the trial list {url} could not be downloaded ({error}); "
                "fetch it elsewhere and give its path as verification_file"
            ) from None
    return str(path)


def prepare_trials(
    dataset,
    data_folder,
    save_folder,
    sample_rate=16000,
    verification_file=None,
    n_trials=10000,
    min_duration=0.5,
    allow_broken=False,
    train_speakers=(),
    seed=1986,
    enrolment_file=None,
):
    """Writes the manifest of a trial list, for a model trained elsewhere.

    Arguments
    ---------
    dataset : str
        As in `prepare_corpus`.
    data_folder : str or list of str
        Root of the corpus, or several of them.
    save_folder : str
        Where to write.
    sample_rate : int
        Of the model, in Hz.
    verification_file : str
        As in `prepare_corpus`; if None, trials are drawn from the test part
        where the corpus has one, else from all speakers.
    n_trials : int
        Trials to draw.
    min_duration : float
        Shorter files, in seconds, count as broken.
    allow_broken : bool
        Whether to go on when more than 1 % of the files are broken.
    train_speakers : iterable of str
        Speakers that the model was trained on.
    seed : int
        Of the draw.
    enrolment_file : str
        Lines `model utterance utterance ...`, where the enrolment ids of
        verification_file are models.

    Returns
    -------
    manifest : str
        Path of the manifest.
    trial_list : str
        Path of the trial list.

    Raises
    ------
    InputError
        If the corpus or the trial list cannot be used, or the model was
        trained on speakers of the trials.
    """
    dataset, data_folder, sources = _with_defaults(
        dataset, data_folder, verification_file
    )
    utterances = list_utterances(dataset, data_folder)
    attributes_of = speaker_attributes(dataset, data_folder)
    source = enrolments = None
    if enrolment_file is not None:
        enrolments = read_enrolments(enrolment_file)
    if not _is_drawn(sources["test"], "test", utterances):
        source = local_trial_list(sources["test"], save_folder)
        trials, enrolments = match_trials(
            read_trials(source), enrolments, [u.id for u in utterances], source
        )
        used = trial_utterances(trials, enrolments)
        utterances = [u for u in utterances if u.id in used]
    elif any(u.split == "test" for u in utterances):
        utterances = [u for u in utterances if u.split == "test"]
    utterances = drop_broken(
        utterances, sample_rate, min_duration, allow_broken, save_folder
    )
    speaker_of = {u.id: u.speaker for u in utterances}
    if source:
        trials, enrolments = match_trials(trials, enrolments, speaker_of, source)
    elif enrolments is not None:
        raise InputError(
            f"enrolments '{enrolment_file}' need a verification_file, the trials "
            "of their models"
        )
    else:
        trials = draw_trials(speaker_of, n_trials, seed, attributes_of)
    used = trial_utterances(trials, enrolments)
    check_disjoint(train_speakers, {speaker_of[name] for name in used})
    paths = manifest_paths(save_folder)
    enrolment_path(paths["test_trials"]).unlink(missing_ok=True)
    if enrolments is not None:
        write_enrolments(enrolment_path(paths["test_trials"]), enrolments)
    write_trials(paths["test_trials"], trials)
    write_manifest(paths["test"], [u for u in utterances if u.id in used])
    return paths["test"], paths["test_trials"]


def list_utterances(dataset, data_folder):
    """Lists the audio files of a corpus without opening them.

    Arguments
    ---------
    dataset : str
        As in `prepare_corpus`.
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
    if dataset not in DATASETS:
        raise InputError(
            f"dataset '{dataset}': use one of {', '.join(DATASETS)}"
        )
    utterances = {}
    for folder in _folders(data_folder):
        if not folder.is_dir():
            raise InputError(f"data_folder: there is no folder '{folder}'")
        n_before = len(utterances)
        found = (
            _own_layout(OWN_LAYOUTS[dataset](folder))
            if dataset in OWN_LAYOUTS
            else _speaker_folders(dataset, folder)
        )
        utterances.update({utterance.id: utterance for utterance in found})
        if len(utterances) == n_before:
            raise InputError(
                f"data_folder: no audio in '{folder}'; expected "
                + EXPECTED.get(dataset, EXPECTED["voxceleb1"])
            )
    return [utterances[name] for name in sorted(utterances)]


def _speaker_folders(dataset, folder):
    if dataset == "folder":
        yield from _audio_below(folder)
        return
    for root in _voxceleb_roots(folder):
        for utterance in _audio_below(root):
            utterance.trainable = (
                root.parent.name != "test"
                and utterance.speaker not in VOXCELEB2_TEST_SPEAKERS
            )
            yield utterance


def _own_layout(files):
    for path, name, speaker, split in files:
        trainable = split in (None, "train")
        yield _utterance(path, name, speaker, path.stat(), trainable, split)


def speaker_attributes(dataset, data_folder):
    """What the trials of a corpus are balanced over.

    Arguments
    ---------
    dataset : str
        As in `prepare_corpus`.
    data_folder : str or list of str
        Root of the corpus, or several of them.

    Returns
    -------
    dict
        For each speaker a mapping of attributes, such as gender and accent;
        empty for a corpus without them.

    Raises
    ------
    InputError
        If the corpus lacks the file of its speakers.

    Example
    -------
    >>> speaker_attributes("voxceleb1", "/data/VoxCeleb1")
    {}
    """
    if dataset not in BALANCED:
        return {}
    read, names = BALANCED[dataset]
    return {
        speaker: {name: attributes[name] for name in names}
        for folder in _folders(data_folder)
        for speaker, attributes in read(folder).items()
    }


def _folders(data_folder):
    several = isinstance(data_folder, (list, tuple))
    return list(map(Path, data_folder if several else [data_folder]))


def _voxceleb_roots(folder):
    roots = []
    for name in VOXCELEB_ROOTS:
        root = folder / name
        if root.is_dir() and any(
            re.fullmatch(r"id\d{5}", entry.name) for entry in os.scandir(root)
        ):
            roots.append(root)
    return roots


def _audio_below(root):
    pending = [root]
    while pending:
        for entry in os.scandir(pending.pop()):
            path = Path(entry.path)
            if entry.is_dir():
                pending.append(path)
            elif path.suffix.lower() in AUDIO_EXTENSIONS:
                below = path.relative_to(root)
                if len(below.parts) > 1:
                    name, speaker = below.as_posix(), below.parts[0]
                    yield _utterance(path, name, speaker, entry.stat())


def _utterance(path, name, speaker, status, trainable=True, split=None):
    return Utterance(
        name,
        str(path.absolute()),
        speaker,
        (status.st_size, status.st_mtime_ns),
        trainable,
        split,
    )


def _preparation_key(settings, utterances, trial_lists):
    """Hash of all that the prepared files depend on."""
    digest = hashlib.sha256()
    for name, value in sorted(settings.items()):
        digest.update(f"{name}={value!r}\n".encode())
    for utterance in utterances:
        digest.update(f"{utterance.wav} {utterance.stamp}\n".encode())
    for split, path in trial_lists.items():
        if Path(path).is_file():
            digest.update(split.encode() + Path(path).read_bytes())
    return digest.hexdigest()


def _is_prepared(key_file, key, paths):
    if not all(map(os.path.isfile, (key_file, *paths.values()))):
        return False
    return json.loads(key_file.read_text(encoding="utf-8")).get("key") == key


def drop_broken(
    utterances, sample_rate, min_duration, allow_broken, save_folder
):
    """Reads all headers in parallel and leaves out what cannot be used.

    Arguments
    ---------
    utterances : list of Utterance
        Gets the durations.
    sample_rate : int
        Of the model, in Hz.
    min_duration : float
        In seconds.
    allow_broken : bool
        Whether to go on when more than 1 % of the files are broken.
    save_folder : Path
        For broken_files.csv.

    Returns
    -------
    list of Utterance
        The usable ones.

    Raises
    ------
    InputError
        If more than 1 % are broken.
    """
    usable, broken = [], []
    n_resampled = n_mixed_down = 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        headers = pool.map(lambda u: _header_or_error(u.wav), utterances)
        for utterance, header in tqdm(
            zip(utterances, headers),
            total=len(utterances),
            desc="Reading headers",
            dynamic_ncols=True,
        ):
            if isinstance(header, InputError):
                broken.append((utterance.wav, str(header)))
            elif header.duration < min_duration:
                reason = f"too short: {header.duration:.2f} s"
                broken.append((utterance.wav, reason))
            else:
                utterance.duration = header.duration
                usable.append(utterance)
                n_resampled += header.sample_rate != sample_rate
                n_mixed_down += header.n_channels > 1
    if n_resampled:
        logger.warning(
            f"{n_resampled} files are not at {sample_rate} Hz and are "
            "resampled when read."
        )
    if n_mixed_down:
        logger.warning(
            f"{n_mixed_down} files are not mono and are mixed down when read."
        )
    report = Path(save_folder) / "broken_files.csv"
    with atomic_path(report) as partial:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("wav", "reason"), *broken])
    if broken:
        named = "; ".join(f"{wav} ({reason})" for wav, reason in broken[:5])
        summary = (
            f"{len(broken)} of {len(utterances)} audio files are broken and "
            f"left out: {named}{' ...' if len(broken) > 5 else ''}. "
            f"All of them: {report}"
        )
        if len(broken) > 0.01 * len(utterances) and not allow_broken:
            raise InputError(
                f"{summary}. That is more than 1 %: mend them, or go on with "
                "allow_broken: True"
            )
        logger.warning(summary)
    return usable


def _header_or_error(wav):
    try:
        return read_header(wav)
    except InputError as error:
        return error


def split_speakers(
    dataset, utterances, given_trials, valid_speakers, test_speakers, seed
):
    """Splits the speakers into disjoint train, valid and test sets.

    Speakers of a given trial list belong to its split, and so do those whose
    corpus says it; for the other splits speakers are drawn among those with
    two utterances or more.

    Arguments
    ---------
    dataset : str
        As in `prepare_corpus`.
    utterances : list of Utterance
        The usable ones.
    given_trials : dict
        Trials of "valid" and "test", where given.
    valid_speakers : float or int
        Share or number of speakers held out for validation.
    test_speakers : float or int
        Share or number of speakers held out for the test.
    seed : int
        Of the draw.

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
        split: {
            speaker_of[name]
            for name in trials.utterances()
            if name in speaker_of
        }
        for split, trials in given_trials.items()
    }
    for utterance in utterances:
        if utterance.split in ("valid", "test") and (
            utterance.split not in given_trials
        ):
            speakers.setdefault(utterance.split, set()).add(utterance.speaker)
    free = set(n_utterances).difference(*speakers.values())
    trainable = {u.speaker for u in utterances if u.trainable}
    if dataset in VOXCELEB_SPEAKERS:
        numbers = VOXCELEB_SPEAKERS[dataset]
        trainable = {s for s in trainable if int(s[2:]) in numbers}
        free &= trainable
    single = sorted(s for s in free if n_utterances[s] == 1)
    if single:
        logger.warning(
            f"{len(single)} speakers have one utterance and serve in training "
            f"only: {', '.join(single[:5])}{' ...' if len(single) > 5 else ''}"
        )
    drawable = sorted(free - set(single))
    random.Random(seed).shuffle(drawable)
    # By rank of the split, so that a share means the same with given lists.
    for split, wanted in (("test", test_speakers), ("valid", valid_speakers)):
        if split in speakers:
            continue
        n_wanted = (
            max(2, round(wanted * len(free)))
            if isinstance(wanted, float)
            else wanted
        )
        if n_wanted < 2 or n_wanted > len(drawable):
            raise InputError(
                f"{split}_speakers={wanted}: the trials need 2 or more of the "
                f"{len(drawable)} speakers that have two utterances"
            )
        speakers[split] = set(drawable[:n_wanted])
        drawable = drawable[n_wanted:]
    held_out = speakers["valid"] | speakers["test"]
    speakers["train"] = (free & trainable) - held_out
    if len(speakers["train"]) < 2:
        raise InputError(
            f"dataset {dataset}: {len(speakers['train'])} speaker(s) are left "
            f"for training once the {len(held_out)} of the trial lists are "
            "held out; train on other speakers than the test list's"
        )
    check_disjoint(speakers["train"], held_out)
    return speakers


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


def write_manifest(path, utterances):
    """Writes utterances as CSV, atomically.

    Arguments
    ---------
    path : str or Path
        File to write.
    utterances : list of Utterance
        Rows.
    """
    with atomic_path(path) as partial:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(MANIFEST_FIELDS)
            writer.writerows(
                [getattr(u, field) for field in MANIFEST_FIELDS]
                for u in utterances
            )


def read_manifest(path):
    """Reads a manifest as `DynamicItemDataset` takes it.

    SpeechBrain's own CSV reader replaces `$` in paths and reserves "ID".

    Arguments
    ---------
    path : str or Path
        CSV file of `write_manifest`.

    Returns
    -------
    dict
        For each id: wav, speaker, duration (seconds).
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        row["id"]: {
            "wav": row["wav"],
            "speaker": row["speaker"],
            "duration": float(row["duration"]),
        }
        for row in rows
    }

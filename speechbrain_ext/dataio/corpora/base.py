"""What a corpus is: its layout, splits, trial lists and speakers.

A new corpus is one module beside this one, with a subclass of `Corpus` whose
instances stand in the module's tuple `CORPORA`, and one YAML of its keys in
hparams/corpora. A function `lay_out` in the module, a `LayOut`, lets the tool
`lay_out_corpus` write other recordings in the corpus' layout.
"""

import abc
import dataclasses
import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from speechbrain_ext.dataio.audio import AUDIO_EXTENSIONS
from speechbrain_ext.dataio.trials import Trials, read_trials
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import open_text

# Folders that file servers and archives make among other people's files
SYSTEM_FOLDERS = {"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found"}
# Path and reason of what is no recording
LeftOut = list[tuple[str, str]]
# A speaker to lay out: split, utterances, and what is known of the speaker
SourceSpeaker = tuple[str, Sequence[Path], Mapping[str, str]]
# An utterance laid out: what it is made of (several files: one after the other),
# its file and the sample rate of that in Hz
LaidOut = Iterator[tuple[Path | Sequence[Path], Path, int]]


class LayOut(Protocol):
    """The function `lay_out` of a corpus' module."""

    def __call__(
        self,
        speakers: Iterable[SourceSpeaker],
        root: Path,
        n_trials: int,
        sample_rate: int,
    ) -> LaidOut:
        """Lays recordings out as the corpus is unpacked.

        Arguments
        ---------
        speakers : list of tuple
            See `speechbrain_ext.dataio.layouts.read_speakers`.
        root : Path
            Root folder of the new corpus.
        n_trials : int
            Trials to draw, where the corpus has lists of them.
        sample_rate : int
            Sample rate in Hz, where the corpus has none of its own.

        Yields
        ------
        tuple
            For each utterance the source (a list: one after the other), the target
            and its sample rate in Hz; lists and metadata are written after the
            last one.

        Raises
        ------
        InputError
            If there are more speakers than the corpus has names for.
        """
        ...


DANGLING = "a link to what is missing"


@dataclasses.dataclass
class AudioFile:
    """A file that has the name of an audio file.

    Arguments
    ---------
    path : Path
        Where it is.
    stamp : tuple
        Size and modification time; empty where there is no such file.
    identity : tuple
        Equal for two names (links) of one file.
    fault : str
        Why it cannot be used, if so.
    """

    path: Path
    stamp: tuple = ()
    identity: tuple = ()
    fault: str | None = None


@dataclasses.dataclass
class Utterance:
    """An utterance of a corpus.

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
        False for the test part of a corpus, which is never trained on.
    split : str
        valid or test, where the corpus says so.
    identity : tuple
        Equal for two names (links) of one file.
    fault : str
        Why the file cannot be used, if so.
    duration : float
        Duration in seconds.
    """

    id: str
    wav: str
    speaker: str
    stamp: tuple
    trainable: bool = True
    split: str | None = None
    identity: tuple = ()
    fault: str | None = None
    duration: float = 0.0

    @classmethod
    def of_file(
        cls,
        file: AudioFile,
        name: str,
        speaker: str,
        trainable: bool = True,
        split: str | None = None,
    ) -> "Utterance":
        """Makes the utterance of an audio file.

        Arguments
        ---------
        file : AudioFile
            The file.
        name : str
            Id of the utterance.
        speaker : str
            Speaker.
        trainable : bool
            False for the test part of a corpus, which is never trained on.
        split : str
            valid or test, where the corpus says so.

        Returns
        -------
        Utterance
            The utterance, with the file's fault or that of its name.
        """
        return cls(
            name,
            str(file.path.absolute()),
            speaker,
            file.stamp,
            trainable,
            split,
            file.identity,
            file.fault or fault_of_name(name),
        )


@dataclasses.dataclass(frozen=True)
class PublishedTrials:
    """A trial list that is on the web.

    Arguments
    ---------
    url : str
        Address of the list.
    md5 : str
        Checksum of the file, in hexadecimal digits.
    """

    url: str
    md5: str | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """Speakers of a corpus that trials are drawn from.

    Arguments
    ---------
    description : str
        What they are, for messages.
    speakers : frozenset of str
        Their names.
    draw : callable
        Takes the speaker of each utterance id and a seed, and gives `Trials`;
        if None, as many trials as the recipe's keys say are drawn, as
        `draw_trials` does.
    """

    description: str
    speakers: frozenset
    draw: Callable | None = None


class Corpus(abc.ABC):
    """A corpus: where its recordings are, and what it says of them.

    Attributes
    ----------
    name : str
        Value of the key `dataset`.
    expected : str
        The tree below data_folder, for messages.
    balanced : tuple of str
        Attributes of the speakers that non-target trials are balanced over.
    stratified : tuple of str
        Attributes that the speakers of a drawn split are spread over, beside
        the number of their utterances; none: they are drawn at random.
    split_seed : int
        Seed of the splits and trials that are drawn for a training, where the
        protocol has one; None: that of the training.
    speaker_names_are_global : bool
        Whether a name tells one speaker wherever it stands, and an id one
        recording. Otherwise it does below one root only.
    published_trials : dict
        Name and `PublishedTrials` of the trial lists on the web.
    own_trials : dict
        Name of the trial lists in the corpus, and their paths below a root.
    parts : dict
        Name and `Part` of the speakers that trials can be drawn from.
    """

    name: str
    expected: str
    balanced: tuple[str, ...] = ()
    stratified: tuple[str, ...] = ()
    split_seed: int | None = None
    speaker_names_are_global: bool = True
    published_trials: dict[str, PublishedTrials] = {}
    own_trials: dict[str, str] = {}
    parts: dict[str, Part] = {}

    def build(self, roots: list[Path]) -> None:
        """Makes the corpus unless it is there; most corpora are not made.

        Arguments
        ---------
        roots : list of Path
            Its folders.
        """

    @abc.abstractmethod
    def utterances(self, root: Path, left_out: LeftOut) -> Iterator[Utterance]:
        """Yields the utterances below a root.

        Arguments
        ---------
        root : Path
            Folder of the corpus.
        left_out : list of tuple
            Gets path and reason of what is no recording of the corpus.

        Yields
        ------
        Utterance
            Utterances, in any order.

        Raises
        ------
        InputError
            If the folder has another layout.
        """

    def speakers(self, root: Path) -> dict[str, dict[str, str]]:
        """Attributes of the speakers.

        Arguments
        ---------
        root : Path
            Folder of the corpus.

        Returns
        -------
        dict
            For each speaker a mapping, such as of gender and age; empty for a
            corpus that says nothing of them.

        Raises
        ------
        InputError
            If the corpus lacks the file of its speakers.
        """
        return {}

    def trial_sources(
        self, test: str | None = None, valid: str | None = None
    ) -> dict[str, str | None]:
        """Where trials are from, unless they are given.

        Arguments
        ---------
        test : str
            Test trials, if given: a name, path or URL.
        valid : str
            Validation trials likewise.

        Returns
        -------
        dict
            Of "test" and "valid": a name, path or URL; None where trials are
            drawn from held-out speakers.
        """
        return {"test": test, "valid": valid}

    def read_own_trials(self, path: str | Path) -> Trials:
        """Reads one of `own_trials`.

        Arguments
        ---------
        path : Path
            Trial list.

        Returns
        -------
        Trials
            Trial list with ids as they are in the file.
        """
        return read_trials(path)

    def enrolments(self, root: Path) -> dict[str, list[str]]:
        """Models that are enrolled from several utterances.

        Arguments
        ---------
        root : Path
            Folder of the corpus.

        Returns
        -------
        dict
            For each model, by its id in the trials, ids of its utterances;
            empty where each model is one utterance.
        """
        return {}

    def list_utterances(self, roots: list[Path]) -> tuple[list[Utterance], LeftOut]:
        """Lists the corpus without opening its audio files.

        A recording in several formats, under several names (links) or below
        several roots is listed once, in the format that comes first in
        `AUDIO_EXTENSIONS`.

        Arguments
        ---------
        roots : list of Path
            Folders of the corpus.

        Returns
        -------
        utterances : list of Utterance
            Sorted by id; those that cannot be used have a fault.
        left_out : list of tuple
            Path and reason of what is no recording, or one that is listed.

        Raises
        ------
        InputError
            If a folder is missing, has no audio or another layout, or if two
            folders of own recordings have speakers of one name.
        """
        found: list[Utterance] = []
        left_out: LeftOut = []
        root_of: dict[str, Path] = {}
        for root in roots:
            if not root.is_dir():
                raise InputError(f"data_folder: there is no folder '{root}'")
            if printable(root) != str(root):
                raise InputError(
                    f"data_folder: the name of '{printable(root)}' is not UTF-8; "
                    "rename it, or give a link to it"
                )
            below = list(self.utterances(root, left_out))
            if not below:
                raise InputError(
                    f"data_folder: no audio in '{root}'; expected {self.expected}"
                )
            if not self.speaker_names_are_global:
                speakers = {utterance.speaker for utterance in below}
                _check_apart(speakers, root, root_of)
                root_of.update(dict.fromkeys(speakers, root))
            found += below
        return _without_copies(found, left_out), left_out


def _check_apart(speakers: set[str], root: Path, root_of: dict[str, Path]) -> None:
    common = sorted(speakers & set(root_of))
    if common:
        raise InputError(
            f"data_folder: speaker '{printable(common[0])}' is in "
            f"'{root_of[common[0]]}' and in '{root}' ({len(common)} such names); "
            "if these are two people, rename the folder of one, and if it is one, "
            "put all recordings below one root (links do)"
        )


def _without_copies(utterances: list[Utterance], left_out: LeftOut) -> list[Utterance]:
    def preference(utterance: Utterance) -> tuple[bool, int, str]:
        stem, _, extension = utterance.id.rpartition(".")
        rank = AUDIO_EXTENSIONS.index(f".{extension}".lower())
        return utterance.fault is not None, rank, stem

    of_recording: dict[str, Utterance] = {}
    of_file: dict[tuple, Utterance] = {}
    for utterance in sorted(utterances, key=preference):
        stem = utterance.id.rpartition(".")[0]
        first = of_recording.get(stem)
        if first is None and utterance.identity:
            first = of_file.get(utterance.identity)
        if first is not None:
            left_out.append((utterance.wav, f"the same recording as {first.wav}"))
            continue
        of_recording[stem] = utterance
        of_file[utterance.identity] = utterance
    return sorted(of_recording.values(), key=lambda utterance: utterance.id)


def speaker_folders(root: Path, pattern: str, left_out: LeftOut) -> Iterator[Path]:
    """Yields the folders of speakers, by their names.

    Arguments
    ---------
    root : Path
        Where they are.
    pattern : str
        Regular expression of a speaker's name.
    left_out : list of tuple
        Gets the other folders.

    Yields
    ------
    Path
        Folder of a speaker, sorted.

    Example
    -------
    >>> root = Path(getfixture("tmpdir"))
    >>> (root / "id10001").mkdir(), (root / "notes").mkdir()
    (None, None)
    >>> left_out = []
    >>> [folder.name for folder in speaker_folders(root, r"id\\d{5}", left_out)]
    ['id10001']
    >>> [(Path(path).name, reason) for path, reason in left_out]
    [('notes', 'not the name of a speaker')]
    """
    for path in sorted(root.iterdir()):
        reason = _not_speech(path)
        if path.is_dir():
            if re.fullmatch(pattern, path.name):
                yield path
                continue
            reason = reason or "not the name of a speaker"
        elif not path.exists():
            reason = reason or DANGLING
        elif path.suffix.lower() not in AUDIO_EXTENSIONS:
            continue
        left_out.append((str(path), reason or "in no speaker's folder"))


def audio_files(root: Path, left_out: LeftOut) -> Iterator[AudioFile]:
    """Yields what has the name of an audio file below a folder.

    Links are followed, but not round and round. Hidden files and folders and
    those of file servers are left out.

    Arguments
    ---------
    root : Path
        Where to look.
    left_out : list of tuple
        Gets path and reason of what is left out.

    Yields
    ------
    AudioFile
        Those that cannot be used have a fault.

    Example
    -------
    >>> root = Path(getfixture("tmpdir"))
    >>> for name in ("1.wav", "._1.wav", "notes.txt"):
    ...     (root / name).touch()
    >>> left_out = []
    >>> [file.path.name for file in audio_files(root, left_out)]
    ['1.wav']
    >>> [(Path(path).name, reason) for path, reason in left_out]
    [('._1.wav', 'hidden')]
    """
    real_root = os.path.realpath(root)
    pending = [(str(root), real_root, frozenset([real_root]))]
    while pending:
        folder, real_folder, above = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            left_out.append((folder, f"unreadable: {error.strerror}"))
            continue
        for entry in entries:
            path = Path(entry.path)
            has_audio_name = path.suffix.lower() in AUDIO_EXTENSIONS
            is_folder, status, fault = _look(entry)
            reason = _not_speech(path)
            if reason:
                # Of hidden files, the name of a recording is all that matters.
                if is_folder or has_audio_name:
                    left_out.append((entry.path, reason))
                continue
            real = os.path.join(real_folder, entry.name)
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
            if is_folder and real in above:
                left_out.append((entry.path, "a link to a folder that it is in"))
            elif is_folder:
                pending.append((entry.path, real, above | {real}))
            elif has_audio_name:
                yield _audio_file(path, status, real, fault)
            elif status is None and fault:
                # Maybe a folder of recordings
                left_out.append((entry.path, fault))


def _not_speech(path: Path) -> str | None:
    if path.name in SYSTEM_FOLDERS:
        return "a folder of the system"
    return "hidden" if path.name.startswith(".") else None


def _look(entry: os.DirEntry[str]) -> tuple[bool, os.stat_result | None, str | None]:
    """Whether an entry is a folder, its status, and why it cannot be read."""
    try:
        status = entry.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False, None, "a link to itself"
        if entry.is_symlink() and error.errno == errno.ENOENT:
            return False, None, DANGLING
        return False, None, f"unreadable: {error.strerror}"
    if stat.S_ISDIR(status.st_mode):
        return True, status, None
    if not stat.S_ISREG(status.st_mode):
        return False, status, "not a regular file"
    return False, status, None


def _audio_file(
    path: Path, status: os.stat_result | None, real: str, fault: str | None
) -> AudioFile:
    if status is None:
        return AudioFile(path, fault=fault)
    # A file with several hard links is told by its number alone.
    linked = status.st_nlink > 1 and status.st_ino
    identity = (status.st_dev, status.st_ino) if linked else (real,)
    return AudioFile(path, (status.st_size, status.st_mtime_ns), identity, fault)


def fault_of_name(name: str) -> str | None:
    """Says why a file of that name cannot be used.

    Arguments
    ---------
    name : str
        Id of an utterance.

    Returns
    -------
    str or None
        The reason, if there is one.

    Example
    -------
    >>> fault_of_name("an\\tna/1.wav") is None
    True
    >>> fault_of_name("M\\udcfcller/1.wav")
    'its name is not UTF-8'
    """
    # soundfile opens no such file.
    return None if printable(name) == name else "its name is not UTF-8"


def printable(name: str | Path) -> str:
    """Replaces what is not UTF-8 in a name, for messages and reports.

    Arguments
    ---------
    name : str
        Name or path.

    Returns
    -------
    str
        Without surrogates.

    Example
    -------
    >>> printable("M\\udcfcller.wav")
    'M\\\\xfcller.wav'
    """
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def read_metadata(path: Path) -> str:
    """Reads the file in which a corpus tells of its speakers.

    Arguments
    ---------
    path : Path
        The file.

    Returns
    -------
    str
        Its content.

    Raises
    ------
    InputError
        If there is no such file.
    """
    if not path.is_file():
        raise InputError(
            f"data_folder: '{path.parent}' has no {path.name}, which the "
            "trials are balanced by"
        )
    with open_text(path) as file:
        return file.read()

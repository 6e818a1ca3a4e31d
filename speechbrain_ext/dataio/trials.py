"""Trial lists: reading, checking, writing and drawing them."""

import dataclasses
import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from speechbrain_ext.dataio.audio import AUDIO_EXTENSIONS
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import (
    escaped,
    read_csv,
    read_fields,
    same_name,
    write_fields,
)
from speechbrain_ext.utils.files import open_text

CSV_COLUMNS = ("LABEL", "SAMPLE1", "SAMPLE2")
LABELS = {"1": 1, "target": 1, "0": 0, "nontarget": 0}
Item = TypeVar("Item")
WORDS = {"target", "nontarget"}


@dataclasses.dataclass
class Trials:
    """A trial list.

    Arguments
    ---------
    labels : list of int
        1 for target, 0 for non-target trials; None where they are not known.
    enrol : list of str
        Utterance ids.
    test : list of str
        Utterance ids.

    Example
    -------
    >>> trials = Trials([1, 0], ["a/1.wav", "a/1.wav"], ["a/2.wav", "b/1.wav"])
    >>> len(trials)
    2
    >>> sorted(trials.utterances())
    ['a/1.wav', 'a/2.wav', 'b/1.wav']
    """

    labels: list[int] | None
    enrol: list[str]
    test: list[str]

    def __len__(self) -> int:
        return len(self.enrol)

    def utterances(self) -> set[str]:
        """Returns the set of utterance ids on either side."""
        return set(self.enrol) | set(self.test)

    def rows(self) -> Iterator[tuple]:
        """Returns label, enrolment and test of each trial; no label if not known."""
        if self.labels is None:
            return zip(self.enrol, self.test)
        return zip(self.labels, self.enrol, self.test)

    def split_by_label(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Splits scores for the metrics.

        Arguments
        ---------
        scores : torch.Tensor
            Scores, of shape (n_trial,).

        Returns
        -------
        tuple of torch.Tensor
            Scores of the target and of the non-target trials.
        """
        # Through NumPy, which reads a list in a third of the time
        is_target = torch.from_numpy(np.fromiter(self.labels or (), bool, len(self)))
        return scores[is_target], scores[~is_target]


def read_trials(path: str | Path, need_labels: bool = True) -> Trials:
    """Reads a trial list: VoxCeleb's, Kaldi's, or CSV.

    Lines are `label enrol test`, as VoxCeleb's, or `enrol test label`, as Kaldi's.
    Labels are 1 and 0 or `target` and `nontarget`. Fields are
    those of `speechbrain_ext.utils.fields`. A file whose first line names the columns
    LABEL, SAMPLE1 and SAMPLE2 is read as CSV, further columns being left out.

    Arguments
    ---------
    path : str or Path
        Trial list.
    need_labels : bool
        Whether the trials must have labels, as error rates need them. Otherwise
        all lines may be `enrol test`.

    Returns
    -------
    Trials
        In the order of the file.

    Raises
    ------
    InputError
        If the file is missing, a line is malformed, one pair has both labels,
        or there are no target or no non-target trials.

    Example
    -------
    >>> path = getfixture("tmpdir") / "trials.txt"
    >>> path.write_text("1 a/1.wav a/2.wav\\n0 a/1.wav b/1.wav\\n", "utf-8")
    >>> read_trials(path).labels
    [1, 0]
    >>> path.write_text("a-1 a-2 target\\na-1 b-1 nontarget\\n", "utf-8")
    >>> read_trials(path).test
    ['a-2', 'b-1']
    """
    rows = list(_trial_rows(path))
    if not rows:
        raise InputError(f"'{path}' has no trials; a line is 'label enrol test'")
    n_fields = len(rows[0][1])
    label_first = _label_is_first([fields for _, fields in rows])
    labels: list[int] = []
    enrol: list[str] = []
    test: list[str] = []
    for number, fields in rows:
        if len(fields) != n_fields:
            raise InputError(
                f"'{path}', line {number}: {len(fields)} fields, where the lines "
                f"above have {n_fields}"
            )
        if n_fields == 3:
            front, _, end = fields
            label = fields.pop(0 if label_first else 2)
            if label not in LABELS:
                place = "in front" if label_first else "at the end"
                wrong = (
                    f"'{label}' {place} is no label, which the other lines have there"
                    if front in LABELS or end in LABELS
                    else f"neither '{front}' nor '{end}' is a label"
                )
                raise InputError(
                    f"'{path}', line {number}: {wrong}; use 1 or target, and 0 or "
                    "nontarget, in front or at the end of all lines"
                )
            labels.append(LABELS[label])
        elif need_labels:
            raise InputError(
                f"'{path}', line {number}: 2 fields; error rates need labels, "
                "'label enrol test'"
            )
        enrol.append(fields[0])
        test.append(fields[1])
    if n_fields == 2:
        return Trials(None, enrol, test)
    trials = Trials(labels, enrol, test)
    require_both_labels(trials, path)
    require_one_label(trials, path)
    return trials


def _trial_rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    kind = "trial list"
    if not _has_csv_header(path):
        yield from read_fields(path, kind, (2, 3))
        return
    for number, fields in read_csv(path, kind, CSV_COLUMNS):
        if not all(fields):
            n_fields = sum(map(bool, fields))
            raise InputError(
                f"'{path}', line {number}: {n_fields} fields; a trial has three, "
                + ",".join(CSV_COLUMNS)
            )
        # Of others, who may have Windows
        yield number, [field.strip().replace("\\", "/") for field in fields]


def _has_csv_header(path: str | Path) -> bool:
    if not Path(path).is_file():
        return False
    with open_text(path) as lines:
        first = next((line for line in lines if line.strip()), "")
    columns = {column.strip() for column in first.upper().split(",")}
    return columns.issuperset(CSV_COLUMNS)


def _label_is_first(rows: list[list[str]]) -> bool:
    """Whether trials are in VoxCeleb's order; utterances may be called 1 or target."""
    first, last = {row[0] for row in rows}, {row[-1] for row in rows}
    if last <= WORDS or first <= set(LABELS):
        return not last <= WORDS
    if last <= set(LABELS):
        return False
    # Not all lines are right; those that are like the first one are.
    return rows[0][0] in LABELS or rows[0][-1] not in LABELS


def require_both_labels(trials: Trials, source: str | Path) -> None:
    """Checks that there are target and non-target trials.

    Arguments
    ---------
    trials : Trials
        Trial list.
    source : str or Path
        Where it is from, for the message.

    Raises
    ------
    InputError
        If one kind is missing.

    Example
    -------
    >>> require_both_labels(Trials([1, 0], ["a", "a"], ["b", "c"]), "list")
    """
    for label, name in ((1, "target"), (0, "non-target")):
        if label not in (trials.labels or ()):
            raise InputError(
                f"'{source}' has no {name} trials (label {label}); error rates "
                "need both kinds"
            )


def require_one_label(trials: Trials, source: str | Path) -> None:
    """Checks that no pair is both a target and a non-target trial.

    Arguments
    ---------
    trials : Trials
        Trial list.
    source : str or Path
        Where it is from, for the message.

    Raises
    ------
    InputError
        If a pair has both labels.

    Example
    -------
    >>> require_one_label(Trials([1, 0], ["a", "a"], ["b", "c"]), "list")
    """
    targets: set[tuple[str, str]] = set()
    nontargets: set[tuple[str, str]] = set()
    for label, enrol, test in zip(trials.labels or (), trials.enrol, trials.test):
        (targets if label else nontargets).add((enrol, test))
    both = sorted(targets & nontargets)
    if both:
        raise InputError(
            f"'{source}' has {len(both)} pairs as target and as non-target trials, "
            f"such as '{both[0][0]}' and '{both[0][1]}'; keep one of each"
        )


def write_trials(path: str | Path, trials: Trials) -> None:
    """Writes a trial list in VoxCeleb's format, atomically.

    Fields are those of `speechbrain_ext.utils.fields`: names may be of any kind.

    Arguments
    ---------
    path : str or Path
        File to write.
    trials : Trials
        Trials to write.

    Example
    -------
    >>> path = getfixture("tmpdir") / "trials.txt"
    >>> trials = Trials([1, 0], ["a b/1", "a b/1"], ["a b/2", "c/1"])
    >>> write_trials(path, trials)
    >>> read_trials(path) == trials
    True
    """
    write_fields(path, trials.rows())


def match_utterances(
    trials: Trials, utterances: Iterable[str], source: str | Path
) -> Trials:
    """Replaces the ids of a trial list by those of known utterances.

    Names in NFC and NFD, or with slashes and backslashes, match. VoxCeleb's lists
    say .wav where VoxCeleb2 has .m4a, and others have no extension, a further
    folder in front (the published list of VoxCeleb1) or one less in between (that
    of LibriSpeech): an id that is unknown as it stands is sought without its
    extension, then without its leading folders, then by its file name, where only
    one utterance below the same folders has it.

    Arguments
    ---------
    trials : Trials
        Trials with ids as in the list.
    utterances : iterable of str
        Known ids.
    source : str or Path
        The trial list, for the message.

    Returns
    -------
    Trials
        With known ids only.

    Raises
    ------
    InputError
        If utterances are unknown; the first ones are named.

    Example
    -------
    >>> trials = Trials([1], ["a/v1.1.wav"], ["a/v1.2"])
    >>> match_utterances(trials, ["a/v1.1.m4a", "a/v1.2.m4a"], "list").test
    ['a/v1.2.m4a']
    """
    names = list(utterances)
    known: dict[str, str] = {}
    by_file_name: dict[str, list[str]] = {}
    for name in names:
        stem = _without_extension(same_name(name))
        known[stem] = name
        by_file_name.setdefault(stem.rpartition("/")[2], []).append(name)
    # A name as it stands comes before one that means the same.
    known.update((same_name(name), name) for name in names)
    known.update((name, name) for name in names)
    found, unknown = {}, []
    for name in sorted(trials.utterances()):
        match = _match(name, known, by_file_name)
        if match is None:
            unknown.append(name)
        else:
            found[name] = match
    if unknown:
        shown = ", ".join(map(escaped, unknown[:5]))
        shown += " ..." if len(unknown) > 5 else ""
        raise InputError(
            f"'{source}' names {len(unknown)} utterances that are not in the "
            f"data: {shown}; check data_folder, or that the list and the "
            "corpus belong together"
        )
    return Trials(
        trials.labels,
        [found[name] for name in trials.enrol],
        [found[name] for name in trials.test],
    )


def _match(
    name: str, known: dict[str, str], by_file_name: dict[str, list[str]]
) -> str | None:
    for form in (name, same_name(name)):
        if form in known:
            return known[form]
    folders = _without_extension(same_name(name)).split("/")
    for start in range(len(folders) - 1):
        if "/".join(folders[start:]) in known:
            return known["/".join(folders[start:])]
    *folders, file_name = folders
    namesakes = by_file_name.get(file_name, [])
    if len(namesakes) == 1 and set(folders) <= set(same_name(namesakes[0]).split("/")):
        return namesakes[0]
    return None


def _without_extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension}".lower() in AUDIO_EXTENSIONS else name


def draw_trials(
    speaker_of: dict[str, str],
    n_trials: int,
    seed: int,
    attributes_of: dict[str, dict[str, str]] | None = None,
) -> Trials:
    """Draws a trial list balanced over labels, speakers and speaker pairs.

    Target trials go round the speakers, non-target trials round the pairs of
    speakers, and before that round what their speakers have in common; no
    pair of utterances comes twice.

    Arguments
    ---------
    speaker_of : dict
        Speaker of each utterance id.
    n_trials : int
        Trials wanted; fewer where the utterances do not give them.
    seed : int
        Seed of the draw.
    attributes_of : dict
        For each speaker a mapping such as {"gender": "F"}; non-target trials
        are as many for each combination of attributes that match or not, as
        far as there are such speakers.

    Returns
    -------
    Trials
        As many target as non-target trials.

    Raises
    ------
    InputError
        If there are fewer than two speakers, or none with two utterances.

    Example
    -------
    >>> speaker_of = {f"{s}/{u}": s for s in "abc" for u in range(4)}
    >>> trials = draw_trials(speaker_of, n_trials=20, seed=0)
    >>> trials.labels.count(1), trials.labels.count(0)
    (10, 10)
    """
    rng = random.Random(seed)
    by_speaker: dict[str, list[str]] = {}
    for utterance, speaker in sorted(speaker_of.items()):
        by_speaker.setdefault(speaker, []).append(utterance)
    if len(by_speaker) < 2:
        raise InputError(
            f"{len(by_speaker)} speaker(s): non-target trials need two or more"
        )
    counts = [len(utterances) for utterances in by_speaker.values()]
    n_target = sum(n * (n - 1) // 2 for n in counts)
    if not n_target:
        raise InputError("no speaker has two utterances, which target trials need")
    n_nontarget = (sum(counts) ** 2 - sum(n * n for n in counts)) // 2
    n_each = min(n_trials // 2, n_target, n_nontarget)
    targets = _alternate(
        _random_pairs(utterances, utterances, rng) for utterances in by_speaker.values()
    )
    speakers = list(by_speaker)
    alike = [_random_pairs(speakers, speakers, rng)]
    if attributes_of:
        alike = _by_matches(alike[0], attributes_of)
    nontargets = _alternate(
        _alternate(
            _random_pairs(by_speaker[first], by_speaker[second], rng)
            for first, second in speaker_pairs
        )
        for speaker_pairs in alike
    )
    pairs = [(1, *pair) for pair in itertools.islice(targets, n_each)]
    pairs += [(0, *pair) for pair in itertools.islice(nontargets, n_each)]
    rng.shuffle(pairs)
    return Trials(*map(list, zip(*pairs)))


def _random_pairs(
    first: list[str], second: list[str], rng: random.Random
) -> Iterator[tuple[str, str]]:
    """Yields all pairs once, in random order; of one list in either order.

    The shuffle (Fisher and Yates) keeps only what it has moved: VoxCeleb2 has
    ten thousands of pairs of utterances for a speaker, and millions of pairs
    of speakers, of which few are taken.
    """
    moved: dict[int, int] = {}
    n_pairs = len(first) * len(second)
    for place in range(n_pairs):
        drawn = rng.randrange(place, n_pairs)
        pair = moved.get(drawn, drawn)
        moved[drawn] = moved.pop(place, place)
        one, other = divmod(pair, len(second))
        if first is not second or one < other:
            yield first[one], second[other]


def _by_matches(
    speaker_pairs: Iterator[tuple[str, str]], attributes_of: dict[str, dict[str, str]]
) -> list[Iterator[tuple[str, str]]]:
    """Groups of pairs by the attributes they share; unknown is not shared."""
    groups: dict[frozenset[str], list[tuple[str, str]]] = {}
    for first, second in speaker_pairs:
        mine, theirs = attributes_of.get(first, {}), attributes_of.get(second, {})
        shared = {name for name, value in mine.items() if value == theirs.get(name)}
        groups.setdefault(frozenset(shared), []).append((first, second))
    return list(map(iter, groups.values()))


def _alternate(pools: Iterable[Iterator[Item]]) -> Iterator[Item]:
    """Yields an item of each pool in turn until all are empty."""
    while True:
        remaining = []
        for pool in pools:
            for item in itertools.islice(pool, 1):
                yield item
                remaining.append(pool)
        if not remaining:
            return
        pools = remaining

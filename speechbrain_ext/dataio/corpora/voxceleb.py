"""VoxCeleb 1 and 2, and both."""

import itertools
import os
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from speechbrain_ext.dataio.audio import AUDIO_EXTENSIONS
from speechbrain_ext.dataio.corpora.base import (
    Corpus,
    LaidOut,
    LeftOut,
    Part,
    PublishedTrials,
    SourceSpeaker,
    Utterance,
    audio_files,
    speaker_folders,
)
from speechbrain_ext.dataio.trials import (
    Trials,
    draw_trials,
    require_both_labels,
    write_trials,
)
from speechbrain_ext.utils.errors import InputError

SPEAKER = r"id\d{5}"
# Folders between a root and the speakers, as people unpack the archives
ROOTS = ("wav", "aac", "dev/wav", "dev/aac", "test/wav", "test/aac", ".")
# The official test part, which some unpack into the same folder as the rest
VOXCELEB2_TEST_SPEAKERS = frozenset(
    Path(__file__).with_name("voxceleb2_test_speakers.txt").read_text().split()
)
META = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta"
PUBLISHED_TRIALS = {
    name: PublishedTrials(f"{META}/{file}.txt", md5)
    for name, file, md5 in (
        # The lists as they were first, and without the errors that were found
        ("vox1-o-original", "veri_test", "29fc7cc1c5d59f0816dc15d6e8be60f7"),
        ("vox1-o", "veri_test2", "b73110731c9223c1461fe49cb48dddfc"),
        ("vox1-e", "list_test_all2", "a53e059deb562ffcfc092bf5d90d9f3a"),
        ("vox1-h", "list_test_hard2", "857790e09d579a68eb2e339a090343c8"),
    )
}
VOX2_TEST = "vox2-test"
VOX2_TEST_ORIGINAL = "vox2-test-original"
# Trials of the test part of VoxCeleb2 in arXiv 2409.07770
TARGETS_OF_SPEAKER = 272
NONTARGETS_OF_PAIR = 5


def draw_original_vox2_trials(speaker_of: dict[str, str], seed: int) -> Trials:
    """Draws trials as the authors of arXiv 2409.07770 do for VoxCeleb2.

    Half of the target trials of a speaker are from one video, the others from
    two, and each pair of speakers has as many non-target trials as any other:
    with all 118 speakers 32,096 target and 34,515 non-target trials. Where
    there are fewer pairs of utterances, all are taken.

    Arguments
    ---------
    speaker_of : dict
        Speaker of each utterance id, `speaker/video/utterance`.
    seed : int
        Seed of the draw.

    Returns
    -------
    Trials
        Trial list in random order.

    Example
    -------
    >>> names = [f"{s}/{v}/{u}.wav" for s in "ab" for v in "12" for u in "12"]
    >>> trials = draw_original_vox2_trials({name: name[0] for name in names}, seed=0)
    >>> trials.labels.count(1), trials.labels.count(0)
    (12, 5)
    """
    rng = random.Random(seed)
    by_speaker: dict[str, list[str]] = {}
    for name, speaker in sorted(speaker_of.items()):
        by_speaker.setdefault(speaker, []).append(name)
    pairs: list[tuple[int, str, str]] = []
    for names in by_speaker.values():
        kinds: dict[bool, list[tuple[int, str, str]]] = {True: [], False: []}
        for first, second in itertools.combinations(names, 2):
            same_video = first.rpartition("/")[0] == second.rpartition("/")[0]
            kinds[same_video].append((1, first, second))
        for kind in kinds.values():
            pairs += rng.sample(kind, min(TARGETS_OF_SPEAKER // 2, len(kind)))
    for first, second in itertools.combinations(by_speaker, 2):
        mine, theirs = by_speaker[first], by_speaker[second]
        n_pairs = len(mine) * len(theirs)
        for place in rng.sample(range(n_pairs), min(NONTARGETS_OF_PAIR, n_pairs)):
            one, other = divmod(place, len(theirs))
            pairs.append((0, mine[one], theirs[other]))
    rng.shuffle(pairs)
    trials = Trials(*map(list, zip(*pairs))) if pairs else Trials([], [], [])
    require_both_labels(trials, VOX2_TEST_ORIGINAL)
    return trials


class VoxCeleb(Corpus):
    """VoxCeleb, of which one part or both are trained on.

    Arguments
    ---------
    name : str
        Value of the key `dataset`.
    numbers : range
        Numbers of the speakers to train on.
    usual_test : str
        The test trials that go with them (arXiv 2409.07770).

    Example
    -------
    >>> VoxCeleb("voxceleb2", range(1, 10001), "vox2-test").trial_sources()
    {'test': 'vox2-test', 'valid': 'vox1-o'}
    """

    expected = "wav/idNNNNN/<session>/NNNNN and one of " + ", ".join(AUDIO_EXTENSIONS)
    published_trials = PUBLISHED_TRIALS
    parts = {
        name: Part(
            "the 118 speakers of VoxCeleb2's test part", VOXCELEB2_TEST_SPEAKERS, draw
        )
        for name, draw in (
            (VOX2_TEST, None),
            (VOX2_TEST_ORIGINAL, draw_original_vox2_trials),
        )
    }

    def __init__(self, name: str, numbers: range, usual_test: str) -> None:
        self.name = name
        self.numbers = numbers
        self.usual_test = usual_test

    def trial_sources(
        self, test: str | None = None, valid: str | None = None
    ) -> dict[str, str | None]:
        """Where trials are from, as `Corpus.trial_sources`.

        VoxCeleb1 and the test part of VoxCeleb2 test and validate in turn.
        """
        if not test:
            test = self.usual_test
            is_known = valid in self.parts or valid in self.published_trials
            # Two lists of the same speakers cannot serve both.
            if is_known and _other(valid) == _other(test):
                test = _other(test)
        return {"test": test, "valid": valid or _other(test)}

    def utterances(self, root: Path, left_out: LeftOut) -> Iterator[Utterance]:
        """Yields the utterances below a root, as `Corpus.utterances`."""
        for folder in (root / name for name in ROOTS):
            if not _has_speakers(folder):
                continue
            is_test = folder.parent.name == "test"
            for speaker in speaker_folders(folder, SPEAKER, left_out):
                trainable = (
                    not is_test
                    and speaker.name not in VOXCELEB2_TEST_SPEAKERS
                    and int(speaker.name[2:]) in self.numbers
                )
                for file in audio_files(speaker, left_out):
                    name = file.path.relative_to(folder).as_posix()
                    yield Utterance.of_file(file, name, speaker.name, trainable)


def _other(trials: str | None) -> str:
    return "vox1-o" if trials in VoxCeleb.parts else VOX2_TEST


def _has_speakers(folder: Path) -> bool:
    return folder.is_dir() and any(
        re.fullmatch(SPEAKER, name) for name in os.listdir(folder)
    )


CORPORA = (
    VoxCeleb("voxceleb1", range(10001, 11252), "vox1-o"),
    VoxCeleb("voxceleb2", range(1, 10001), VOX2_TEST),
    VoxCeleb("voxceleb12", range(1, 11252), "vox1-o"),
)


def lay_out(
    speakers: Iterable[SourceSpeaker], root: Path, n_trials: int, sample_rate: int
) -> LaidOut:
    """Folders, names and trials of the test speakers as in VoxCeleb, as `LayOut`."""
    names = {
        "train": [f"id{n}" for n in (*range(10001, 10270), *range(10310, 11252))],
        "valid": sorted(VOXCELEB2_TEST_SPEAKERS),
        "test": [f"id{n}" for n in range(10270, 10310)],
    }
    free = {split: iter(ids) for split, ids in names.items()}
    speaker_of = {}
    for split, utterances, _ in speakers:
        folder = "VoxCeleb2/test/wav" if split == "valid" else "VoxCeleb1/wav"
        speaker = next(free[split], None)
        if speaker is None:
            raise InputError(
                f"VoxCeleb has names for {len(names[split])} {split} speakers; "
                "take fewer, or another layout"
            )
        for number, source in enumerate(utterances, start=1):
            name = f"{speaker}/recording/{number:05}.wav"
            yield source, root / folder / name, sample_rate
            if split == "test":
                speaker_of[name] = speaker
    write_trials(
        root / "VoxCeleb1" / "veri_test2.txt",
        draw_trials(speaker_of, n_trials, seed=0),
    )

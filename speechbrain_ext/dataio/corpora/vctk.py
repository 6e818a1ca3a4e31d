"""VCTK, release 0.80 or 0.92."""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from speechbrain_ext.dataio.corpora.base import (
    Corpus,
    LaidOut,
    LeftOut,
    SourceSpeaker,
    Utterance,
    audio_files,
    read_metadata,
    speaker_folders,
)
from speechbrain_ext.dataio.trials import CSV_COLUMNS, draw_trials
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import write_csv
from speechbrain_ext.utils.files import write_lines

AUDIO = {
    "wav48_silence_trimmed": r"(\w+)_(\d+)_mic1\.flac",  # release 0.92
    "wav48": r"(\w+)_(\d+)\.wav",  # release 0.80
}
# Without these two, releases 0.80 and 0.92 have the same 108 speakers, those of
# arXiv 2409.07770: p315 has no transcripts, s5 is in 0.92 alone.
LEFT_OUT = {"p315", "s5"}
COMMON_TEXTS = range(25)  # the same sentences for every speaker
SAMPLE_RATE = 48000


class VCTK(Corpus):
    """VCTK 0.80 or 0.92, as far as it tells speakers apart by voice.

    The speakers p315 and s5 and the utterances that all speakers read are left
    out; of two microphones the first one counts, and ids leave it out, so that
    both releases have those of the published trial lists. As in arXiv
    2409.07770, the speakers of a split are spread over gender, accent, age and
    number of utterances, with the same seed in all trainings.

    Example
    -------
    >>> from pathlib import Path
    >>> root = Path(getfixture("tmpdir"))
    >>> (root / "wav48/p225").mkdir(parents=True)
    >>> for number in (24, 25):
    ...     (root / f"wav48/p225/p225_{number:03}.wav").touch()
    >>> [utterance.id for utterance in VCTK().utterances(root, [])]
    ['p225/p225_025.wav']
    >>> _ = (root / "speaker-info.txt").write_text(
    ...     "ID  AGE  GENDER  ACCENTS  REGION\\n"
    ...     "225  23  F  English  Southern  England\\n"
    ... )
    >>> VCTK().speakers(root)["p225"]["region"]
    'Southern England'
    """

    name = "vctk"
    expected = (
        "wav48/pNNN/pNNN_NNN.wav or wav48_silence_trimmed/pNNN/pNNN_NNN_mic1.flac"
    )
    balanced = ("gender", "accent")
    stratified = ("gender", "accent", "age")
    split_seed = 42

    def utterances(self, root: Path, left_out: LeftOut) -> Iterator[Utterance]:
        """Yields the utterances below a root, as `Corpus.utterances`."""
        for name, pattern in AUDIO.items():
            folder = root / name
            if folder.is_dir():
                break
        else:
            raise InputError(
                f"data_folder: '{root}' has none of the folders of VCTK, "
                + ", ".join(AUDIO)
            )
        for speaker in speaker_folders(folder, r"[ps]\d+", left_out):
            if speaker.name in LEFT_OUT:
                continue
            for file in audio_files(speaker, left_out):
                found = re.fullmatch(pattern, file.path.name)
                if found and int(found[2]) not in COMMON_TEXTS:
                    name = file.path.relative_to(folder).as_posix()
                    name = name.replace("_mic1.", ".")
                    yield Utterance.of_file(file, name, speaker.name)

    def speakers(self, root: Path) -> dict[str, dict[str, str]]:
        """Gender, age, accent and region of speaker-info.txt.

        Those that the corpus has no recordings of are listed too.
        """
        lines = read_metadata(root / "speaker-info.txt").splitlines()[1:]
        speakers = {}
        for line in lines:
            name, age, gender, accent, *words = [*line.split(), "", "", ""][:40]
            # Comments on the recordings stand in brackets.
            region = re.sub(r"\(.*", "", " ".join(words)).strip()
            # Release 0.80 lists 225 for p225.
            speakers[f"p{name}" if name.isdigit() else name] = {
                "gender": gender, "age": age, "accent": accent, "region": region,
            }  # fmt: skip
        return speakers


CORPORA = (VCTK(),)


def lay_out(
    speakers: Iterable[SourceSpeaker], root: Path, n_trials: int, sample_rate: int
) -> LaidOut:
    """Numbers, 48 kHz and speaker-info.txt as in VCTK 0.92, as `LayOut`."""
    numbers = itertools.count(225)
    names = (f"p{n}" for n in numbers if f"p{n}" not in LEFT_OUT)
    lines = ["ID  AGE  GENDER  ACCENTS  REGION COMMENTS"]
    speaker_of: dict[str, dict[str, str]] = {"train": {}, "valid": {}, "test": {}}
    attributes_of: dict[str, dict[str, str]] = {}
    for (split, utterances, about), name in zip(speakers, names):
        lines.append(f"{name}  {about['age']}  {about['gender'].upper()}    Unknown")
        attributes_of[name] = {"gender": about["gender"]}
        for number, source in enumerate(utterances, start=COMMON_TEXTS.stop):
            path = root / "wav48_silence_trimmed" / name
            yield source, path / f"{name}_{number:03}_mic1.flac", SAMPLE_RATE
            speaker_of[split][f"{name}/{name}_{number:03}.wav"] = name
    write_lines(root / "speaker-info.txt", lines)
    for split in ("valid", "test"):
        trials = draw_trials(speaker_of[split], n_trials, 0, attributes_of)
        write_csv(root / f"trials-{split}.csv", CSV_COLUMNS, trials.rows())

"""LibriSpeech."""

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
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import write_lines

SPLITS = {"train": "train", "dev": "valid", "test": "test"}


class LibriSpeech(Corpus):
    """LibriSpeech, whose dev and test parts are the valid and test sets.

    Example
    -------
    >>> from pathlib import Path
    >>> root = Path(getfixture("tmpdir"))
    >>> for part in ("train-clean-100", "dev-clean", "test-other"):
    ...     folder = root / part / "19" / "198"
    ...     folder.mkdir(parents=True)
    ...     (folder / "19-198-0000.flac").touch()
    >>> sorted(utterance.split for utterance in LibriSpeech().utterances(root, []))
    ['test', 'train', 'valid']
    >>> _ = (root / "SPEAKERS.TXT").write_text(
    ...     ";ID |SEX| SUBSET\\n19 | F | train-clean-100 | 25.19 | Kara\\n"
    ... )
    >>> LibriSpeech().speakers(root)
    {'19': {'gender': 'F'}}
    """

    name = "librispeech"
    expected = "<part>/<speaker>/<chapter>/*.flac"
    balanced = ("gender",)

    def utterances(self, root: Path, left_out: LeftOut) -> Iterator[Utterance]:
        """Yields the utterances below a root, as `Corpus.utterances`."""
        for prefix, split in SPLITS.items():
            parts = [path for path in root.glob(f"{prefix}-*") if path.is_dir()]
            if not parts:
                raise InputError(
                    f"data_folder: '{root}' has no part {prefix}-* of LibriSpeech"
                )
            for part in parts:
                for speaker in speaker_folders(part, r"\d+", left_out):
                    for file in audio_files(speaker, left_out):
                        below = file.path.relative_to(speaker)
                        if file.path.suffix == ".flac" and len(below.parts) == 2:
                            yield Utterance.of_file(
                                file,
                                file.path.relative_to(root).as_posix(),
                                speaker.name,
                                split == "train",
                                split,
                            )

    def speakers(self, root: Path) -> dict[str, dict[str, str]]:
        """Gender of SPEAKERS.TXT."""
        speakers = {}
        for line in read_metadata(root / "SPEAKERS.TXT").splitlines():
            if line.strip() and not line.startswith(";"):
                name, gender, *_ = (field.strip() for field in line.split("|"))
                speakers[name] = {"gender": gender}
        return speakers


CORPORA = (LibriSpeech(),)


def lay_out(
    speakers: Iterable[SourceSpeaker], root: Path, n_trials: int, sample_rate: int
) -> LaidOut:
    """Parts, chapters and SPEAKERS.TXT as in LibriSpeech, as `LayOut`."""
    parts = {"train": "train-clean-100", "valid": "dev-clean", "test": "test-clean"}
    lines = [";ID |SEX| SUBSET           |MINUTES| NAME"]
    for speaker, (split, utterances, about) in enumerate(speakers, start=1):
        part = parts[split]
        lines.append(f"{speaker} | {about['gender'].upper()} | {part} | 0.0 | -")
        for number, source in enumerate(utterances):
            name = f"{speaker}-1-{number:04}.flac"
            yield source, root / part / str(speaker) / "1" / name, sample_rate
    write_lines(root / "SPEAKERS.TXT", lines)

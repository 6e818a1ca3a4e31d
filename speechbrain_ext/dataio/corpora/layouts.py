"""What corpora say by their layout: files, splits and speakers."""

import re
from pathlib import Path

from speechbrain_ext.utils.errors import InputError

VCTK_AUDIO = {
    "wav48_silence_trimmed": r"(\w+)_(\d+)_mic1\.flac",  # release 0.92
    "wav48": r"(\w+)_(\d+)\.wav",  # release 0.80
}
VCTK_LEFT_OUT = {"p280", "p315"}
VCTK_COMMON_TEXTS = range(25)  # the same sentences for every speaker
# The official test part, which some unpack into the same folder as the rest
VOXCELEB2_TEST_SPEAKERS = frozenset(
    Path(__file__).with_name("voxceleb2_test_speakers.txt").read_text().split()
)
LIBRISPEECH_SPLITS = {"train": "train", "dev": "valid", "test": "test"}


def vctk_files(root):
    """Audio files of VCTK 0.80 or 0.92 that tell speakers apart by voice.

    The speakers p280 and p315 and the utterances that all speakers read are
    left out; of two microphones the first one counts, and ids leave it out, so
    that both releases have those of the published trial lists.

    Arguments
    ---------
    root : Path
        Of the corpus, with wav48 or wav48_silence_trimmed.

    Returns
    -------
    list of tuple
        Path, id, speaker, and split, which is None: any speaker may be held
        out.

    Raises
    ------
    InputError
        If the root has neither folder.

    Example
    -------
    >>> from pathlib import Path
    >>> root = Path(getfixture("tmpdir"))
    >>> (root / "wav48/p225").mkdir(parents=True)
    >>> for number in (24, 25):
    ...     (root / f"wav48/p225/p225_{number:03}.wav").touch()
    >>> [name for _, name, *_ in vctk_files(root)]
    ['p225/p225_025.wav']
    """
    for name, pattern in VCTK_AUDIO.items():
        folder = root / name
        if folder.is_dir():
            break
    else:
        raise InputError(
            f"data_folder: '{root}' has none of the folders of VCTK, "
            + ", ".join(VCTK_AUDIO)
        )
    files = []
    for path in folder.glob("*/*"):
        found = re.fullmatch(pattern, path.name)
        if (
            found
            and int(found[2]) not in VCTK_COMMON_TEXTS
            and path.parent.name not in VCTK_LEFT_OUT
        ):
            name = path.relative_to(folder).as_posix().replace("_mic1.", ".")
            files.append((path, name, path.parent.name, None))
    return files


def librispeech_files(root):
    """Audio files of LibriSpeech, with the split that their part belongs to.

    Arguments
    ---------
    root : Path
        With train-*, dev-* and test-*, each with <speaker>/<chapter>/*.flac.

    Returns
    -------
    list of tuple
        Path, id, speaker, and split: train, valid or test.

    Raises
    ------
    InputError
        If one of the three kinds of parts is missing.

    Example
    -------
    >>> from pathlib import Path
    >>> root = Path(getfixture("tmpdir"))
    >>> for part in ("train-clean-100", "dev-clean", "test-other"):
    ...     folder = root / part / "19" / "198"
    ...     folder.mkdir(parents=True)
    ...     (folder / "19-198-0000.flac").touch()
    >>> sorted(split for *_, split in librispeech_files(root))
    ['test', 'train', 'valid']
    """
    files = []
    for prefix, split in LIBRISPEECH_SPLITS.items():
        parts = [p for p in root.glob(f"{prefix}-*") if p.is_dir()]
        if not parts:
            raise InputError(
                f"data_folder: '{root}' has no part {prefix}-* of LibriSpeech"
            )
        for part in parts:
            files += [
                (
                    path,
                    path.relative_to(root).as_posix(),
                    path.relative_to(part).parts[0],
                    split,
                )
                for path in part.glob("*/*/*.flac")
            ]
    return files


def vctk_speakers(root):
    """Gender, age, accent and region of VCTK's speakers.

    Arguments
    ---------
    root : Path
        Of the corpus, with speaker-info.txt.

    Returns
    -------
    dict
        For each speaker a mapping of these four; those that the corpus does
        not have are listed too.

    Raises
    ------
    InputError
        If there is no speaker-info.txt.

    Example
    -------
    >>> from pathlib import Path
    >>> root = Path(getfixture("tmpdir"))
    >>> _ = (root / "speaker-info.txt").write_text(
    ...     "ID  AGE  GENDER  ACCENTS  REGION\\n"
    ...     "225  23  F  English  Southern  England\\n"
    ... )
    >>> vctk_speakers(root)["p225"]["region"]
    'Southern England'
    """
    lines = _metadata(root / "speaker-info.txt").splitlines()[1:]
    speakers = {}
    for line in lines:
        name, age, gender, accent, *region = [*line.split(), "", "", ""][:40]
        # Comments on the recordings stand in brackets.
        region = re.sub(r"\(.*", "", " ".join(region)).strip()
        # Release 0.80 lists 225 for p225.
        speakers[f"p{name}" if name.isdigit() else name] = {
            "gender": gender, "age": age, "accent": accent, "region": region,
        }  # fmt: skip
    return speakers


def librispeech_speakers(root):
    """Gender of LibriSpeech's speakers.

    Arguments
    ---------
    root : Path
        Of the corpus, with SPEAKERS.TXT.

    Returns
    -------
    dict
        For each speaker a mapping of gender.

    Raises
    ------
    InputError
        If there is no SPEAKERS.TXT.

    Example
    -------
    >>> from pathlib import Path
    >>> root = Path(getfixture("tmpdir"))
    >>> _ = (root / "SPEAKERS.TXT").write_text(
    ...     ";ID |SEX| SUBSET\\n19 | F | train-clean-100 | 25.19 | Kara\\n"
    ... )
    >>> librispeech_speakers(root)
    {'19': {'gender': 'F'}}
    """
    speakers = {}
    for line in _metadata(root / "SPEAKERS.TXT").splitlines():
        if line.strip() and not line.startswith(";"):
            name, gender, *_ = (field.strip() for field in line.split("|"))
            speakers[name] = {"gender": gender}
    return speakers


def _metadata(path):
    if not path.is_file():
        raise InputError(
            f"data_folder: '{path.parent}' has no {path.name}, which the "
            "trials are balanced by"
        )
    return path.read_text(encoding="utf-8-sig")

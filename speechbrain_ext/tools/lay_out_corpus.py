"""Lays a corpus out as VoxCeleb, LibriSpeech or VCTK are unpacked.

    python -m speechbrain_ext.tools.lay_out_corpus corpus/utterances.csv \\
        --layout vctk --output_folder /data/small_vctk

So any recording of some speakers runs through the recipes of these corpora:
to try them, to compare protocols, to test. The CSV has the columns path (below
its own folder), speaker, gender and age. Of the speakers, 10 % are for
validation and 20 % for the test, where the layout says who is.

- voxceleb: VoxCeleb1/wav/id10001/... with the test speakers from id10270 on,
  VoxCeleb2/test/wav/... with the validation speakers, named as speakers of
  VoxCeleb2's test part, and VoxCeleb1/veri_test2.txt, a trial list;
- librispeech: train-clean-100, dev-clean, test-clean and SPEAKERS.TXT;
- vctk: wav48_silence_trimmed at 48 kHz, speaker-info.txt (release 0.92), and
  trials-valid.csv and trials-test.csv, as arXiv 2409.07770 publishes its lists.
"""

import argparse
import csv
import itertools
import random
from pathlib import Path

import soundfile
import torchaudio
from tqdm import tqdm

from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.dataio.corpora.layouts import (
    VCTK_COMMON_TEXTS,
    VCTK_LEFT_OUT,
    VOXCELEB2_TEST_SPEAKERS,
)
from speechbrain_ext.dataio.trials import (
    CSV_HEADER,
    draw_trials,
    write_trials,
)
from speechbrain_ext.utils.errors import InputError, add_debug_option, one_line_errors
from speechbrain_ext.utils.files import atomic_path

COLUMNS = ("path", "speaker", "gender", "age")
SAMPLE_RATE = 16000
VCTK_SAMPLE_RATE = 48000
N_TRIALS = 37720


def lay_out_voxceleb(speakers, root):
    """Folders and names as in VoxCeleb, with the trials of the test speakers.

    Arguments
    ---------
    speakers : list of tuple
        As of `read_speakers`.
    root : Path
        Of the new corpus.

    Yields
    ------
    tuple
        For each utterance the source, the target and its sample rate in Hz;
        lists and metadata are written after the last one.

    Raises
    ------
    InputError
        If there are more speakers than VoxCeleb has.
    """
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
            yield source, root / folder / name, SAMPLE_RATE
            if split == "test":
                speaker_of[name] = speaker
    write_trials(
        root / "VoxCeleb1" / "veri_test2.txt",
        draw_trials(speaker_of, N_TRIALS, seed=0),
    )


def lay_out_librispeech(speakers, root):
    """Parts, chapters and SPEAKERS.TXT as in LibriSpeech.

    Arguments
    ---------
    speakers : list of tuple
        As of `read_speakers`.
    root : Path
        Of the new corpus.

    Yields
    ------
    tuple
        For each utterance the source, the target and its sample rate in Hz;
        lists and metadata are written after the last one.
    """
    parts = {"train": "train-clean-100", "valid": "dev-clean", "test": "test-clean"}
    lines = [";ID |SEX| SUBSET           |MINUTES| NAME"]
    for speaker, (split, utterances, about) in enumerate(speakers, start=1):
        part = parts[split]
        lines.append(f"{speaker} | {about['gender'].upper()} | {part} | 0.0 | -")
        for number, source in enumerate(utterances):
            name = f"{speaker}-1-{number:04}.flac"
            yield source, root / part / str(speaker) / "1" / name, SAMPLE_RATE
    _write_lines(root / "SPEAKERS.TXT", lines)


def lay_out_vctk(speakers, root):
    """Numbers, sample rate and speaker-info.txt as in VCTK 0.92.

    Arguments
    ---------
    speakers : list of tuple
        As of `read_speakers`.
    root : Path
        Of the new corpus.

    Yields
    ------
    tuple
        For each utterance the source, the target and its sample rate in Hz;
        lists and metadata are written after the last one.
    """
    numbers = itertools.count(225)
    names = (f"p{n}" for n in numbers if f"p{n}" not in VCTK_LEFT_OUT)
    lines = ["ID  AGE  GENDER  ACCENTS  REGION COMMENTS"]
    speaker_of, attributes_of = {"train": {}, "valid": {}, "test": {}}, {}
    for (split, utterances, about), name in zip(speakers, names):
        lines.append(f"{name}  {about['age']}  {about['gender'].upper()}    Unknown")
        attributes_of[name] = {"gender": about["gender"]}
        first = VCTK_COMMON_TEXTS.stop
        for number, source in enumerate(utterances, start=first):
            path = root / "wav48_silence_trimmed" / name
            yield source, path / f"{name}_{number:03}_mic1.flac", VCTK_SAMPLE_RATE
            speaker_of[split][f"{name}/{name}_{number:03}.wav"] = name
    _write_lines(root / "speaker-info.txt", lines)
    for split in ("valid", "test"):
        trials = draw_trials(speaker_of[split], N_TRIALS, 0, attributes_of)
        fields = zip(trials.labels, trials.enrol, trials.test)
        _write_lines(
            root / f"trials-{split}.csv",
            [CSV_HEADER, *(",".join(map(str, trial)) for trial in fields)],
        )


LAYOUTS = {
    "voxceleb": lay_out_voxceleb,
    "librispeech": lay_out_librispeech,
    "vctk": lay_out_vctk,
}


def read_speakers(table, seed=1986):
    """Speakers of a corpus in random order, with their utterances.

    Arguments
    ---------
    table : str or Path
        CSV with the columns path, speaker, gender and age.
    seed : int
        Of the order and of the split.

    Returns
    -------
    list of tuple
        For each speaker the split (train, valid or test), the paths of the
        utterances, and the last row of the speaker, as a mapping.

    Raises
    ------
    InputError
        If there is no such file, or it lacks a column.

    Example
    -------
    >>> table = Path(getfixture("tmpdir")) / "utterances.csv"
    >>> rows = ["path,speaker,gender,age", *(f"{s}/1.wav,{s},f,30" for s in range(10))]
    >>> _ = table.write_text("\\n".join(rows))
    >>> [split for split, *_ in read_speakers(table)].count("train")
    7
    """
    table = Path(table)
    if not table.is_file():
        raise InputError(f"there is no table of utterances '{table}'")
    utterances, about = {}, {}
    with open(table, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            missing = [column for column in COLUMNS if not row.get(column)]
            if missing:
                raise InputError(f"'{table}' lacks {', '.join(missing)} in {row}")
            path = table.parent / row["path"]
            utterances.setdefault(row["speaker"], []).append(path)
            about[row["speaker"]] = row
    names = sorted(utterances)
    random.Random(seed).shuffle(names)
    n_valid, n_test = round(0.1 * len(names)), round(0.2 * len(names))
    splits = ["test"] * n_test + ["valid"] * n_valid
    splits += ["train"] * (len(names) - len(splits))
    return [
        (split, utterances[name], about[name])
        for split, name in zip(splits, names)
    ]


def lay_out_corpus(table, layout, output_folder):
    """Writes the corpus in another layout; files that are there stay.

    Arguments
    ---------
    table : str or Path
        As of `read_speakers`.
    layout : str
        voxceleb, librispeech or vctk.
    output_folder : str or Path
        Root of the new corpus.
    """
    speakers = read_speakers(table)
    total = sum(len(utterances) for _, utterances, _ in speakers)
    files = LAYOUTS[layout](speakers, Path(output_folder))
    for source, target, sample_rate in tqdm(files, total=total, desc=layout):
        if target.is_file():
            continue
        wav = read_crop(source, SAMPLE_RATE)
        wav = torchaudio.functional.resample(wav, SAMPLE_RATE, sample_rate)
        with atomic_path(target) as partial:
            soundfile.write(partial, wav.numpy(), sample_rate)


def _write_lines(path, lines):
    with atomic_path(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", help="CSV of the utterances")
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--output_folder", required=True)
    add_debug_option(parser)
    lay_out_corpus(**vars(parser.parse_args()))


if __name__ == "__main__":
    with one_line_errors():
        main()

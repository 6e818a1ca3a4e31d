"""Lays a corpus out as VoxCeleb, LibriSpeech, VCTK or CN-Celeb are unpacked.

    speechbrain-ext lay-out-corpus corpus/utterances.csv \\
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
  trials-valid.csv and trials-test.csv, as arXiv 2409.07770 publishes its lists;
- cnceleb: data, dev/dev.lst and eval as in CN-Celeb1, with a model of several
  utterances for each test speaker.

Each layout is written by the function `lay_out` of its module in
`speechbrain_ext.dataio.corpora`.
"""

import csv
import random
from pathlib import Path

import soundfile
import torch
import torchaudio
from tqdm import tqdm

from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.dataio.corpora import layouts
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path

COLUMNS = ("path", "speaker", "gender", "age")
SAMPLE_RATE = 16000
N_TRIALS = 37720


def read_speakers(table, seed=1986):
    """Speakers of a corpus in random order, with their utterances.

    Arguments
    ---------
    table : str or Path
        CSV with the columns path, speaker, gender and age.
    seed : int
        Seed of the order and of the split.

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
        (split, utterances[name], about[name]) for split, name in zip(splits, names)
    ]


def lay_out_corpus(table, layout, output_folder):
    """Writes the corpus in another layout; files that are there stay.

    Arguments
    ---------
    table : str or Path
        See `read_speakers`.
    layout : str
        One of `speechbrain_ext.dataio.corpora.layouts`.
    output_folder : str or Path
        Root of the new corpus.
    """
    speakers = read_speakers(table)
    total = sum(len(utterances) for _, utterances, _ in speakers)
    files = layouts()[layout](speakers, Path(output_folder), N_TRIALS, SAMPLE_RATE)
    for source, target, sample_rate in tqdm(files, total=total, desc=layout):
        if target.is_file():
            continue
        sources = source if isinstance(source, list) else [source]
        wav = torch.cat([read_crop(path, SAMPLE_RATE) for path in sources])
        wav = torchaudio.functional.resample(wav, SAMPLE_RATE, sample_rate)
        with atomic_path(target) as partial:
            soundfile.write(partial, wav.numpy(), sample_rate)

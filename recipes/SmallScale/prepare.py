"""Lays out two small corpora, to train on one and verify on both.

    python recipes/SmallScale/prepare.py corpus/speechocean762/audio \\
        corpus/librispeech_sample/audio --output_folder results/small

Both have a folder for each speaker. The first corpus has several recordings of each,
is trained on, and gives the trials within: some speakers validate and some test. The
second may have a single recording of each; crops of it that do not overlap are what
the trials across are made of. Writes, as wav,

- within/<speaker>: the recordings of the first corpus;
- across/second-<speaker>: crops of the second one, as many as a recording has, up to
  --n_crops;
- more/second-<speaker>: whole recordings of the second one, without --held_out
  speakers, to train on both;
- valid.txt, within.txt, across.txt, across_held_out.txt: all pairs of the utterances
  of the speakers, of the first corpus the first --utterances of each.
"""

import argparse
import random
import sys
from itertools import combinations
from pathlib import Path

import soundfile
from tqdm import tqdm

from speechbrain_ext.dataio.audio import read_crop, read_header
from speechbrain_ext.dataio.prepare import list_utterances
from speechbrain_ext.dataio.splits import split_speakers
from speechbrain_ext.dataio.trials import Trials, write_trials
from speechbrain_ext.utils.errors import add_debug_option, one_line_errors
from speechbrain_ext.utils.files import atomic_path

SAMPLE_RATE = 16000


def main(arguments):
    """Writes recordings and trial lists; recordings that are there stay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", help="corpus to train on")
    parser.add_argument("second", help="corpus to verify on")
    parser.add_argument("--output_folder", required=True)
    parser.add_argument("--utterances", type=int, default=10, help="of a speaker")
    parser.add_argument("--crop_duration", type=float, default=4.0, help="seconds")
    parser.add_argument("--n_crops", type=int, default=3, help="of a recording")
    parser.add_argument("--held_out", type=int, default=51, help="speakers")
    parser.add_argument("--seed", type=int, default=1986, help="of the splits")
    add_debug_option(parser)
    options = parser.parse_args(arguments)
    folder = Path(options.output_folder)

    # The split of a training with that seed
    first = list_utterances("folder", options.first)
    split = split_speakers("folder", first, {}, 0.1, 0.2, options.seed)
    of_speaker = {}
    for utterance in tqdm(first, desc="within"):
        name = write_wav(utterance, folder / "within")
        of_speaker.setdefault(utterance.speaker, []).append(name)
    kept = {s: names[: options.utterances] for s, names in of_speaker.items()}
    for name, part in (("valid", "valid"), ("within", "test")):
        utterances = {s: kept[s] for s in sorted(split[part])}
        write_trials(folder / f"{name}.txt", all_pairs(utterances))

    second = list_utterances("folder", options.second)
    for utterance in second:
        # Both corpora may have a speaker 1447.
        utterance.speaker = f"second-{utterance.speaker}"
    crops = {}
    for utterance in tqdm(second, desc="across"):
        duration = read_header(utterance.wav).duration
        for number in range(
            min(options.n_crops, int(duration / options.crop_duration))
        ):
            name = write_wav(
                utterance, folder / "across", number, options.crop_duration
            )
            crops.setdefault(utterance.speaker, []).append(name)
    held_out = random.Random(options.seed).sample(
        sorted(s for s, names in crops.items() if len(names) > 1), options.held_out
    )
    for utterance in second:
        if utterance.speaker not in held_out:
            write_wav(utterance, folder / "more")
    write_trials(folder / "across.txt", all_pairs(crops))
    crops = {s: crops[s] for s in sorted(held_out)}
    write_trials(folder / "across_held_out.txt", all_pairs(crops))


def write_wav(utterance, folder, number=None, duration=None):
    """Writes a recording, or crop number so many of it; returns its id."""
    crop = "" if number is None else f"-{number}"
    name = f"{utterance.speaker}/{Path(utterance.wav).stem}{crop}.wav"
    if not (folder / name).is_file():
        start = 0.0 if number is None else number * duration
        wav = read_crop(utterance.wav, SAMPLE_RATE, start, duration)
        with atomic_path(folder / name) as partial:
            soundfile.write(partial, wav.numpy(), SAMPLE_RATE, format="WAV")
    return name


def all_pairs(utterances_of):
    """All pairs of the utterances of some speakers."""
    items = [(s, name) for s, names in utterances_of.items() for name in names]
    pairs = list(combinations(items, 2))
    return Trials(
        [int(one[0] == other[0]) for one, other in pairs],
        [one[1] for one, _ in pairs],
        [other[1] for _, other in pairs],
    )


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

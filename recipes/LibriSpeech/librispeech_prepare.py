"""Prepares LibriSpeech: manifests and balanced trial lists, without training.

    python recipes/LibriSpeech/librispeech_prepare.py \\
        --data_folder /data/LibriSpeech --save_folder results/librispeech

Trains on the train-* parts, validates on dev-* and tests on test-*, whose
trials are balanced over label and gender (SPEAKERS.TXT). Flac is read as it
is. train.py does the same by itself.
"""

import sys

from speechbrain_ext.config import HPARAMS
from speechbrain_ext.training.recipes import prepare_only
from speechbrain_ext.utils.errors import one_line_errors

CORPUS = HPARAMS / "corpora" / "librispeech.yaml"

if __name__ == "__main__":
    with one_line_errors():
        prepare_only(sys.argv[1:], CORPUS)

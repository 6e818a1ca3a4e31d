"""Prepares VCTK: manifests and balanced trial lists, without training.

    python recipes/VCTK/vctk_prepare.py \\
        --data_folder /data/VCTK-Corpus-0.92 --save_folder results/vctk

Reads release 0.80 (wav48) and 0.92 (wav48_silence_trimmed, first microphone).
Speakers p315 and s5 and utterances 000 to 024, which all speakers read, are
left out; 48 kHz becomes 16 kHz when a file is read. Splits, trials and their
numbers are those of hparams/corpora/vctk.yaml. train.py does the same by itself.
"""

import sys

from speechbrain_ext.config import HPARAMS
from speechbrain_ext.training.recipes import prepare_only
from speechbrain_ext.utils.errors import one_line_errors

CORPUS = HPARAMS / "corpora" / "vctk.yaml"

if __name__ == "__main__":
    with one_line_errors():
        prepare_only(sys.argv[1:], CORPUS)

"""Trains a speaker embedding model on CN-Celeb and verifies it there.

    python recipes/CNCeleb/train.py hparams/ltdnn_wavlm.yaml \\
        --data_folder /data/CN-Celeb_flac

Runs recipes/VoxCeleb/train.py with hparams/corpora/cnceleb.yaml, over which preset
and command line take precedence. Without data_folder it runs the demo. A killed
run goes on where it was when the same command is given again.
"""

import runpy
import sys
from pathlib import Path

from cnceleb_prepare import CORPUS

from speechbrain_ext.utils.errors import one_line_errors

TRAIN = Path(__file__).resolve().parents[1] / "VoxCeleb" / "train.py"

if __name__ == "__main__":
    with one_line_errors():
        runpy.run_path(str(TRAIN))["main"](sys.argv[1:], CORPUS)

"""Trains a speaker embedding model and verifies it on held-out speakers.

    python recipes/VoxCeleb/train.py hparams/ltdnn_wavlm.yaml \\
        --dataset voxceleb1 --data_folder /data/VoxCeleb1

Without data_folder it runs the demo. A killed run goes on where it was when
the same command is given again.
"""

import sys

from speechbrain_ext.training.train import train_and_verify
from speechbrain_ext.utils.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        train_and_verify(sys.argv[1:])

"""Trains a speaker embedding model on CN-Celeb and verifies it there.

    python recipes/CNCeleb/train.py hparams/ltdnn_wavlm.yaml \\
        --data_folder /data/CN-Celeb_flac

Takes hparams/corpora/cnceleb.yaml before the system's own YAML, and the command
line before both. Without data_folder it runs the demo. A killed run goes on
where it was when the same command is given again.
"""

import sys

from cnceleb_prepare import CORPUS

from speechbrain_ext.training.train import train_and_verify
from speechbrain_ext.utils.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        train_and_verify(sys.argv[1:], CORPUS)

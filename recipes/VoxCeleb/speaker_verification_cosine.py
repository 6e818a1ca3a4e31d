"""Verifies a trained model: embeds each utterance once, scores all trials.

    python recipes/VoxCeleb/speaker_verification_cosine.py \\
        hparams/verification_cosine.yaml --trained_model results/ltdnn_wavlm/1986

Writes scores.txt, metrics.json and plots to output_folder. The YAML says which
back end scores; with this one scores are cosines, and mean subtraction, score
normalisation and calibration are keys of it.
"""

import sys

from speechbrain_ext.config import RUN_OPTIONS_WITHOUT_BRAIN, read_configuration
from speechbrain_ext.training.verification import run_verification
from speechbrain_ext.utils.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        run_verification(
            read_configuration(sys.argv[1:], run_options=RUN_OPTIONS_WITHOUT_BRAIN)
        )

"""Verifies a trained model: embeds each utterance once, scores all trials.

    python recipes/VoxCeleb/speaker_verification_cosine.py \\
        hparams/verification_ltdnn.yaml --trained_model results/ltdnn_wavlm/1986

Writes scores.txt, metrics.json and plots to output_folder. Scores are cosines;
mean subtraction, score normalisation and calibration are keys of the YAML.
"""

import sys

from speechbrain_ext.config import read_configuration
from speechbrain_ext.training.recipes import load_verification, verify_by_cosine
from speechbrain_ext.utils.errors import one_line_errors


def main(arguments):
    """Loads the model, prepares the trials, scores and reports."""
    verify_by_cosine(*load_verification(read_configuration(arguments)))


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

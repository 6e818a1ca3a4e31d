"""Verifies a trained model with LDA and PLDA on its embeddings.

    python recipes/VoxCeleb/speaker_verification_plda.py \\
        hparams/verification_plda.yaml --trained_model results/ltdnn_wavlm/1986

LDA and PLDA are trained on the embeddings of the training set. Writes
scores.txt, metrics.json and plots to output_folder.
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

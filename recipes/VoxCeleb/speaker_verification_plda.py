"""Verifies a trained model with LDA and PLDA on its embeddings.

    python recipes/VoxCeleb/speaker_verification_plda.py \\
        hparams/verification_plda.yaml --trained_model results/ltdnn_wavlm/1986

LDA and PLDA are trained on the embeddings of the training set. Writes
scores.txt, metrics.json and plots to output_folder.
"""

import sys

from speechbrain_ext.config import read_configuration
from speechbrain_ext.inference.verification import (
    PLDABackend,
    cohort_embeddings,
    verify,
)
from speechbrain_ext.training.recipes import load_verification
from speechbrain_ext.utils.errors import one_line_errors


def verify_by_plda(configuration):
    """Loads the model, trains PLDA, scores and reports."""
    hparams, speaker_model, paths, extraction, reporting = load_verification(
        configuration
    )
    training = cohort_embeddings(
        speaker_model,
        paths["train"],
        hparams["utterances_per_training_speaker"],
        **extraction,
    )
    verify(
        speaker_model,
        paths["test"],
        paths["test_trials"],
        hparams["output_folder"],
        PLDABackend(training, hparams["lda_dim"], hparams["adapt"]),
        **reporting,
        **extraction,
    )


if __name__ == "__main__":
    with one_line_errors():
        verify_by_plda(read_configuration(sys.argv[1:]))

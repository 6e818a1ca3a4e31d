"""Verifies a trained model: embeds each utterance once, scores all trials.

    python recipes/VoxCeleb/speaker_verification_cosine.py \\
        hparams/verification_ltdnn.yaml --trained_model results/ltdnn_wavlm/1986

Writes scores.txt, metrics.json and plots to output_folder. Scores are cosines;
mean subtraction, score normalisation and calibration are keys of the YAML.
"""

import sys

from speechbrain_ext.processing.verification import (
    CosineBackend,
    cohort_embeddings,
    train_calibration,
    verify,
)
from speechbrain_ext.utils.errors import one_line_errors
from speechbrain_ext.utils.recipes import load_verification


def main(arguments):
    """Loads the model, prepares the trials, scores and reports."""
    hparams, speaker_model, paths, extraction, reporting = load_verification(
        arguments
    )

    cohort = None
    if hparams["score_norm"] is not None or hparams["subtract_mean"]:
        cohort = cohort_embeddings(
            speaker_model,
            paths["train"],
            hparams["utterances_per_cohort_speaker"],
            **extraction,
        )
    backend = CosineBackend(
        cohort,
        hparams["subtract_mean"],
        hparams["score_norm"],
        hparams["cohort_size"],
    )

    calibration = None
    if hparams["calibration"] is not None:
        calibration = train_calibration(
            hparams["calibration"],
            speaker_model,
            backend,
            paths["train"],
            hparams["output_folder"],
            hparams["n_calibration_trials"],
            hparams["seed"],
            **extraction,
        )

    threshold = hparams["threshold"]
    verify(
        speaker_model,
        paths["test"],
        paths["test_trials"],
        hparams["output_folder"],
        backend,
        threshold=speaker_model.threshold if threshold is None else threshold,
        calibration=calibration,
        **reporting,
        **extraction,
    )


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

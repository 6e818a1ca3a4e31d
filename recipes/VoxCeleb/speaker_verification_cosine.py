"""Verifies a trained model: embeds each utterance once, scores all trials.

    python recipes/VoxCeleb/speaker_verification_cosine.py \\
        hparams/verification_ltdnn.yaml --trained_model results/ltdnn_wavlm/1986

Writes scores.txt, metrics.json and plots to output_folder.
"""

import sys
from pathlib import Path

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import run_on_main

from speechbrain_ext.dataio.prepare import (
    manifest_paths,
    prepare_trials,
    read_manifest,
)
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.processing.verification import cohort_embeddings, verify
from speechbrain_ext.utils.errors import one_line_errors
from speechbrain_ext.utils.recipes import parse_recipe_arguments


def main(arguments):
    """Loads the model, prepares the trials, scores and reports."""
    hparams_file, run_opts, overrides = parse_recipe_arguments(arguments)
    sb.utils.distributed.ddp_init_group(run_opts)
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)
    speaker_model = SpeakerRecognition.from_training(
        hparams["trained_model"],
        run_opts.device or sb.utils.distributed.infer_device(),
    )
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    # Trials: those of the training, or others
    paths = manifest_paths(Path(hparams["trained_model"]) / "save")
    if hparams["trials_from"] is not None:
        train_utterances = read_manifest(paths["train"]).values()
        run_on_main(
            prepare_trials,
            kwargs={
                "dataset": hparams["trials_from"],
                "data_folder": hparams["test_folder"],
                "save_folder": hparams["output_folder"],
                "sample_rate": speaker_model.sample_rate,
                "verification_file": hparams["verification_file"],
                "n_trials": hparams["n_test_trials"],
                "min_duration": hparams["min_duration"],
                "allow_broken": hparams["allow_broken"],
                "train_speakers": {i["speaker"] for i in train_utterances},
                "seed": hparams["seed"],
            },
        )
        paths.update(
            {
                key: manifest_paths(hparams["output_folder"])[key]
                for key in ("test", "test_trials")
            }
        )

    # Scores
    extraction = {
        "max_batch_duration": hparams["max_batch_duration"],
        "num_workers": hparams["num_workers"],
    }
    cohort = None
    if hparams["score_norm"] is not None or hparams["subtract_mean"]:
        cohort = cohort_embeddings(
            speaker_model,
            paths["train"],
            hparams["trained_model"],
            hparams["utterances_per_cohort_speaker"],
            **extraction,
        )
    threshold = hparams["threshold"]
    verify(
        speaker_model,
        paths["test"],
        paths["test_trials"],
        hparams["output_folder"],
        threshold=speaker_model.threshold if threshold is None else threshold,
        cohort=cohort,
        score_norm=hparams["score_norm"],
        cohort_size=hparams["cohort_size"],
        subtract_mean=hparams["subtract_mean"],
        details={"trained_model": str(hparams["trained_model"])},
        **extraction,
    )


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

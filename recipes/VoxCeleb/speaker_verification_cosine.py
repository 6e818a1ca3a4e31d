"""Verifies a trained model: embeds each utterance once, scores all trials.

    python recipes/VoxCeleb/speaker_verification_cosine.py \\
        hparams/verification_ltdnn.yaml --trained_model results/ltdnn_wavlm/1986

Writes scores.txt, metrics.json and plots to output_folder.
"""

import sys
from pathlib import Path

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ext.dataio.prepare import (
    manifest_paths,
    prepare_trials,
    read_manifest,
)
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.processing.verification import verify
from speechbrain_ext.utils.errors import one_line_errors
from speechbrain_ext.utils.recipes import parse_recipe_arguments


def main(arguments):
    """Loads the model, prepares the trials, scores and reports."""
    hparams_file, run_opts, overrides = parse_recipe_arguments(arguments)
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

    paths = manifest_paths(Path(hparams["trained_model"]) / "save")
    manifest, trial_list = paths["test"], paths["test_trials"]
    if hparams["trials_from"] is not None:
        train_utterances = read_manifest(paths["train"]).values()
        manifest, trial_list = prepare_trials(
            hparams["trials_from"],
            hparams["test_folder"],
            hparams["output_folder"],
            speaker_model.sample_rate,
            hparams["verification_file"],
            hparams["n_test_trials"],
            hparams["min_duration"],
            hparams["allow_broken"],
            {item["speaker"] for item in train_utterances},
            hparams["seed"],
        )

    threshold = hparams["threshold"]
    verify(
        speaker_model,
        manifest,
        trial_list,
        hparams["output_folder"],
        speaker_model.threshold if threshold is None else threshold,
        hparams["max_batch_duration"],
        hparams["num_workers"],
        {"trained_model": str(hparams["trained_model"])},
    )


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

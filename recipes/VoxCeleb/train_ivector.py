"""Trains i-vectors on a Gaussian mixture, and verifies them by cosine and PLDA.

    python recipes/VoxCeleb/train_ivector.py hparams/ivector.yaml \\
        --dataset voxceleb1 --data_folder /data/VoxCeleb1

Without data_folder it runs the demo. After each iteration of EM there is a
checkpoint, from which the same command goes on. Writes test/ (cosine) and
verification_plda/.
"""

import sys

from speechbrain_ext.config import RUN_OPTIONS_WITHOUT_BRAIN, read_configuration
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.inference.extraction import extract_embeddings, store_path
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.inference.verification import summary, verification_metrics
from speechbrain_ext.processing.scoring import cosine_scores
from speechbrain_ext.training.checks import check_trainings
from speechbrain_ext.training.finished import check_settings, start_settings
from speechbrain_ext.training.ivector import (
    SpeechFrames,
    ivector_iterations,
    take_iteration,
)
from speechbrain_ext.training.recipes import (
    plda_configuration,
    refuse_several_processes,
    start_training,
)
from speechbrain_ext.training.steps import (
    prepare_data,
    training_utterances,
    verify_training,
)
from speechbrain_ext.training.verification import run_verification
from speechbrain_ext.utils.distributed import device_of
from speechbrain_ext.utils.errors import one_line_errors


def main(arguments):
    """Trains as a command line says."""
    configuration = read_configuration(arguments, run_options=RUN_OPTIONS_WITHOUT_BRAIN)
    values = configuration.values()
    configuration.check_effect([values])
    check_trainings([configuration])
    refuse_several_processes()
    plda = plda_configuration(configuration)

    # Hyperparameters: all that the YAML describes is built here
    check_settings(values["output_folder"], configuration.settings())
    hparams = start_training(configuration)
    start_settings(values["output_folder"], configuration.settings())
    device = device_of(configuration.run_opts)

    # Data: manifests and trial lists, and the frames of speech
    paths = prepare_data(hparams)
    frames = SpeechFrames(
        hparams["encoder"],
        training_utterances(hparams, paths["train"]),
        hparams["sample_rate"],
        hparams["max_batch_duration"],
        hparams["num_workers"],
        device,
    )

    # Training: the UBM, then the total variability, each by EM
    extractor = hparams["embedding_model"].to(device)
    checkpointer = hparams["checkpointer"]
    checkpointer.recover_if_possible()
    names = ivector_iterations(hparams["ubm_iterations"], hparams["tv_iterations"])
    for iteration in hparams["epoch_counter"]:
        name = names[iteration - 1]
        likelihood = take_iteration(
            extractor,
            name,
            frames,
            hparams["n_ubm_frames"],
            hparams["ubm_start_iterations"],
            hparams["seed"],
        )
        hparams["train_logger"].log_stats(
            {"iteration": iteration, "of": name},
            {"log-likelihood of a frame": likelihood},
        )
        checkpointer.save_and_keep_only(meta={"iteration": iteration})

    # Validation: the threshold of the cosine
    speaker_model = SpeakerRecognition(
        hparams["encoder"], extractor, hparams["sample_rate"]
    )
    store = extract_embeddings(
        speaker_model,
        read_manifest(paths["valid"]),
        store_path(speaker_model, paths["valid"]),
        hparams["max_batch_duration"],
        hparams["num_workers"],
    )
    trials = read_trials(paths["valid_trials"])
    metrics = verification_metrics(trials, cosine_scores(store.by_id(), trials))
    hparams["train_logger"].log_stats({"validation": summary(metrics)})
    checkpointer.save_and_keep_only(
        meta={"EER": metrics["EER"], "threshold": metrics["EER_threshold"]}
    )

    # Test, by cosine and by PLDA
    verify_training(configuration, hparams, paths, device)
    run_verification(plda)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

"""Trains a speaker embedding model and verifies it on held-out speakers.

    python recipes/VoxCeleb/train.py hparams/ltdnn_wavlm.yaml \\
        --dataset voxceleb1 --data_folder /data/VoxCeleb1

Without data_folder it runs the demo. A killed run goes on where it was when
the same command is given again. `speechbrain-ext config` with the same arguments
prints all that is set, in one YAML.
"""

import sys

from speechbrain_ext.config import read_configuration, training_stages
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.training.checks import check_trainings
from speechbrain_ext.training.recipes import init_process_group, start_training
from speechbrain_ext.training.steps import (
    prepare_data,
    speaker_modules,
    training_data,
    training_speakers,
    verify_training,
)
from speechbrain_ext.utils.errors import one_line_errors


def main(arguments, corpus=None):
    """Trains as a command line says; most YAMLs have a single stage."""
    configuration = read_configuration(arguments, corpus)
    train(configuration)


def train(configuration):
    """Trains stage after stage."""
    stages = training_stages(configuration)
    check_trainings(stages)
    init_process_group(configuration.run_opts)
    for stage in stages:
        train_stage(stage)


def train_stage(configuration):
    """Trains once and verifies the best checkpoint."""
    # Hyperparameters: all that the YAML describes is built here
    hparams = start_training(configuration)

    # Data: manifests and trial lists, speakers
    paths = prepare_data(hparams)
    speakers = training_speakers(hparams, paths["train"])

    # Modules: encoder, embedding model, and a classifier of the speakers
    modules = speaker_modules(hparams, speakers)

    # Crops and whole utterances, or an encoder's hidden states of them
    modules, train_data, valid_loader = training_data(
        hparams, paths, speakers, modules, configuration.run_opts
    )

    # Brain: validation is verification, and its EER chooses the checkpoint
    brain = hparams["brain_class"](
        modules=modules,
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=configuration.run_opts,
        checkpointer=hparams["checkpointer"],
        valid_trials=read_trials(paths["valid_trials"]),
    )

    # Training
    brain.fit(
        hparams["epoch_counter"],
        train_data,
        valid_loader,
        train_loader_kwargs={
            "batch_size": hparams["batch_size"],
            "num_workers": hparams["num_workers"],
        },
    )

    # Test; SpeechBrain's debug mode leaves no checkpoint
    if not brain.debug:
        verify_training(configuration, hparams, paths, brain.device)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

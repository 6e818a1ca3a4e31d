"""The training that the recipes of all corpora share."""

from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import run_on_main

from speechbrain_ext.dataio.datasets import (
    embedding_loader,
    speaker_classes,
)
from speechbrain_ext.dataio.prepare import manifest_paths, read_manifest
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.inference.verification import verify
from speechbrain_ext.training.recipes import (
    init_process_group,
    load_training,
    parse_recipe_arguments,
    run_details,
    training_stages,
)
from speechbrain_ext.utils.checkpoints import start_from_training
from speechbrain_ext.utils.files import write_json


def train_and_verify(arguments, corpus=None):
    """Trains an embedding model and verifies it, as a recipe's YAML says.

    Arguments
    ---------
    arguments : list of str
        As of sys.argv[1:]: the YAML of a system, and overrides.
    corpus : str or Path
        YAML of overrides for the recipe's corpus.

    Raises
    ------
    InputError
        If the YAML, the corpus or the folder of results cannot be used.
    """
    hparams_file, run_opts, overrides = parse_recipe_arguments(arguments, corpus)
    init_process_group(run_opts)
    for stage_overrides in training_stages(hparams_file, overrides):
        train_stage(hparams_file, run_opts, stage_overrides)


def train_stage(hparams_file, run_opts, overrides):
    """One stage of a training, of which most trainings have no other.

    Prepares the data, trains, and verifies the best checkpoint.

    Arguments
    ---------
    hparams_file : str
        Of `parse_recipe_arguments`.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options.
    overrides : dict
        Of `training_stages`.
    """
    hparams = load_training(hparams_file, overrides)

    # Data: manifests, trial lists, speakers
    run_on_main(hparams["prepare_data"])
    paths = manifest_paths(hparams["save_folder"])
    train_utterances = read_manifest(paths["train"])
    speakers = speaker_classes(train_utterances, hparams["speeds"])
    write_json(Path(hparams["save_folder"]) / "speakers.json", speakers)
    label_encoder = sb.dataio.encoder.CategoricalEncoder()
    label_encoder.update_from_iterable(speakers)
    label_encoder.expect_len(len(speakers))
    train_data = hparams["training_dataset"](
        train_utterances,
        label_encoder,
        hparams["sample_rate"],
        hparams["sentence_len"],
        hparams["speeds"],
    )
    valid_loader = embedding_loader(
        read_manifest(paths["valid"]),
        hparams["sample_rate"],
        hparams["max_batch_duration"],
        hparams["num_workers"],
    )

    # Model
    modules, checkpointer = hparams["modules"], hparams["checkpointer"]
    modules["classifier"] = hparams["classifier"](out_neurons=len(speakers))
    if hparams["start_from"] is not None:
        start_from_training(modules, hparams["start_from"], speakers)
    checkpointer.add_recoverable("classifier", modules["classifier"])
    if any(p.requires_grad for p in modules["encoder"].parameters()):
        checkpointer.add_recoverable("encoder", modules["encoder"])
    brain = hparams["brain_class"](
        modules=modules,
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=checkpointer,
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

    # Test
    speaker_model = SpeakerRecognition.from_training(
        hparams["output_folder"], brain.device
    )
    verify(
        speaker_model,
        paths["test"],
        paths["test_trials"],
        Path(hparams["output_folder"]) / "test",
        threshold=speaker_model.threshold,
        details=run_details(hparams_file, hparams),
        max_batch_duration=hparams["max_batch_duration"],
        num_workers=hparams["num_workers"],
    )

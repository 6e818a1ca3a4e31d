"""Pre-trains a small SSL encoder by masked prediction.

    python recipes/Pretrain/train.py hparams/pretrain_wavlm.yaml \\
        --dataset folder --data_folder /data/LibriSpeech/train-clean-100

Leaves in <output_folder>/encoder what `ssl_hub` takes. A killed run goes on
where it was when the same command is given again.
"""

import sys
from pathlib import Path

from speechbrain_ext.config import read_configuration
from speechbrain_ext.dataio.datasets import crop_pair_dataset
from speechbrain_ext.dataio.manifests import manifest_paths, read_manifest
from speechbrain_ext.training.checks import check_trainings
from speechbrain_ext.training.pretraining import (
    PretrainingBrain,
    export_encoder,
    fit_units,
    validation_loader,
)
from speechbrain_ext.training.recipes import init_process_group, start_training
from speechbrain_ext.training.steps import training_utterances
from speechbrain_ext.utils.distributed import on_main_process
from speechbrain_ext.utils.errors import one_line_errors


def main(arguments):
    """Prepares the data, clusters the targets, trains, saves the encoder."""
    configuration = read_configuration(arguments)
    configuration.check_effect()
    check_trainings([configuration])
    init_process_group(configuration.run_opts)
    hparams = start_training(configuration)

    # Data: pairs of crops
    on_main_process(hparams["prepare_data"])
    paths = manifest_paths(hparams["save_folder"])
    train_data, valid_data = (
        crop_pair_dataset(
            utterances,
            hparams["sample_rate"],
            hparams["sentence_len"],
            change_voice,
        )
        for utterances, change_voice in (
            (training_utterances(hparams, paths["train"]), hparams["change_voice"]),
            (read_manifest(paths["valid"]), None),
        )
    )
    loading = {
        "batch_size": hparams["batch_size"],
        "num_workers": hparams["num_workers"],
    }
    valid_loader = validation_loader(valid_data, **loading)

    # Targets
    units_file = Path(hparams["output_folder"]) / "units.safetensors"
    on_main_process(
        fit_units,
        hparams["units"],
        units_file,
        train_data,
        hparams["n_units_utterances"],
        loading,
        hparams["sentence_len"],
        hparams["change_voice"],
        hparams["checkpointer"].find_checkpoint() is not None,
    )
    hparams["units"].load(units_file)

    # Training
    brain = PretrainingBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=configuration.run_opts,
        checkpointer=hparams["checkpointer"],
        units=hparams["units"],
    )
    brain.fit(
        hparams["epoch_counter"],
        train_data,
        valid_loader,
        train_loader_kwargs=loading,
    )
    on_main_process(export_encoder, hparams["encoder"], hparams["output_folder"])


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

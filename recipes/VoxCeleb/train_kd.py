"""Trains a small student on a teacher's embeddings, and verifies it.

    python recipes/VoxCeleb/train_kd.py hparams/kd_xvector_fc.yaml \\
        --dataset voxceleb1 --data_folder /data/VoxCeleb1 \\
        --targets='[utterance, sp_aggr]'

The teacher is trained where `teacher` holds no finished training, its
embeddings of the training set are extracted once, the student learns them,
and cosine and PLDA verify it. Each step goes on where it was when the same
command is given again. Writes test/ (cosine) and verification_plda/.
"""

import dataclasses
import sys
from pathlib import Path

import train
from speechbrain.utils.logger import get_logger

from speechbrain_ext.config import read_configuration, training_stages
from speechbrain_ext.dataio.manifests import manifest_paths, read_manifest
from speechbrain_ext.dataio.settings import DataSettings
from speechbrain_ext.inference.extraction import extract_embeddings
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.training.checks import check_trainings
from speechbrain_ext.training.finished import (
    check_settings,
    is_finished,
    mark_finished,
    start_settings,
)
from speechbrain_ext.training.recipes import (
    init_process_group,
    plda_configuration,
    sibling_configuration,
)
from speechbrain_ext.training.verification import run_verification
from speechbrain_ext.utils.distributed import device_of, on_main_process
from speechbrain_ext.utils.errors import InputError, one_line_errors

logger = get_logger("train_kd")

# What teacher and student have in common
DATA_KEYS = (
    *(field.name for field in dataclasses.fields(DataSettings)),
    "shards_folder",
    "precision",
    "eval_precision",
    "num_workers",
    "max_batch_duration",
)


def main(arguments):
    """Checks all parts, and runs the steps that are not done yet."""
    configuration = read_configuration(arguments)
    values = configuration.values()
    unknown = sorted(set(values["targets"]) - set(values["target_models"]))
    if unknown:
        raise InputError(
            f"targets: no {', '.join(unknown)}; the teacher has "
            + ", ".join(values["target_models"])
        )
    check_trainings(training_stages(configuration))
    aggregated = [name for name in values["targets"] if name in values["aggregations"]]
    if "aggregation_overrides" in configuration.given and not aggregated:
        raise InputError(
            "aggregation_overrides has no effect with targets: "
            f"{', '.join(values['targets'])}; add one of "
            f"{', '.join(values['aggregations'])}, or leave it out"
        )
    teacher = {**values["teacher_overrides"], "output_folder": values["teacher"]}
    parts = [
        part_configuration(configuration, values, values["teacher_hparams"], teacher),
        *(
            part_configuration(
                configuration,
                values,
                values["aggregations"][name],
                values["aggregation_overrides"],
            )
            for name in aggregated
        ),
    ]
    plda = plda_configuration(configuration)
    check_trainings(parts)
    for part in parts:
        check_part(part)
    init_process_group(configuration.run_opts)

    # Teacher
    for part in parts:
        train_unless_done(part)

    # Targets
    utterances = read_manifest(
        manifest_paths(Path(values["teacher"]) / "save")["train"]
    )
    target_models = configuration.build(["target_models"])["target_models"]
    device = device_of(configuration.run_opts)
    folder = Path(values["targets_folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in values["targets"]:
        extract_embeddings(
            target_models[name](trust_source=values["trust_source"]).to(device),
            utterances,
            folder / f"{name}.safetensors",
            values["max_batch_duration"],
            values["num_workers"],
        )

    # Student: of the dimension of its targets, unless it has heads for them
    if not values["separate_heads"]:
        targets = configuration.build(["target_embeddings"])["target_embeddings"]
        dim = sum(targets.sizes.values())
        configuration = configuration.with_values({"emb_dim": dim})
    train.train(configuration)
    print_size(values["teacher"], values["output_folder"], values["trust_source"])
    run_verification(plda)


def part_configuration(configuration, values, hparams, overrides):
    """Makes the configuration of the teacher's training, or an aggregation's."""
    settings = {
        **{key: values[key] for key in DATA_KEYS},
        **values["teacher_training"],
        **overrides,
    }
    return sibling_configuration(configuration, hparams, settings)


def print_size(teacher, student, trust_source):
    """Says how much smaller than its teacher a student is."""
    models = [
        # The student has just been trained here.
        SpeakerRecognition.from_training(student, trust_source=True),
        SpeakerRecognition.from_training(teacher, trust_source=trust_source),
    ]
    sizes = [sum(p.numel() for p in model.parameters()) for model in models]
    logger.info(
        f"The student has {sizes[0]:,} parameters, "
        f"{100 * (1 - sizes[0] / sizes[1]):.0f} % fewer than "
        f"its teacher's {sizes[1]:,}."
    )


def check_part(part):
    """Refuses a folder where a part was trained with other settings.

    A training that was started by another command is taken as it is.
    """
    check_settings(part.values()["output_folder"], part.settings())


def train_unless_done(part):
    """Trains one of the teacher's parts, unless it is there."""
    folder = Path(part.values()["output_folder"])
    if is_finished(folder) or (folder / "test" / "metrics.json").is_file():
        logger.info(f"'{folder}' is trained already.")
        return
    on_main_process(start_settings, folder, part.settings())
    train.train(part)
    on_main_process(mark_finished, folder)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

"""Trains a small student on a teacher's embeddings, and verifies it.

    python recipes/VoxCeleb/train_kd.py hparams/kd_xvector_fc.yaml \\
        --dataset voxceleb1 --data_folder /data/VoxCeleb1 \\
        --targets='[utterance, sp_aggr]'

The teacher is trained where `teacher` holds no finished training, its
embeddings of the training set are extracted once, the student learns them,
and cosine and PLDA verify it. Each step goes on where it was when the same
command is given again. Writes test/ (cosine) and verification_plda/.
"""

import sys
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

from speechbrain_ext.config import select_keys
from speechbrain_ext.dataio.prepare import manifest_paths, read_manifest
from speechbrain_ext.inference.extraction import extract_embeddings
from speechbrain_ext.training.recipes import (
    init_process_group,
    parse_recipe_arguments,
)
from speechbrain_ext.training.train import train_and_verify
from speechbrain_ext.training.verification import run_verification
from speechbrain_ext.utils.errors import InputError, one_line_errors

logger = get_logger("train_kd")

# What teacher and student have in common
DATA_KEYS = (
    "seed", "dataset", "data_folder", "verification_file",
    "valid_verification_file", "valid_speakers", "test_speakers",
    "n_valid_trials", "n_test_trials", "min_duration", "allow_broken",
    "sample_rate", "precision", "num_workers", "max_batch_duration",
)  # fmt: skip


def main(arguments):
    """Runs the steps that are not done yet."""
    hparams_file, run_opts, overrides = parse_recipe_arguments(arguments)
    init_process_group(run_opts)
    with open(hparams_file, encoding="utf-8") as fin:
        content = YAML().load(resolve_references(fin, overrides))
    settings = dict(content)
    unknown = sorted(set(settings["targets"]) - set(settings["target_models"]))
    if unknown:
        raise InputError(
            f"targets: no {', '.join(unknown)}; the teacher has "
            + ", ".join(settings["target_models"])
        )
    shared = {key: settings[key] for key in DATA_KEYS}
    device = run_opts.device or infer_device()
    shared["device"] = device
    yaml_folder = Path(arguments[0]).parent

    # Teacher, and a dictionary on its layers
    needed = ["teacher"]
    if "lde_aggr" in settings["targets"]:
        needed.append("lde")
    for name in needed:
        train_unless_done(
            yaml_folder / settings[f"{name}_hparams"],
            {
                **shared,
                **settings["teacher_training"],
                **settings[f"{name}_overrides"],
            },
            settings[name],
        )

    # Targets
    utterances = read_manifest(
        manifest_paths(Path(settings["teacher"]) / "save")["train"]
    )
    target_models = load_hyperpyyaml(
        select_keys(content, ["target_models"], hparams_file)
    )["target_models"]
    folder = Path(settings["targets_folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in settings["targets"]:
        extract_embeddings(
            target_models[name]().to(device),
            utterances,
            folder / f"{name}.safetensors",
            settings["max_batch_duration"],
            settings["num_workers"],
        )

    # Student
    train_and_verify(arguments)
    run_verification(
        [
            str(yaml_folder / "verification_plda.yaml"),
            f"--trained_model={settings['output_folder']}",
            f"--lda_dim={settings['lda_dim']}",
            f"--device={device}",
        ]
    )


def train_unless_done(hparams_file, overrides, output_folder):
    """Trains one of the teacher's parts, unless its test results are there."""
    if (Path(output_folder) / "test" / "metrics.json").is_file():
        logger.info(f"'{output_folder}' is trained already.")
        return
    options = {**overrides, "output_folder": output_folder}
    train_and_verify(
        [
            str(hparams_file),
            *(
                f"--{key}={'null' if value is None else value}"
                for key, value in options.items()
            ),
        ]
    )


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

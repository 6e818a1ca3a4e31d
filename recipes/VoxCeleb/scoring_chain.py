"""Scores a trained model step by step on several trial lists.

    python recipes/VoxCeleb/scoring_chain.py hparams/verification_chain.yaml \\
        --trained_model results/lap_wavlm/1986/large_margin \\
        --trials_from voxceleb1 --test_folder /data/VoxCeleb1 \\
        --trial_lists='[vox1-o, vox1-e, vox1-h]'

Embeds the utterances of all lists once. Writes what a verification writes to
<output_folder>/<list>/<step>, and all rows to <output_folder>/chain.md and
chain.csv.
"""

import sys
from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from speechbrain_ext.config import RUN_OPTIONS_WITHOUT_BRAIN, read_configuration
from speechbrain_ext.inference.extraction import extract_embeddings, store_path
from speechbrain_ext.inference.verification import TrialSet
from speechbrain_ext.schema import check_effect
from speechbrain_ext.training.recipes import init_process_group, start_experiment
from speechbrain_ext.training.verification import (
    extraction_options,
    load_speaker_model,
    prepare_verification,
    score_and_report,
    train_backend,
)
from speechbrain_ext.utils.errors import InputError, one_line_errors
from speechbrain_ext.utils.tables import write_table


def main(arguments):
    """Loads the model, embeds all utterances, and scores each list and step."""
    # Hyperparameters, those of each step with its changes
    configuration = read_configuration(arguments, run_options=RUN_OPTIONS_WITHOUT_BRAIN)
    init_process_group(configuration.run_opts)
    hparams = configuration.values()
    folder = Path(hparams["output_folder"])
    steps = {
        step: configuration.with_values(settings or {}, f"steps: {step}").build()
        for step, settings in hparams["steps"].items()
    }
    check_effect(set(configuration.given) - {"verification_file"}, steps.values())
    lists = {
        Path(str(trial_list or "trials")).stem: {
            **hparams,
            "verification_file": trial_list or hparams["verification_file"],
        }
        for trial_list in hparams["trial_lists"]
    }
    if len(lists) < len(hparams["trial_lists"]):
        raise InputError("trial_lists: two lists have the same file name; rename one")
    speaker_model = load_speaker_model(hparams, configuration.run_opts)
    start_experiment(configuration, folder)

    # Trials, and one store with the embeddings of all lists
    trial_sets, utterances, manifests = {}, {}, set()
    for name, settings in lists.items():
        settings = {**settings, "output_folder": str(folder / name)}
        manifest, trial_list = prepare_verification(settings, speaker_model)
        trial_sets[name] = TrialSet.read(manifest, trial_list)
        utterances.update(trial_sets[name].utterances)
        manifests.add(manifest)
    together = manifests.pop() if len(manifests) == 1 else folder / "test.csv"
    store = extract_embeddings(
        speaker_model,
        utterances,
        store_path(speaker_model, together, store_folder=folder),
        **extraction_options(hparams),
    )

    # Scores, metrics and plots of each step
    rows = []
    for step, settings in steps.items():
        train_backend(settings, speaker_model)
    for name, trial_set in trial_sets.items():
        for step, settings in steps.items():
            output_folder = folder / name / step.replace(" ", "_")
            output_folder.mkdir(parents=True, exist_ok=True)
            metrics = score_and_report(
                {**settings, "output_folder": str(output_folder)},
                speaker_model,
                store,
                trial_set,
                {"trials": lists[name]["verification_file"], "scores": step},
            )
            if if_main_process():
                rows.append(
                    {
                        "trials": name,
                        "scores": step,
                        "EER %": f"{100 * metrics['EER']:.2f}",
                        "minDCF 0.01": f"{metrics['minDCF_0.01']:.3f}",
                        "minDCF 0.05": f"{metrics['minDCF_0.05']:.3f}",
                    }
                )
                write_table(folder / "chain", rows)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])

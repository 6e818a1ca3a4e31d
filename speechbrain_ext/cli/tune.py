"""speechbrain-ext tune."""

from pathlib import Path

import click

from speechbrain_ext.cli.models import load
from speechbrain_ext.cli.options import (
    COST,
    PROBABILITY,
    RATE,
    Command,
    InputFile,
    as_json,
    model_options,
    note,
    recording_options,
    show,
)
from speechbrain_ext.cli.recordings import embed_many, require_whole
from speechbrain_ext.utils.errors import InputError

EXAMPLES = """
speechbrain-ext tune ltdnn trials.txt --data_folder recordings
speechbrain-ext tune ltdnn trials.txt --far 0.01
speechbrain-ext tune ltdnn trials.txt --p_target 0.01 --c_miss 10
"""


@click.command(cls=Command, examples=EXAMPLES)
@model_options
@click.argument("trials", type=InputFile())
@click.option(
    "--data_folder",
    help="What the paths of the trials are below; default: the working directory.",
)
@click.option(
    "--far",
    type=RATE,
    help="Highest false acceptance rate, for a threshold at it; default: the EER.",
)
@click.option(
    "--p_target",
    type=PROBABILITY,
    help="Prior, for a threshold of the least detection cost (DCF).",
)
@click.option("--c_miss", type=COST, help="Its cost of a miss.")
@click.option("--c_fa", type=COST, help="Its cost of a false alarm.")
@recording_options
@click.option("--dry_run", is_flag=True, help="Leave the folder as it is.")
@as_json
def command(
    source, device, revision, trust_source, trials, data_folder, far, p_target, c_miss,
    c_fa, window_length, window_overlap, min_speech, dry_run, as_json,
):  # fmt: skip
    """Set the threshold of SOURCE on one's own TRIALS ('label enrol test' lines).

    It is written into calibration.json and README.md of an exported folder, with the
    data that it is from and its 95 % bootstrap interval over speakers.
    """
    import tempfile

    from speechbrain_ext.dataio.recordings import find_recordings
    from speechbrain_ext.dataio.trials import Trials, read_trials
    from speechbrain_ext.inference.sources import is_training
    from speechbrain_ext.inference.tuning import keep_scoring, score_trials, tune

    costs = {"p_target": p_target, "c_miss": c_miss, "c_fa": c_fa}
    costs = {name: value for name, value in costs.items() if value is not None}
    if costs and far is not None:
        raise InputError("--far goes with none of --p_target, --c_miss and --c_fa")
    if costs:
        costs = {"p_target": 0.01, "c_miss": 1.0, "c_fa": 1.0, **costs}
    writable = Path(source).is_dir() and not is_training(source)
    if not writable and not dry_run:
        raise InputError(
            f"'{source}' is no folder that `speechbrain-ext export` wrote, so the "
            "threshold cannot be kept; export or download it first, or give --dry_run"
        )
    listed = read_trials(trials)
    files = {name: str(Path(data_folder or ".") / name) for name in listed.utterances()}
    utterances, broken = find_recordings(files.values())
    require_whole(broken)
    model = load(source, device, revision, trust_source)
    with tempfile.TemporaryDirectory() as folder:
        store, left_out, _ = embed_many(
            model, utterances, Path(folder) / "tune.safetensors", window_length,
            window_overlap, min_speech,
        )  # fmt: skip
    kept = [
        (label, files[enrol], files[test])
        for label, enrol, test in zip(listed.labels, listed.enrol, listed.test)
        if files[enrol] not in left_out and files[test] not in left_out
    ]
    if not {0, 1} <= {label for label, *_ in kept}:
        raise InputError("too little is left: no target or no non-target trial")
    kept = Trials(*map(list, zip(*kept)))
    tuned = tune(kept, score_trials(model, kept, store), far, costs)
    low, high = tuned.interval
    threshold_from = (
        f"{tuned.point} of {len(kept)} trials of {Path(trials).name} "
        f"(95 % interval {low:.4f} to {high:.4f})"
    )
    if not dry_run:
        model.scoring.threshold = tuned.threshold
        model.scoring.threshold_from = threshold_from
        keep_scoring(source, model.scoring)
    show(
        f"threshold {tuned.threshold:.4f}, from {threshold_from}: FAR "
        f"{100 * tuned.far:.2f} %, FRR {100 * tuned.frr:.2f} %",
        {**tuned._asdict(), "threshold_from": threshold_from, "trials": len(kept)},
        as_json,
    )
    if dry_run:
        note(f"'{source}' is as it was")

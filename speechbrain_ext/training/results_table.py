"""Collects trainings into one table, beside the papers' figures.

    speechbrain-ext results-table results

Finds the test results of all trainings below a folder; trainings whose folders
differ in nothing but the seed are one row, with mean and range. Measures
parameters and the latency of each system and encoder, batches of one utterance
of 2 to 32 s, once for each machine. Writes

- results_table.md and .csv: the papers' EER, ours, trials, parameters, latency
  and the exact command;
- costs.png and .pdf: parameters and latency of each back end and encoder (after
  figure 4 of arXiv 2409.07770).

The papers' figures are those of published_results.csv beside this file: of
systems with the same encoder, training set and trial list, nothing else.
"""

import csv
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from ruamel.yaml import YAML
from tqdm import tqdm

from speechbrain_ext.dataio.prepare import resolve_test_trials
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.plots.training import plot_costs
from speechbrain_ext.training.grids import over_seeds, read_metrics
from speechbrain_ext.utils.cache_keys import make_once, stable_hash
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import write_json
from speechbrain_ext.utils.tables import write_table

PUBLISHED = Path(__file__).with_name("published_results.csv")
DURATIONS = (2, 4, 8, 16, 32)  # seconds
N_REPEATS = 5


def find_trainings(folder):
    """Finds the trainings below a folder, by setting.

    Arguments
    ---------
    folder : str or Path
        With <name>/<seed>/test/metrics.json, or <name>/<seed>/<stage>/..., at
        any depth.

    Returns
    -------
    dict
        For each name, relative to the folder, the trainings' folders, one for
        each seed, in their order.

    Raises
    ------
    InputError
        If there is none.

    Example
    -------
    >>> folder = Path(getfixture("tmpdir"))
    >>> for seed in (1, 2):
    ...     metrics = folder / f"ltdnn/{seed}/test/metrics.json"
    ...     write_json(metrics, {"system": "ltdnn_wavlm", "seed": seed})
    >>> {name: len(runs) for name, runs in find_trainings(folder).items()}
    {'ltdnn': 2}
    """
    folder = Path(folder)
    found = {}
    for file in folder.glob("**/test/metrics.json"):
        metrics = read_metrics(file.parent)
        if "system" in metrics:
            run, seed = file.parents[1], metrics["seed"]
            parts = run.relative_to(folder).parts
            name = "/".join(part for part in parts if part != str(seed))
            found.setdefault(name, []).append((seed, run))
    if not found:
        raise InputError(
            f"'{folder}' has no test results of trainings (test/metrics.json)"
        )
    return {name: [run for _, run in sorted(found[name])] for name in sorted(found)}


def published_eer(system, stage, encoder, dataset, trials):
    """The EER of a paper for the same system, encoder, training set and trials.

    Arguments
    ---------
    system : str
        Name of the YAML.
    stage : str
        Of the training; empty where it has none.
    encoder : str or None
        As of `ssl_hub`.
    dataset : str
        Of the training.
    trials : str or None
        Name of the test list.

    Returns
    -------
    str
        EER in per cent and its source; empty where there is none.

    Example
    -------
    >>> lap = "lap_wavlm", "large_margin"
    >>> published_eer(*lap, "microsoft/wavlm-large", "voxceleb2", "vox1-o")
    '0.37 (arXiv 2512.22148)'
    >>> published_eer(*lap, "speechbrain_ext/wavlm-small", "voxceleb2", "vox1-o")
    ''
    """
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (
                (row["system"], row["stage"], row["dataset"], row["trials"])
                == (system, stage, dataset, trials)
                # Without an encoder in the table: the best one of the paper
                and (row["encoder"] or encoder) == encoder
                and not str(encoder).startswith("speechbrain_ext/")
            ):
                return f"{row['EER %']} ({row['source']})"
    return ""


def measure_latency(speaker_model, durations=DURATIONS, n_repeats=N_REPEATS):
    """Median time of embedding an utterance, by its duration.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        The trained model.
    durations : list of float
        In seconds.
    n_repeats : int
        Measurements of each, after one that does not count.

    Returns
    -------
    dict
        For "encoder" and "back_end", milliseconds for each duration.

    Example
    -------
    >>> from speechbrain_ext.lobes import MaskedXvector
    >>> from speechbrain_ext.lobes.features import NormalizedFbank
    >>> model = SpeakerRecognition(
    ...     NormalizedFbank(24), MaskedXvector(in_channels=24), 16000, threshold=0.25
    ... )
    >>> latency = measure_latency(model, durations=[1], n_repeats=1)
    >>> latency["back_end"]["1"] > 0
    True
    """
    latency = {"encoder": {}, "back_end": {}}
    generator = torch.Generator().manual_seed(0)
    for duration in durations:
        n_samples = int(duration * speaker_model.sample_rate)
        wav = 0.1 * torch.randn(1, n_samples, generator=generator)
        wav, lengths = wav.to(speaker_model.device), torch.ones(1).to(wav)
        times = {"encoder": [], "back_end": []}
        with torch.no_grad():
            for _ in range(n_repeats + 1):
                start = _now(speaker_model.device)
                features = speaker_model.encoder(wav, lengths)
                middle = _now(speaker_model.device)
                speaker_model.embedding_model(*features)
                times["encoder"].append(middle - start)
                times["back_end"].append(_now(speaker_model.device) - middle)
        for part, seconds in times.items():
            latency[part][f"{duration}"] = 1000 * statistics.median(seconds[1:])
    return latency


def _now(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def model_name(metrics):
    """Name of a model by what its cost depends on.

    Arguments
    ---------
    metrics : dict
        Of a training.

    Returns
    -------
    str
        System, encoder and parameters of the back end.

    Example
    -------
    >>> model_name(
    ...     {
    ...         "system": "ltdnn_wavlm", "ssl_hub": "microsoft/wavlm-base",
    ...         "parameters": {"embedding_model": 5_717_272},
    ...     }
    ... )
    'ltdnn_wavlm, wavlm-base, 5.72 M'
    """
    encoder = [Path(metrics["ssl_hub"]).name] if metrics["ssl_hub"] else []
    parameters = f"{metrics['parameters']['embedding_model'] / 1e6:.2f} M"
    return ", ".join([metrics["system"], *encoder, parameters])


def latency_of(run, device):
    """Latency of a training's model, measured once for model and machine.

    Arguments
    ---------
    run : Path
        Its output_folder; the figures are kept in test/latency.json.
    device : str
        Where to measure.

    Returns
    -------
    dict
        As of `measure_latency`.
    """
    file = run / "test" / "latency.json"
    key = {
        "host": platform.node(),
        "device": torch.cuda.get_device_name() if "cuda" in device else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        # Time depends on the architecture, not on the weights.
        "hyperparams": stable_hash((run / "hyperparams.yaml").read_text("utf-8")),
        "durations": DURATIONS,
        "n_repeats": N_REPEATS,
    }

    def measure():
        model = SpeakerRecognition.from_training(run, device)
        write_json(file, {"milliseconds": measure_latency(model)})

    make_once(file, key, measure)
    return json.loads(file.read_text(encoding="utf-8"))["milliseconds"]


def table_row(name, runs, latency):
    """The row of one setting.

    Arguments
    ---------
    name : str
        Of the setting.
    runs : list of Path
        Its trainings, one for each seed.
    latency : dict
        As of `measure_latency`.

    Returns
    -------
    dict
        Columns and their values.
    """
    metrics = [read_metrics(run / "test") for run in runs]
    first = metrics[0]
    content = YAML().load((runs[0] / "hyperparams.yaml").read_text("utf-8"))
    trials = resolve_test_trials(
        first["dataset"],
        content.get("verification_file"),
        content.get("valid_verification_file"),
    )
    stage = runs[0].name if "stages" in content else ""
    total = {
        duration: latency["encoder"][duration] + latency["back_end"][duration]
        for duration in latency["encoder"]
    }
    return {
        "name": name,
        "system": first["system"],
        "encoder": first["ssl_hub"] or "-",
        "trained on": first["dataset"],
        "trials": trials or "drawn",
        "paper EER %": published_eer(
            first["system"], stage, first["ssl_hub"], first["dataset"], trials
        ),
        "EER %": over_seeds([100 * run["EER"] for run in metrics], 2),
        "minDCF 0.01": over_seeds([run["minDCF_0.01"] for run in metrics], 3),
        "seeds": len(runs),
        "number of trials": first["n_target"] + first["n_nontarget"],
        "back-end parameters": first["parameters"]["embedding_model"],
        "encoder parameters": first["parameters"]["encoder"],
        **{f"ms for {d} s": f"{ms:.0f}" for d, ms in total.items()},
        "command": f"`{first['command']}`",
    }


def results_table(results, output_folder=None, device="cpu"):
    """Measures, and writes table and figure.

    Arguments
    ---------
    results : str or Path
        As of `find_trainings`.
    output_folder : str or Path
        Where to write; the same folder if None.
    device : str
        Where to measure latency.

    Returns
    -------
    list of Path
        The files.
    """
    output_folder = Path(output_folder or results)
    rows, costs = [], {}
    trainings = find_trainings(results)
    for name, runs in tqdm(trainings.items(), desc="Measuring latency", disable=None):
        # The same model costs the same, whatever it was trained on.
        first = read_metrics(runs[0] / "test")
        model, parameters = model_name(first), first["parameters"]["embedding_model"]
        if model not in costs:
            costs[model] = parameters, latency_of(runs[0], device)
        rows.append(table_row(name, runs, costs[model][1]))
    files = write_table(output_folder / "results_table", rows)
    return [*files, *plot_costs(output_folder / "costs", costs)]

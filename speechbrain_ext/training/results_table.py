"""Collects trainings into one table, beside the papers' figures.

    speechbrain-ext results-table results

Finds the test results of all trainings below a folder, and what
recipes/VoxCeleb/scoring_chain.py has left in theirs; trainings whose folders
differ in nothing but the seed are one row, with mean and range. Measures
parameters and the latency of each system and encoder, batches of one utterance
of 2 to 32 s, once for each machine. Writes

- results_table.md and .csv: EER*, EER and minDCF of ours and of the papers,
  trials, parameters, latency and the exact command;
- relative_gains.md and .csv: how much less L-TDNN errs than SUPERB's sum with
  either back end, by encoder, here and in arXiv 2409.07770;
- costs.png and .pdf: parameters and latency of each back end and encoder (after
  figure 4 of arXiv 2409.07770).

The papers' figures are those of published_results.csv beside this file: of
systems with the same encoder, training set and trial list, nothing else. Where
that file names no trial list, the corpus has none of its own, and each draws
or publishes its own list.
"""

import csv
import platform
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm

from speechbrain_ext.dataio.manifests import manifest_paths, read_manifest
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.plots.training import plot_costs
from speechbrain_ext.training.grids import eer_star_over_seeds, over_seeds, read_metrics
from speechbrain_ext.utils.cache_keys import make_once, stable_hash
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import read_json, write_json
from speechbrain_ext.utils.tables import write_table

PUBLISHED = Path(__file__).with_name("published_results.csv")
DURATIONS = (2, 4, 8, 16, 32)  # seconds
N_REPEATS = 5
METRICS = ("EER* %", "EER %", "minDCF 0.01")

# The comparison of arXiv 2409.07770, tables I and II, and what its text says of it
LTDNN, RIVALS = "ltdnn_wavlm", ("superb_xvector", "superb_ecapa")
BASE_ENCODERS = (
    "facebook/wav2vec2-base", "facebook/hubert-base-ls960", "microsoft/wavlm-base",
)  # fmt: skip
PAPERS_TEXT = {
    ("superb_xvector", "base encoders"): "45 / -",
    ("superb_ecapa", "base encoders"): "14 / -",
    ("superb_ecapa", "microsoft/wavlm-base-plus"): "9 / 9",
    ("superb_ecapa", "microsoft/wavlm-large"): "15 / 11",
}


def find_trainings(folder):
    """Finds the trainings below a folder, by setting.

    Arguments
    ---------
    folder : str or Path
        Folder with <name>/<seed>/test/metrics.json, or <name>/<seed>/<stage>/..., at
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


def read_published():
    """The papers' figures.

    Returns
    -------
    list of dict
        Rows with system, stage, encoder, dataset, trials, the metrics and source.

    Example
    -------
    >>> len(read_published()) > 64
    True
    """
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def published_figures(system, stage, encoder, dataset, trials):
    """A paper's figures for the same system, encoder, training set and trials.

    Arguments
    ---------
    system : str
        Name of the YAML.
    stage : str or None
        Stage of the training; None where it has none.
    encoder : str or None
        See `ssl_hub`.
    dataset : str
        Corpus of the training.
    trials : str or None
        Name of the test list; None where it is drawn.

    Returns
    -------
    dict
        For the columns "EER* %", "EER %", "minDCF 0.01" and "source" what the
        paper has; empty text where it has nothing.

    Example
    -------
    >>> lap = "lap_wavlm", "large_margin"
    >>> published_figures(*lap, "microsoft/wavlm-large", "voxceleb2", "vox1-o")["EER %"]
    '0.37'
    >>> small = "speechbrain_ext/wavlm-small"
    >>> published_figures(*lap, small, "voxceleb2", "vox1-o")["EER %"]
    ''
    """
    own_encoder = str(encoder).startswith("speechbrain_ext/")
    for row in read_published():
        same = (row["system"], row["stage"], row["dataset"]) == (
            system, stage or "", dataset,
        )  # fmt: skip
        if (
            same
            and not own_encoder
            and (row["trials"] or trials) == trials
            # Without an encoder in the table: the best one of the paper
            and (row["encoder"] or encoder) == encoder
        ):
            return {column: row[column] for column in (*METRICS, "source")}
    return dict.fromkeys((*METRICS, "source"), "")


def measure_latency(speaker_model, durations=DURATIONS, n_repeats=N_REPEATS):
    """Median time of embedding an utterance, by its duration.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        The trained model.
    durations : list of float
        Durations in seconds.
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
        times = [
            time_parts(speaker_model, wav.to(speaker_model.device))
            for _ in range(n_repeats + 1)
        ]
        for part, seconds in zip(latency, zip(*times[1:])):
            latency[part][f"{duration}"] = 1000 * statistics.median(seconds)
    return latency


def time_parts(speaker_model, wav):
    """Time of embedding one utterance.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        The trained model.
    wav : torch.Tensor
        On its device, of shape (1, time).

    Returns
    -------
    tuple of float
        Seconds of the encoder and of the back end.
    """
    with torch.no_grad():
        start = _now(wav.device)
        features = speaker_model.encoder(wav, torch.ones(1, device=wav.device))
        middle = _now(wav.device)
        speaker_model.embedding_model(*features)
        return middle - start, _now(wav.device) - middle


def _now(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def model_name(metrics):
    """Name of a model by what its cost depends on.

    Arguments
    ---------
    metrics : dict
        Metrics of a training.

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


def latency_key(run, device):
    """What a latency depends on, but for the utterances.

    Arguments
    ---------
    run : Path
        output_folder of the training.
    device : str
        Where it is measured.

    Returns
    -------
    dict
        For `make_once`.
    """
    return {
        "host": platform.node(),
        "device": torch.cuda.get_device_name() if "cuda" in device else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        # Time depends on the architecture, not on the weights.
        "hyperparams": stable_hash((run / "hyperparams.yaml").read_text("utf-8")),
    }


def latency_of(run, device, trust_source=False):
    """Latency of a training's model, measured once for model and machine.

    Arguments
    ---------
    run : Path
        Its output_folder; the figures are kept in test/latency.json.
    device : str
        Where to measure.
    trust_source : bool
        See `SpeakerRecognition.from_training`.

    Returns
    -------
    dict
        Latency, as `measure_latency` gives it.
    """
    file = run / "test" / "latency.json"
    key = {
        **latency_key(run, device), "durations": DURATIONS, "n_repeats": N_REPEATS
    }  # fmt: skip

    def measure():
        model = SpeakerRecognition.from_training(run, device, trust_source)
        write_json(file, {"milliseconds": measure_latency(model)})

    make_once(file, key, measure)
    return read_json(file)["milliseconds"]


def latency_over_trials(run, device, trust_source=False):
    """Median time of embedding the utterances of a training's test trials.

    Arguments
    ---------
    run : Path
        Its output_folder; the figures are kept in test/latency_over_trials.json.
    device : str
        Where to measure.
    trust_source : bool
        See `SpeakerRecognition.from_training`.

    Returns
    -------
    float
        Milliseconds of encoder and back end together.
    """
    file = run / "test" / "latency_over_trials.json"
    manifest = manifest_paths(run / "save")["test"]
    key = {
        **latency_key(run, device),
        "manifest": stable_hash(Path(manifest).read_text("utf-8")),
    }

    def measure():
        model = SpeakerRecognition.from_training(run, device, trust_source)
        times = []
        for item in tqdm(read_manifest(manifest).values(), desc="Utterances"):
            wav = model.load_audio(item["wav"]).unsqueeze(0).to(device)
            times.append(sum(time_parts(model, wav)))
        # The first one warms up.
        median = 1000 * statistics.median(times[1:] or times)
        write_json(file, {"milliseconds": median})

    make_once(file, key, measure)
    return read_json(file)["milliseconds"]


def table_rows(name, runs, latency, over_trials=None):
    """The rows of one setting: its test, and each list and step of its scores.

    Arguments
    ---------
    name : str
        Name of the setting.
    runs : list of Path
        Its trainings, one for each seed.
    latency : dict
        See `measure_latency`.
    over_trials : float or None
        See `latency_over_trials`.

    Returns
    -------
    list of dict
        Columns and their values.
    """
    of_tests = [read_metrics(run / "test") for run in runs]
    first = of_tests[0]
    rows = [_row(name, first, of_tests, first.get("trials"), "cosine")]
    for folder in sorted((runs[0] / "scoring_chain").glob("*/*/")):
        step = folder.relative_to(runs[0])
        folders = [run / step for run in runs]
        if all((folder / "metrics.json").is_file() for folder in folders):
            metrics = [read_metrics(folder) for folder in folders]
            trials = metrics[0].get("trials") or first.get("trials")
            scores = metrics[0].get("scores", step.name)
            rows.append(_row(name, first, metrics, trials, scores))
    total = {
        duration: latency["encoder"][duration] + latency["back_end"][duration]
        for duration in latency["encoder"]
    }
    cost = {
        "back-end parameters": first["parameters"]["embedding_model"],
        "encoder parameters": first["parameters"]["encoder"],
        **{f"ms for {d} s": f"{ms:.0f}" for d, ms in total.items()},
    }
    if over_trials is not None:
        cost["ms, median over the test"] = f"{over_trials:.1f}"
    return [{**row, **cost, "command": f"`{first['command']}`"} for row in rows]


def _row(name, training, metrics, trials, scores):
    cell = [training.get("stage"), training["ssl_hub"], training["dataset"], trials]
    published = published_figures(training["system"], *cell)
    ours = {
        "EER* %": eer_star_over_seeds(metrics),
        "EER %": over_seeds([100 * run["EER"] for run in metrics], 2),
        "minDCF 0.01": over_seeds([run["minDCF_0.01"] for run in metrics], 3),
    }
    beside = {}
    for column in METRICS:
        beside[column] = ours[column]
        beside[f"paper {column}"] = published[column]
    return {
        "name": name,
        "system": training["system"],
        "stage": training.get("stage") or "-",
        "encoder": training["ssl_hub"] or "-",
        "trained on": training["dataset"],
        "trials": trials or "drawn",
        "scores": scores,
        **beside,
        "source": published["source"],
        "seeds": len(metrics),
        "number of trials": metrics[0]["n_target"] + metrics[0]["n_nontarget"],
    }


def relative_gains(cells):
    """How much less L-TDNN errs than SUPERB's sum with either back end.

    Arguments
    ---------
    cells : dict
        For (system, encoder, training set) its EER* and EER.

    Returns
    -------
    dict
        For (rival, encoder) the shares of EER* and EER by which those of L-TDNN
        are lower, means over the training sets that both have. For the encoders
        "base encoders" and "all encoders" the means over cells.

    Example
    -------
    >>> hub = "microsoft/wavlm-large"
    >>> cells = {("ltdnn_wavlm", hub, "voxceleb1"): (1.8, 1.5)}
    >>> cells["superb_ecapa", hub, "voxceleb1"] = 2.0, 2.0
    >>> star, plain = relative_gains(cells)["superb_ecapa", hub]
    >>> round(star, 2), plain
    (0.1, 0.25)
    """
    of_cells = {}
    for (system, encoder, dataset), errors in cells.items():
        ours = cells.get((LTDNN, encoder, dataset))
        if system in RIVALS and ours is not None:
            gains = [1 - own / other for own, other in zip(ours, errors)]
            groups = [encoder, "all encoders"]
            if encoder in BASE_ENCODERS:
                groups.append("base encoders")
            for group in groups:
                of_cells.setdefault((system, group), []).append(gains)
    return {
        key: tuple(statistics.mean(column) for column in zip(*gains))
        for key, gains in of_cells.items()
    }


def gains_rows(rows):
    """The table of relative gains, of ours and of the paper.

    Arguments
    ---------
    rows : list of dict
        See `table_rows`.

    Returns
    -------
    list of dict
        Columns and their values; ours are empty where a training is missing.
    """
    ours = {}
    for row in rows:
        # A grid may have one cell on several trial lists: the paper's counts.
        if row["scores"] == "cosine" and row["paper EER %"]:
            errors = [float(row[metric].split()[0]) for metric in METRICS[:2]]
            ours[row["system"], row["encoder"], row["trained on"]] = errors
    published = {
        (row["system"], row["encoder"], row["dataset"]): [
            float(row[metric]) for metric in METRICS[:2]
        ]
        for row in read_published()
        if "2409.07770" in row["source"]
    }
    of_ours = relative_gains(ours)
    table = []
    for (rival, encoder), gains in relative_gains(published).items():
        row = {"L-TDNN against": rival, "encoder": encoder}
        for i, metric in enumerate(("EER*", "EER")):
            mine = of_ours.get((rival, encoder))
            row[f"{metric} lower by %"] = "" if mine is None else f"{100 * mine[i]:.1f}"
            row[f"paper's cells: {metric} lower by %"] = f"{100 * gains[i]:.1f}"
        row["paper's text: EER* / EER, %"] = PAPERS_TEXT.get((rival, encoder), "")
        table.append(row)
    return sorted(table, key=lambda row: (row["L-TDNN against"], row["encoder"]))


def results_table(
    results, output_folder=None, device="cpu", over_trials=False, trust_source=False
):
    """Measures, and writes tables and figure.

    Arguments
    ---------
    results : str or Path
        See `find_trainings`.
    output_folder : str or Path
        Where to write; the same folder if None.
    device : str
        Where to measure latency.
    over_trials : bool
        Whether to measure it on the utterances of each model's test trials too.
    trust_source : bool
        See `SpeakerRecognition.from_training`.

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
            costs[model] = parameters, latency_of(runs[0], device, trust_source)
        of_trials = None
        if over_trials:
            of_trials = latency_over_trials(runs[0], device, trust_source)
        rows += table_rows(name, runs, costs[model][1], of_trials)
    files = write_table(output_folder / "results_table", rows)
    files += write_table(output_folder / "relative_gains", gains_rows(rows))
    return [*files, *plot_costs(output_folder / "costs", costs)]

"""From a trained model and trials to scores, metrics and plots."""

import dataclasses
from collections import Counter
from pathlib import Path

from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.dataio.enrolments import (
    enrolment_path,
    match_trials,
    read_enrolments,
    trial_utterances,
)
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.scores import write_scores
from speechbrain_ext.dataio.trials import Trials, draw_trials, read_trials
from speechbrain_ext.dataio.windows import MAX_WHOLE_DURATION
from speechbrain_ext.inference.extraction import extract_embeddings, store_path
from speechbrain_ext.metrics.bootstrap import eer_interval
from speechbrain_ext.metrics.calibration import Cllr, actDCF, minCllr
from speechbrain_ext.metrics.conditions import condition_metrics
from speechbrain_ext.metrics.detection import DetectionCurve, EER_star
from speechbrain_ext.plots.attention import plot_layer_attention
from speechbrain_ext.plots.detection import plot_calibration, plot_det, plot_scores
from speechbrain_ext.processing.backends import CosineBackend
from speechbrain_ext.processing.calibration import (
    Calibration,
    quality_columns,
    vary_durations,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import write_json

logger = get_logger(__name__)


def verification_metrics(trials, scores, threshold=None, speaker_of=None):
    """Metrics of a scored trial list.

    Arguments
    ---------
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Scores, of shape (n_trial,).
    threshold : float
        Threshold of the validation trials, for EER*.
    speaker_of : dict
        Speaker of each utterance id, for the interval of the EER.

    Returns
    -------
    dict
        Numbers of trials, EER and its threshold, normalised minDCF at target
        priors 0.01 and 0.05; with a threshold EER*; with speakers the 95 %
        bootstrap interval of the EER. Rates are between 0 and 1.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> trials = Trials([1, 0], ["a", "a"], ["b", "c"])
    >>> verification_metrics(trials, torch.tensor([0.9, 0.1]))["EER"]
    0.0
    """
    target, nontarget = trials.split_by_label(scores)
    curve = DetectionCurve(target, nontarget)
    eer, eer_threshold = curve.eer()
    metrics = {
        "n_target": len(target),
        "n_nontarget": len(nontarget),
        "EER": eer,
        "EER_threshold": eer_threshold,
        "minDCF_0.01": curve.normalized_min_dcf(p_target=0.01),
        "minDCF_0.05": curve.normalized_min_dcf(p_target=0.05),
    }
    if speaker_of is not None:
        metrics["EER_95"] = eer_interval(
            scores,
            trials.labels,
            [speaker_of[name] for name in trials.enrol],
            [speaker_of[name] for name in trials.test],
        )
    if threshold is not None:
        metrics["EER_star"] = EER_star(target, nontarget, threshold)
        metrics["EER_star_threshold"] = threshold
    return metrics


def cohort_embeddings(
    speaker_model, manifest, per_speaker=None, store_folder=None, **extraction
):
    """Embeddings of the training set, for score normalisation.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        The trained model.
    manifest : str or Path
        Training utterances; the embedding store is beside it.
    per_speaker : int
        Utterances of each speaker, those of the first ids; all if None.
    store_folder : str or Path
        See `store_path`.
    **extraction
        Handed on to `extract_embeddings`.

    Returns
    -------
    EmbeddingStore
        Embeddings of the training set.
    """
    chosen, counts = {}, Counter()
    for name, item in read_manifest(manifest).items():
        counts[item["speaker"]] += 1
        if per_speaker is None or counts[item["speaker"]] <= per_speaker:
            chosen[name] = item
    path = store_path(speaker_model, manifest, store_folder=store_folder)
    return extract_embeddings(speaker_model, chosen, path, **extraction)


def train_calibration(
    kind,
    speaker_model,
    backend,
    manifest,
    output_folder,
    n_trials,
    seed,
    store_folder=None,
    **extraction,
):
    """Trains a calibration on crops of the training speakers.

    Arguments
    ---------
    kind : str
        "linear" for the score alone, "quality" with quality measures.
    speaker_model : SpeakerRecognition
        The trained model.
    backend : Backend
        Gives the scores.
    manifest : str or Path
        Training utterances; the crops' embedding store is beside it.
    output_folder : str or Path
        Where to write calibration.json.
    n_trials : int
        Trials to draw, 30,000 usual.
    seed : int
        Seed of the draw.
    store_folder : str or Path
        See `store_path`.
    **extraction
        Handed on to `extract_embeddings`.

    Returns
    -------
    Calibration
        The trained map.

    Raises
    ------
    InputError
        If the kind is unknown.
    """
    if kind not in ("linear", "quality"):
        raise InputError(f"calibration '{kind}': use linear or quality")
    utterances = read_manifest(manifest)
    n_crops = min(2 * len(utterances), n_trials // 5)
    crops = vary_durations(utterances, n_crops, seed=seed)
    store = extract_embeddings(
        speaker_model,
        crops,
        store_path(speaker_model, manifest, f"-crops-{seed}", store_folder),
        **extraction,
    )
    trials = draw_trials(store.speaker_of(), n_trials, seed)
    scores = backend.score(store, trials)
    names, columns = quality_columns(scores, trials, store, backend.cohort_means(store))
    if kind == "linear":
        names, columns = names[:1], columns[:, :1]
    calibration = Calibration.fit(names, columns, trials.labels, p_target=0.05)
    if if_main_process():
        calibration.save(Path(output_folder) / "calibration.json")
    return calibration


@dataclasses.dataclass
class TrialSet:
    """A trial list with its utterances and enrolments.

    Arguments
    ---------
    trials : Trials
        Trial list with known ids.
    utterances : dict
        Utterances as `read_manifest` gives them, those that the trials compare.
    enrolments : dict
        Utterance ids of each model, where the enrolment ids are models; else
        None.
    """

    trials: Trials
    utterances: dict
    enrolments: dict | None = None

    @classmethod
    def read(cls, manifest, trial_list):
        """Reads a prepared trial list, and the enrolments beside it.

        Arguments
        ---------
        manifest : str or Path
            Utterances, those of the trials among them.
        trial_list : str or Path
            Trials in VoxCeleb's format.

        Returns
        -------
        TrialSet
            What the trials need.

        Raises
        ------
        InputError
            If utterances are unknown or models are not enrolled.
        """
        utterances, trials = read_manifest(manifest), read_trials(trial_list)
        enrolments = None
        if enrolment_path(trial_list).is_file():
            # A model that is a recording itself needs no enrolment.
            alone = {name: [name] for name in trials.enrol if name in utterances}
            enrolments = {**alone, **read_enrolments(enrolment_path(trial_list))}
        trials, enrolments = match_trials(trials, enrolments, utterances, trial_list)
        used = trial_utterances(trials, enrolments)
        return cls(
            trials,
            {name: item for name, item in utterances.items() if name in used},
            enrolments,
        )

    def speaker_of(self):
        """Returns the speaker of each utterance id and of each model."""
        speaker_of = {name: i["speaker"] for name, i in self.utterances.items()}
        models = {}
        for model, names in (self.enrolments or {}).items():
            speakers = sorted({speaker_of[name] for name in names})
            if len(speakers) > 1:
                raise InputError(
                    f"model '{model}' is enrolled from utterances of "
                    f"{' and '.join(speakers[:2])}; give each speaker an own model"
                )
            models[model] = speakers[0]
        return {**speaker_of, **models}


def verify(
    speaker_model,
    manifest,
    trial_list,
    output_folder,
    backend=None,
    threshold=None,
    calibration=None,
    gender_of=None,
    details=None,
    average="embeddings",
    store_folder=None,
    **extraction,
):
    """Embeds each utterance once, scores all trials, writes the results.

    Writes what `verify_embeddings` writes and, where the model attends to
    layers, the layer weights of the first utterance. Under torchrun the
    processes share the embedding.

    Arguments
    ---------
    speaker_model : speechbrain_ext.inference.speaker.SpeakerRecognition
        The trained model.
    manifest : str or Path
        Utterances of the trials; their embedding store is beside it.
    trial_list : str or Path
        Trials in VoxCeleb's format. Where a file of enrolments is beside it,
        as of `enrolment_path`, its enrolment ids are models.
    output_folder : str or Path
        Where to write.
    backend : Backend
        Gives the scores; plain cosine if None.
    threshold : float
        Threshold set on other trials, for EER*.
    calibration : Calibration
        Turns the scores into log-likelihood ratios.
    gender_of : dict
        Gender of each speaker, for error rates by condition.
    details : dict
        Further entries of metrics.json.
    average : str
        What is averaged over the utterances of a model, "embeddings" or
        "scores".
    store_folder : str or Path
        See `store_path`.
    **extraction
        Handed on to `extract_embeddings`.

    Returns
    -------
    dict or None
        The content of metrics.json; None in all processes but the main one.
    """
    trial_set = TrialSet.read(manifest, trial_list)
    store = extract_embeddings(
        speaker_model,
        trial_set.utterances,
        store_path(speaker_model, manifest, store_folder=store_folder),
        **extraction,
    )
    if not if_main_process():
        return None
    metrics = verify_embeddings(
        store,
        trial_set,
        output_folder,
        backend,
        threshold,
        calibration,
        gender_of,
        details,
        average,
    )
    plot_attention(
        speaker_model, trial_set, output_folder, extraction.get("window_length")
    )
    return metrics


def verify_embeddings(
    store,
    trial_set,
    output_folder,
    backend=None,
    threshold=None,
    calibration=None,
    gender_of=None,
    details=None,
    average="embeddings",
):
    """Scores all trials from embeddings, and writes the results.

    Writes what `report` writes, with error rates by condition, and where
    there is a calibration its plot.

    Arguments
    ---------
    store : EmbeddingStore
        Embeddings with the utterances of the trials.
    trial_set : TrialSet
        The trials.
    output_folder : str or Path
        See `verify`, as for the others.
    backend : Backend
        Gives the scores; plain cosine if None.
    threshold : float
        Threshold set on other trials, for EER*.
    calibration : Calibration
        Turns the scores into log-likelihood ratios.
    gender_of : dict
        Gender of each speaker, for error rates by condition.
    details : dict
        Further entries of metrics.json.
    average : str
        What is averaged over the utterances of a model.

    Returns
    -------
    dict
        The content of metrics.json.
    """
    backend = backend or CosineBackend()
    trials, enrolments = trial_set.trials, trial_set.enrolments
    scores = backend.score(store, trials, enrolments, average)
    details = {**backend.details(), **(details or {})}
    if enrolments is not None:
        details["enrolment_models"] = len(enrolments)
        details["average"] = average
    if calibration is not None:
        details["uncalibrated"] = calibration_metrics(trials, scores)
        _, columns = quality_columns(
            scores, trials, store, backend.cohort_means(store), enrolments
        )
        scores = calibration.apply(columns[:, : len(calibration.names)])
        details["calibrated"] = calibration_metrics(trials, scores)
    details["conditions"] = condition_metrics(
        trials, scores, store, gender_of, enrolments
    )
    metrics = report(
        output_folder, trials, scores, threshold, trial_set.speaker_of(), details
    )
    if calibration is not None:
        plot_calibration(
            Path(output_folder) / "calibration", *trials.split_by_label(scores)
        )
    return metrics


def plot_attention(speaker_model, trial_set, output_folder, duration=None):
    """Draws the layer weights of the first test utterance, where there are any.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        The trained model.
    trial_set : TrialSet
        The trials.
    output_folder : str or Path
        Where to write layer_attention.png and .pdf.
    duration : float
        Seconds of it to draw; None for the longest that is embedded whole.
    """
    if not speaker_model.has_layer_weights:
        return
    first = trial_set.utterances[trial_set.trials.test[0]]
    # A long recording's beginning: it may not fit into memory as a whole.
    wav = read_crop(
        first["wav"],
        speaker_model.sample_rate,
        duration=duration or MAX_WHOLE_DURATION,
    )
    plot_layer_attention(
        Path(output_folder) / "layer_attention",
        wav,
        speaker_model.layer_weights(wav),
        speaker_model.sample_rate,
    )


def calibration_metrics(trials, scores):
    """Metrics of scores taken as log-likelihood ratios.

    Arguments
    ---------
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Scores, of shape (n_trial,).

    Returns
    -------
    dict
        Cllr, minCllr and actDCF at target priors 0.01 and 0.05.
    """
    split_scores = trials.split_by_label(scores)
    return {
        "Cllr": Cllr(*split_scores),
        "minCllr": minCllr(*split_scores),
        "actDCF_0.01": actDCF(*split_scores, p_target=0.01),
        "actDCF_0.05": actDCF(*split_scores, p_target=0.05),
    }


def report(
    output_folder, trials, scores, threshold=None, speaker_of=None, details=None
):
    """Writes the scores, metrics and plots of a scored trial list.

    Writes scores.txt (enrol test label score), metrics.json, and as PNG and
    PDF the DET plot and the score histogram.

    Arguments
    ---------
    output_folder : str or Path
        Where to write.
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Scores, of shape (n_trial,).
    threshold : float
        Threshold of the validation trials, for EER*.
    speaker_of : dict
        Speaker of each utterance id, for the interval of the EER.
    details : dict
        Further entries of metrics.json.

    Returns
    -------
    dict
        The content of metrics.json.
    """
    output_folder = Path(output_folder)
    metrics = verification_metrics(trials, scores, threshold, speaker_of)
    metrics.update(details or {})
    write_scores(output_folder / "scores.txt", trials, scores)
    write_json(output_folder / "metrics.json", metrics)
    split_scores = trials.split_by_label(scores)
    plot_det(output_folder / "det", {output_folder.name: split_scores})
    plot_scores(
        output_folder / "scores",
        *split_scores,
        {"EER": metrics["EER_threshold"], "validation": threshold},
    )
    logger.info(f"{len(trials)} trials: " + summary(metrics) + f"; see {output_folder}")
    return metrics


def summary(metrics):
    """One line for the log.

    Arguments
    ---------
    metrics : dict
        What `verification_metrics` returned.

    Returns
    -------
    str
        EER, EER* where known, and minDCF.

    Example
    -------
    >>> summary({"EER": 0.05, "minDCF_0.01": 0.4, "minDCF_0.05": 0.3})
    'EER 5.00 %, minDCF 0.400 (p=0.01) 0.300 (p=0.05)'
    """
    eer_star = (
        f"EER* {100 * metrics['EER_star']:.2f} %, " if "EER_star" in metrics else ""
    )
    return (
        f"EER {100 * metrics['EER']:.2f} %, {eer_star}"
        f"minDCF {metrics['minDCF_0.01']:.3f} (p=0.01) "
        f"{metrics['minDCF_0.05']:.3f} (p=0.05)"
    )

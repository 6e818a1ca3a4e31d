"""From a trained model and trials to scores, metrics and plots."""

from collections import Counter
from pathlib import Path

from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.trials import (
    draw_trials,
    match_utterances,
    read_trials,
)
from speechbrain_ext.dataio.windows import MAX_WHOLE_DURATION
from speechbrain_ext.inference.extraction import extract_embeddings, store_path
from speechbrain_ext.metrics.bootstrap import eer_interval
from speechbrain_ext.metrics.calibration import Cllr, actDCF, minCllr
from speechbrain_ext.metrics.conditions import condition_metrics
from speechbrain_ext.metrics.detection import EER, EER_star, normalized_minDCF
from speechbrain_ext.plots.attention import plot_layer_attention
from speechbrain_ext.plots.detection import plot_calibration, plot_det, plot_scores
from speechbrain_ext.processing.calibration import (
    Calibration,
    quality_columns,
    vary_durations,
)
from speechbrain_ext.processing.plda import PLDA
from speechbrain_ext.processing.score_norm import (
    cohort_statistics,
    normalize_scores,
    speaker_means,
)
from speechbrain_ext.processing.scoring import cosine_scores
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path, write_json

logger = get_logger(__name__)


def verification_metrics(trials, scores, threshold=None, speaker_of=None):
    """Metrics of a scored trial list.

    Arguments
    ---------
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Of shape (n_trial,).
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
    eer, eer_threshold = EER(target, nontarget)
    metrics = {
        "n_target": len(target),
        "n_nontarget": len(nontarget),
        "EER": eer,
        "EER_threshold": eer_threshold,
        "minDCF_0.01": normalized_minDCF(target, nontarget, p_target=0.01),
        "minDCF_0.05": normalized_minDCF(target, nontarget, p_target=0.05),
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
        As of `store_path`.
    **extraction
        As of `extract_embeddings`.

    Returns
    -------
    EmbeddingStore
        Of the training set.
    """
    chosen, counts = {}, Counter()
    for name, item in read_manifest(manifest).items():
        counts[item["speaker"]] += 1
        if per_speaker is None or counts[item["speaker"]] <= per_speaker:
            chosen[name] = item
    path = store_path(speaker_model, manifest, store_folder=store_folder)
    return extract_embeddings(speaker_model, chosen, path, **extraction)


class CosineBackend:
    """Cosine scores, with mean subtraction and score normalisation on request.

    Arguments
    ---------
    cohort : EmbeddingStore
        Training embeddings, for what follows; None for plain cosine.
    subtract_mean : bool
        Whether to subtract the mean of the training embeddings.
    score_norm : str
        "z-norm", "t-norm" or "s-norm" with the speakers' means as cohort;
        none if None.
    cohort_size : int
        Highest cohort scores that count (AS-norm); all if None.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> from speechbrain_ext.dataio.embedding_store import EmbeddingStore
    >>> store = EmbeddingStore(["a", "b"], torch.eye(2), ["x", "y"], [1.0, 1.0], "")
    >>> CosineBackend().score(store, Trials([0], ["a"], ["b"]))
    tensor([0.])
    """

    def __init__(
        self, cohort=None, subtract_mean=False, score_norm=None, cohort_size=None
    ):
        self.subtract_mean = subtract_mean
        self.score_norm = score_norm
        self.cohort_size = cohort_size if score_norm else None
        self.mean = 0.0
        if subtract_mean:
            self.mean = cohort.embeddings.mean(dim=0)
        if score_norm:
            self.cohort_speakers = set(cohort.speakers)
            self.cohort = speaker_means(
                dict(zip(cohort.ids, cohort.embeddings - self.mean)),
                cohort.speaker_of(),
            )

    @property
    def is_plain(self):
        """Whether scores are those that the validation threshold is for."""
        return not (self.subtract_mean or self.score_norm)

    def details(self):
        """Returns the entries of metrics.json that tell the back end."""
        return {
            "backend": "cosine",
            "subtract_mean": self.subtract_mean,
            "score_norm": self.score_norm,
            "cohort_size": self.cohort_size,
        }

    def cohort_means(self, store):
        """Mean cohort score of each utterance, a quality measure.

        Arguments
        ---------
        store : EmbeddingStore
            Embeddings.

        Returns
        -------
        dict or None
            Mean of each id; None without score normalisation.
        """
        if not self.score_norm:
            return None
        means, _ = cohort_statistics(
            store.embeddings - self.mean, self.cohort, self.cohort_size
        )
        return dict(zip(store.ids, means.tolist()))

    def score(self, store, trials):
        """Scores a trial list.

        Arguments
        ---------
        store : EmbeddingStore
            With the utterances of the trials.
        trials : Trials
            Trial list.

        Returns
        -------
        torch.Tensor
            Of shape (n_trial,).
        """
        embeddings = dict(zip(store.ids, store.embeddings - self.mean))
        scores = cosine_scores(embeddings, trials)
        if not self.score_norm:
            return scores
        common = self.cohort_speakers & set(store.speakers)
        if common:
            logger.warning(
                f"{len(common)} speakers of the cohort are in the trials, "
                f"such as {min(common)}; their normalised scores are biased."
            )
        return normalize_scores(
            scores,
            trials,
            embeddings,
            self.cohort,
            self.score_norm,
            self.cohort_size,
        )


class PLDABackend:
    """LDA and PLDA trained on the training embeddings.

    Arguments
    ---------
    cohort : EmbeddingStore
        Training embeddings.
    lda_dim : int
        Dimension after LDA; no LDA if None.
    adapt : bool
        Whether to adapt to the embeddings that are scored.
    """

    is_plain = False

    def __init__(self, cohort, lda_dim=None, adapt=False):
        self.lda_dim = lda_dim
        self.adapt = adapt
        self.plda = PLDA.fit(cohort.embeddings, cohort.speakers, lda_dim)

    def cohort_means(self, store):
        """Returns None: PLDA compares with no cohort."""
        return None

    def details(self):
        """Returns the entries of metrics.json that tell the back end."""
        return {"backend": "PLDA", "lda_dim": self.lda_dim, "adapt": self.adapt}

    def score(self, store, trials):
        """Scores a trial list.

        Arguments
        ---------
        store : EmbeddingStore
            With the utterances of the trials.
        trials : Trials
            Trial list.

        Returns
        -------
        torch.Tensor
            Of shape (n_trial,).
        """
        plda = self.plda.adapt(store.embeddings) if self.adapt else self.plda
        return plda.score(store.by_id(), trials)


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
    backend : CosineBackend or PLDABackend
        Gives the scores.
    manifest : str or Path
        Training utterances; the crops' embedding store is beside it.
    output_folder : str or Path
        Where to write calibration.json.
    n_trials : int
        Trials to draw, 30,000 usual.
    seed : int
        Of the draw.
    store_folder : str or Path
        As of `store_path`.
    **extraction
        As of `extract_embeddings`.

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
    store_folder=None,
    **extraction,
):
    """Embeds each utterance once, scores all trials, writes the results.

    Writes what `report` writes and, where the model attends to layers, the
    layer weights of the first utterance. Under torchrun the processes share
    the embedding.

    Arguments
    ---------
    speaker_model : speechbrain_ext.inference.speaker.SpeakerRecognition
        The trained model.
    manifest : str or Path
        Utterances of the trials; their embedding store is beside it.
    trial_list : str or Path
        Trials in VoxCeleb's format.
    output_folder : str or Path
        Where to write.
    backend : CosineBackend or PLDABackend
        Gives the scores; plain cosine if None.
    threshold : float
        Threshold of the validation trials, for EER*. It is of plain cosine
        scores, so it is left out with other ones.
    calibration : Calibration
        Turns the scores into log-likelihood ratios.
    gender_of : dict
        Gender of each speaker, for error rates by condition.
    details : dict
        Further entries of metrics.json.
    store_folder : str or Path
        As of `store_path`.
    **extraction
        As of `extract_embeddings`.

    Returns
    -------
    dict or None
        The content of metrics.json; None in all processes but the main one.
    """
    backend = backend or CosineBackend()
    output_folder = Path(output_folder)
    utterances = read_manifest(manifest)
    trials = match_utterances(read_trials(trial_list), utterances, trial_list)
    used = trials.utterances()
    store = extract_embeddings(
        speaker_model,
        {name: item for name, item in utterances.items() if name in used},
        store_path(speaker_model, manifest, store_folder=store_folder),
        **extraction,
    )
    if not if_main_process():
        return None
    scores = backend.score(store, trials)
    details = {**backend.details(), **(details or {})}
    if calibration is not None:
        details["uncalibrated"] = calibration_metrics(trials, scores)
        _, columns = quality_columns(scores, trials, store, backend.cohort_means(store))
        scores = calibration.apply(columns[:, : len(calibration.names)])
        details["calibrated"] = calibration_metrics(trials, scores)
    if not backend.is_plain or calibration is not None:
        threshold = None
    details["conditions"] = condition_metrics(trials, scores, store, gender_of)
    metrics = report(
        output_folder, trials, scores, threshold, store.speaker_of(), details
    )
    if calibration is not None:
        plot_calibration(output_folder / "calibration", *trials.split_by_label(scores))
    if speaker_model.has_layer_weights:
        # A long recording's beginning: it may not fit into memory as a whole.
        wav = read_crop(
            utterances[trials.enrol[0]]["wav"],
            speaker_model.sample_rate,
            duration=extraction.get("window_length") or MAX_WHOLE_DURATION,
        )
        plot_layer_attention(
            output_folder / "layer_attention",
            wav,
            speaker_model.layer_weights(wav),
            speaker_model.sample_rate,
        )
    return metrics


def calibration_metrics(trials, scores):
    """Metrics of scores taken as log-likelihood ratios.

    Arguments
    ---------
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Of shape (n_trial,).

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
        Of shape (n_trial,).
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
        Of `verification_metrics`.

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


def write_scores(path, trials, scores):
    """Writes `enrol test label score` lines, as SpeechBrain does.

    Arguments
    ---------
    path : str or Path
        File to write.
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Of shape (n_trial,).
    """
    with atomic_path(path) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            for enrol, test, label, score in zip(
                trials.enrol, trials.test, trials.labels, scores.tolist()
            ):
                file.write(f"{enrol} {test} {label} {score:.6f}\n")

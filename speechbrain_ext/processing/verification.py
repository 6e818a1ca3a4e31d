"""From a trained model and trials to scores, metrics and plots."""

from pathlib import Path

from speechbrain.utils.logger import get_logger

from speechbrain_ext.dataio.pipelines import embedding_loader
from speechbrain_ext.dataio.prepare import read_manifest
from speechbrain_ext.dataio.trials import match_utterances, read_trials
from speechbrain_ext.processing.scoring import cosine_scores
from speechbrain_ext.utils.files import atomic_path, write_json
from speechbrain_ext.utils.metrics import EER, EER_star, normalized_minDCF
from speechbrain_ext.utils.plots import (
    plot_det,
    plot_layer_attention,
    plot_scores,
)

logger = get_logger(__name__)


def verification_metrics(trials, scores, threshold=None):
    """Metrics of a scored trial list.

    Arguments
    ---------
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Of shape (n_trial,).
    threshold : float
        Threshold of the validation trials, for EER*.

    Returns
    -------
    dict
        Numbers of trials, EER and its threshold, normalised minDCF at target
        priors 0.01 and 0.05, and with a threshold EER*. Rates are between 0
        and 1.

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
    if threshold is not None:
        metrics["EER_star"] = EER_star(target, nontarget, threshold)
        metrics["EER_star_threshold"] = threshold
    return metrics


def verify(
    speaker_model,
    manifest,
    trial_list,
    output_folder,
    threshold=None,
    max_batch_duration=120.0,
    num_workers=0,
    details=None,
):
    """Embeds each utterance once, scores all trials, writes the results.

    Writes scores.txt (enrol test label score), metrics.json, and as PNG and
    PDF the DET plot, the score histogram and, where the model attends to
    layers, the layer weights of the first utterance.

    Arguments
    ---------
    speaker_model : speechbrain_ext.inference.speaker.SpeakerRecognition
        The trained model.
    manifest : str or Path
        Utterances of the trials.
    trial_list : str or Path
        Trials in VoxCeleb's format.
    output_folder : str or Path
        Where to write.
    threshold : float
        Threshold of the validation trials, for EER*.
    max_batch_duration : float
        Seconds of speech in a batch.
    num_workers : int
        Processes that read audio.
    details : dict
        Further entries of metrics.json.

    Returns
    -------
    dict
        The content of metrics.json.
    """
    utterances = read_manifest(manifest)
    trials = match_utterances(read_trials(trial_list), utterances, trial_list)
    used = trials.utterances()
    loader = embedding_loader(
        {name: item for name, item in utterances.items() if name in used},
        speaker_model.sample_rate,
        max_batch_duration,
        num_workers,
    )
    embeddings = speaker_model.embed(loader)
    scores = cosine_scores(embeddings, trials)
    metrics = verification_metrics(trials, scores, threshold)
    metrics.update(details or {})
    output_folder = Path(output_folder)
    write_scores(output_folder / "scores.txt", trials, scores)
    write_json(output_folder / "metrics.json", metrics)
    split_scores = trials.split_by_label(scores)
    plot_det(output_folder / "det", {output_folder.name: split_scores})
    if speaker_model.has_layer_weights:
        wav = speaker_model.load_audio(utterances[trials.enrol[0]]["wav"])
        plot_layer_attention(
            output_folder / "layer_attention",
            wav,
            speaker_model.layer_weights(wav),
            speaker_model.sample_rate,
        )
    plot_scores(
        output_folder / "scores",
        *split_scores,
        {"EER": metrics["EER_threshold"], "validation": threshold},
    )
    logger.info(
        f"{len(trials)} trials: " + summary(metrics) + f"; see {output_folder}"
    )
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
        f"EER* {100 * metrics['EER_star']:.2f} %, "
        if "EER_star" in metrics
        else ""
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

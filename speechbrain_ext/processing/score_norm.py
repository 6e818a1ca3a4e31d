"""Score normalisation with cohort statistics computed once per utterance.

SpeechBrain's `get_verification_scores` compares both sides of every trial
with the whole cohort; a list of 600,000 trials over 150,000 utterances
repeats that work eight times over. Here each utterance meets the cohort once,
in blocks of matrix products. The numbers are the same.

Toolkits differ in two conventions, both of which are options here. The variance
of the cohort scores divides by n - 1 in SpeechBrain and by n in WeSpeaker, and
WeSpeaker averages a speaker's raw embeddings. The defaults are n - 1 and averages
of unit-length embeddings, where each utterance of a speaker has the same weight.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from speechbrain_ext.processing.scoring import trial_sides
from speechbrain_ext.utils.errors import InputError

KINDS = ("z-norm", "t-norm", "s-norm")
# Of utterances whose scores with the cohort stay in a processor's cache
BLOCK = 256


def speaker_means(embeddings, speaker_of, unit_length=True):
    """Mean of each speaker's embeddings, the usual cohort.

    Arguments
    ---------
    embeddings : dict
        Embedding of each utterance id, of shape (dim,).
    speaker_of : dict
        Speaker of each utterance id.
    unit_length : bool
        Whether embeddings are brought to unit length before.

    Returns
    -------
    torch.Tensor
        Means, of shape (n_speaker, dim), in the order of the sorted speakers.

    Example
    -------
    >>> embeddings = {"a/1": torch.tensor([2.0, 0.0]), "a/2": torch.tensor([0.0, 1.0])}
    >>> speaker_means(embeddings, {"a/1": "a", "a/2": "a"})
    tensor([[0.5000, 0.5000]])
    """
    names = sorted(embeddings)
    speakers = sorted({speaker_of[name] for name in names})
    row = {speaker: i for i, speaker in enumerate(speakers)}
    rows = torch.tensor([row[speaker_of[name]] for name in names])
    matrix = torch.stack([embeddings[name] for name in names]).float()
    if unit_length:
        matrix = torch.nn.functional.normalize(matrix, dim=1)
    sums = torch.zeros(len(speakers), matrix.shape[1])
    counts = torch.bincount(rows, minlength=len(speakers))
    return sums.index_add_(0, rows, matrix) / counts.unsqueeze(1)


@torch.no_grad()
def cohort_statistics(embeddings, cohort, cohort_size=None, unbiased=True):
    """Mean and standard deviation of cosine scores with the cohort.

    Arguments
    ---------
    embeddings : torch.Tensor
        Embeddings, of shape (n_utterance, dim).
    cohort : torch.Tensor
        Embeddings of the cohort, of shape (n_cohort, dim).
    cohort_size : int
        Highest scores that count, for adaptive normalisation; all if None.
    unbiased : bool
        Whether the variance divides by n - 1, and not by n.

    Returns
    -------
    torch.Tensor
        Means, of shape (n_utterance,).
    torch.Tensor
        Standard deviations, of shape (n_utterance,).

    Raises
    ------
    InputError
        If the cohort is smaller than cohort_size or than two, or its scores
        with an utterance are all the same.

    Example
    -------
    >>> cohort = torch.eye(3)
    >>> mean, std = cohort_statistics(torch.tensor([[1.0, 0.0, 0.0]]), cohort, 2)
    >>> mean, std
    (tensor([0.5000]), tensor([0.7071]))
    """
    n_cohort = len(cohort)
    if cohort.shape[1] != embeddings.shape[1]:
        raise InputError(
            f"the embeddings of the cohort have {cohort.shape[1]} dimensions, those "
            f"of the trials {embeddings.shape[1]}; take both from one model"
        )
    if cohort_size is not None and cohort_size > n_cohort:
        raise InputError(
            f"cohort_size={cohort_size}, but the cohort has {n_cohort} members"
        )
    if min(n_cohort, cohort_size or n_cohort) < 2:
        raise InputError("score normalisation needs a cohort of two or more")
    # A processor selects the highest scores.
    device = embeddings.device
    cohort, embeddings = (
        torch.nn.functional.normalize(x.cpu().float(), dim=1)
        for x in (cohort, embeddings)
    )
    cohort = cohort.T.contiguous()
    means, stds = [], []
    memory = torch.empty(min(BLOCK, len(embeddings)), n_cohort)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for block in embeddings.split(BLOCK):
            scores = torch.mm(block, cohort, out=memory[: len(block)])
            if cohort_size is not None:
                scores = _highest(scores, cohort_size, threads)
            std, mean = torch.std_mean(scores, dim=1, correction=int(unbiased))
            means.append(mean)
            stds.append(std)
    std = torch.cat(stds)
    if bool((std < 1e-6).any()):
        raise InputError(
            f"{int((std < 1e-6).sum())} utterances have the same score with "
            "the whole cohort; take a cohort of different speakers"
        )
    return torch.cat(means).to(device), std.to(device)


def _highest(scores, count, threads):
    """The highest scores of each row, in no order; the others are moved.

    NumPy selects them in a fifth of the time of `torch.topk`, each thread in rows of
    its own.
    """
    first = scores.shape[1] - count
    parts = np.array_split(scores.numpy(), torch.get_num_threads())
    for _ in threads.map(lambda part: part.partition(max(first - 1, 0), axis=1), parts):
        pass
    return scores[:, first:]


def normalize_scores(
    scores,
    trials,
    embeddings,
    cohort,
    kind="s-norm",
    cohort_size=None,
    unbiased=True,
    enrolments=None,
):
    """Normalises the scores of a trial list.

    z-norm uses the enrolment side's statistics, t-norm the test side's,
    s-norm the mean of both; with cohort_size it is adaptive s-norm, AS-norm.

    Arguments
    ---------
    scores : torch.Tensor
        Cosine scores, of shape (n_trial,).
    trials : Trials
        Trial list.
    embeddings : dict
        Embedding of each utterance id, of shape (dim,), with the training
        mean subtracted if it is from cohort and scores.
    cohort : torch.Tensor
        Embeddings of the cohort, of shape (n_cohort, dim).
    kind : str
        "z-norm", "t-norm" or "s-norm".
    cohort_size : int
        Highest cohort scores that count; all if None.
    unbiased : bool
        Whether the variance of the cohort scores divides by n - 1, and not by n.
    enrolments : dict
        Utterance ids of each model, where the enrolment ids are models: the
        mean direction of its utterances meets the cohort.

    Returns
    -------
    torch.Tensor
        Scores, of shape (n_trial,).

    Raises
    ------
    InputError
        If the kind is unknown, the cohort cannot be used, or embeddings are
        missing, NaN or zero.

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> embeddings = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.6, 0.8])}
    >>> trials = Trials([1], ["a"], ["b"])
    >>> normalize_scores(torch.tensor([0.6]), trials, embeddings, torch.eye(2))
    tensor([-0.2828])
    """
    if kind not in KINDS:
        raise InputError(f"score_norm '{kind}': use one of {', '.join(KINDS)}")
    sides = trial_sides(embeddings, trials, enrolments)
    directions = torch.nn.functional.normalize(sides.embeddings, dim=1)
    mean, std = (
        statistic.to(scores.device)
        for statistic in cohort_statistics(
            sides.mean(directions), cohort, cohort_size, unbiased
        )
    )
    by_enrol = (scores - mean[sides.enrol]) / std[sides.enrol]
    by_test = (scores - mean[sides.test]) / std[sides.test]
    if kind == "z-norm":
        return by_enrol
    if kind == "t-norm":
        return by_test
    return 0.5 * (by_enrol + by_test)

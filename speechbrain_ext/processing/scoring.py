"""Scores of trials from embeddings."""

import torch

from speechbrain_ext.utils.errors import InputError

BLOCK = 65536


def cosine_scores(embeddings, trials):
    """Cosine of each trial's two embeddings, in blocks of trials.

    Arguments
    ---------
    embeddings : dict
        Embedding of each utterance id, of shape (dim,).
    trials : Trials
        Trial list.

    Returns
    -------
    torch.Tensor
        Of shape (n_trial,), in [-1, 1].

    Raises
    ------
    InputError
        If embeddings are missing, NaN or zero; all such ids are counted and
        the first ones named.

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> embeddings = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 2.0])}
    >>> cosine_scores(embeddings, Trials([1, 0], ["a", "a"], ["a", "b"]))
    tensor([1., 0.])
    """
    matrix, enrol, test = trial_matrix(embeddings, trials)
    matrix = torch.nn.functional.normalize(matrix, dim=1)
    return torch.cat(
        [
            (matrix[e] * matrix[t]).sum(dim=1)
            for e, t in zip(enrol.split(BLOCK), test.split(BLOCK))
        ]
    )


def trial_matrix(embeddings, trials):
    """Embeddings of a trial list as a matrix, and each trial's two rows.

    Arguments
    ---------
    embeddings : dict
        Embedding of each utterance id, of shape (dim,).
    trials : Trials
        Trial list.

    Returns
    -------
    matrix : torch.Tensor
        Each utterance of the trials once, of shape (n_utterance, dim).
    enrol : torch.Tensor
        Row of each trial's enrolment side, of shape (n_trial,).
    test : torch.Tensor
        Row of each trial's test side, of shape (n_trial,).

    Raises
    ------
    InputError
        If embeddings are missing, NaN or zero.

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> embeddings = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 2.0])}
    >>> trial_matrix(embeddings, Trials([0], ["b"], ["a"]))[1:]
    (tensor([1]), tensor([0]))
    """
    names = sorted(trials.utterances())
    _refuse(
        [name for name in names if name not in embeddings], "have no embedding"
    )
    matrix = torch.stack([embeddings[name] for name in names]).float()
    norms = matrix.norm(dim=1)
    bad = ~torch.isfinite(norms) | (norms == 0)
    _refuse(
        [names[i] for i in bad.nonzero().flatten()],
        "have an embedding that is NaN, infinite or zero",
    )
    row = {name: i for i, name in enumerate(names)}
    enrol = torch.tensor([row[name] for name in trials.enrol])
    test = torch.tensor([row[name] for name in trials.test])
    return matrix, enrol, test


def _refuse(names, what):
    if names:
        shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        raise InputError(
            f"{len(names)} utterances of the trials {what}: {shown}"
        )

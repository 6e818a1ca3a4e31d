"""Embeddings of trials and their cosine scores."""

import dataclasses
import itertools

import numpy as np
import torch

from speechbrain_ext.dataio.enrolments import require_enrolled
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import find_same_names

# Of pairs whose embeddings stay in a processor's cache
BLOCK = 4096


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
        Cosines in float64, of shape (n_trial,), in [-1, 1].

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
    tensor([1., 0.], dtype=torch.float64)
    """
    sides = trial_sides(embeddings, trials)
    directions = torch.nn.functional.normalize(sides.embeddings, dim=1)
    return side_cosines(sides.mean(directions), sides)


def row_cosines(enrol, test, n_enrol=None):
    """Cosines of pairs of rows, a `compare` of `score_in_blocks`.

    Arguments
    ---------
    enrol : torch.Tensor
        Embeddings of the enrolment side, of shape (n_pair, dim).
    test : torch.Tensor
        Embeddings of the test side, of shape (n_pair, dim).
    n_enrol : torch.Tensor
        Not used: a mean of embeddings is compared as one of them.

    Returns
    -------
    torch.Tensor
        Scores, of shape (n_pair,), in [-1, 1] also after rounding.

    Example
    -------
    >>> row_cosines(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.6000])
    """
    enrol = torch.nn.functional.normalize(enrol, dim=1)
    test = torch.nn.functional.normalize(test, dim=1)
    return _unit_row_cosines(enrol, test, n_enrol)


def _unit_row_cosines(enrol, test, n_enrol):
    """`row_cosines` of embeddings of unit length."""
    del n_enrol
    return (enrol * test).sum(dim=1).clamp_(-1, 1)


def side_cosines(embeddings: torch.Tensor, sides: "TrialSides") -> torch.Tensor:
    """Cosines of a trial list.

    Where the trials are many of the pairs of their sides, such as all pairs of a
    test set, by one matrix product, whose size is at most 4 times that of the scores.

    Arguments
    ---------
    embeddings : torch.Tensor
        Embeddings of the sides, of shape (n_side, dim).
    sides : TrialSides
        Which sides each trial compares.

    Returns
    -------
    torch.Tensor
        Scores, of shape (n_trial,), in [-1, 1].
    """
    directions = torch.nn.functional.normalize(embeddings, dim=1)
    if len(embeddings) ** 2 > 4 * len(sides.enrol):
        return score_in_blocks(_unit_row_cosines, directions, sides)
    return (directions @ directions.T).clamp_(-1, 1)[sides.enrol, sides.test]


def score_in_blocks(compare, embeddings, sides):
    """Scores a trial list block by block, so that few pairs are in memory.

    Arguments
    ---------
    compare : callable
        Function from the embeddings of enrolment and test sides, both of shape (n_pair,
        dim), and the number of utterances of the enrolments, of shape (n_pair, 1), to
        scores of shape (n_pair,).
    embeddings : torch.Tensor
        Embeddings of the sides, of shape (n_side, dim).
    sides : TrialSides
        Which sides each trial compares.

    Returns
    -------
    torch.Tensor
        Scores, of shape (n_trial,).
    """
    return torch.cat(
        [
            compare(
                embeddings.index_select(0, enrol),
                embeddings.index_select(0, test),
                sides.counts[enrol].unsqueeze(1),
            )
            for enrol, test in zip(sides.enrol.split(BLOCK), sides.test.split(BLOCK))
        ]
    )


@dataclasses.dataclass
class TrialSides:
    """The distinct sides of a trial list: utterances, alone or enrolled together.

    An enrolment of one utterance is that utterance, so that it is scored as
    in a trial list without enrolments.

    Arguments
    ---------
    names : list of str
        Utterance ids, as the embeddings have them.
    embeddings : torch.Tensor
        Embeddings of the utterances, in float64, of shape (n_utterance, dim).
    members : torch.Tensor
        Rows of `embeddings` side after side, of shape (n_member,).
    side_of_member : torch.Tensor
        The side of each member, of shape (n_member,).
    counts : torch.Tensor
        Utterances of each side, of shape (n_side,).
    enrol : torch.Tensor
        Side of each trial's enrolment, of shape (n_trial,).
    test : torch.Tensor
        Side of each trial's test utterance, of shape (n_trial,).
    """

    names: list
    embeddings: torch.Tensor
    members: torch.Tensor
    side_of_member: torch.Tensor
    counts: torch.Tensor
    enrol: torch.Tensor
    test: torch.Tensor

    def mean(self, values):
        """Averages values of the utterances over those of each side.

        Arguments
        ---------
        values : torch.Tensor
            Values, of shape (n_utterance,) or (n_utterance, dim).

        Returns
        -------
        torch.Tensor
            Means, of shape (n_side,) or (n_side, dim).
        """
        if len(self.members) == len(self.counts):
            return values[self.members]
        shape = (len(self.counts), *values.shape[1:])
        sums = torch.zeros(shape, dtype=values.dtype)
        sums.index_add_(0, self.side_of_member, values[self.members])
        return sums / self.counts.reshape(-1, *[1] * (values.dim() - 1))


def trial_sides(embeddings, trials, enrolments=None):
    """Finds the distinct sides of a trial list and their embeddings.

    Names may be in NFC here and in NFD there.

    Arguments
    ---------
    embeddings : dict
        Embedding of each utterance id, of shape (dim,).
    trials : Trials
        Trial list.
    enrolments : dict
        Utterance ids of each model, where the enrolment ids are models.

    Returns
    -------
    TrialSides
        Each utterance of the trials once, and which trials it is in.

    Raises
    ------
    InputError
        If models are not enrolled, or embeddings are missing, NaN, zero or of
        different dimensions.

    Example
    -------
    >>> from speechbrain_ext.dataio.trials import Trials
    >>> embeddings = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 2.0])}
    >>> sides = trial_sides(embeddings, Trials([0], ["m"], ["a"]), {"m": ["a", "b"]})
    >>> sides.enrol, sides.test, sides.counts
    (tensor([1]), tensor([0]), tensor([1, 2]))
    >>> sides.mean(sides.embeddings)[1]
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    if enrolments is None:
        names = list(dict.fromkeys(itertools.chain(trials.enrol, trials.test)))
        members, counts = torch.arange(len(names)), torch.ones(len(names)).long()
        of_enrol = of_test = {name: i for i, name in enumerate(names)}
    else:
        require_enrolled(trials, enrolments)
        enrol = {model: tuple(enrolments[model]) for model in set(trials.enrol)}
        test = {name: (name,) for name in set(trials.test)}
        distinct = sorted({*enrol.values(), *test.values()})
        names = sorted({name for side in distinct for name in side})
        row = {name: i for i, name in enumerate(names)}
        members = torch.tensor([row[name] for side in distinct for name in side])
        counts = torch.tensor([len(side) for side in distinct])
        place = {side: i for i, side in enumerate(distinct)}
        of_enrol = {name: place[side] for name, side in enrol.items()}
        of_test = {name: place[side] for name, side in test.items()}
    same = find_same_names(names, embeddings)
    missing = [name for name in names if name not in same]
    if missing:
        raise InputError(
            f"{len(missing)} utterances of the trials have no embedding: "
            f"{_first(missing)}; extract those of the whole list"
        )
    known = [same[name] for name in names]
    matrix = checked_embeddings(known, [embeddings[n] for n in known], "the trials")
    return TrialSides(
        known,
        matrix,
        members,
        torch.repeat_interleave(torch.arange(len(counts)), counts),
        counts,
        _places(trials.enrol, of_enrol),
        _places(trials.test, of_test),
    )


def _places(names, place):
    """Place of each name, of shape (n_trial,)."""
    return torch.from_numpy(
        np.fromiter(map(place.__getitem__, names), np.int64, len(names))
    )


def checked_embeddings(names, embeddings, source):
    """Embeddings as a matrix, refused where no back end can use them.

    Arguments
    ---------
    names : list of str
        Utterance ids.
    embeddings : list of torch.Tensor or torch.Tensor
        Embeddings, of shape (dim,) each.
    source : str
        Where they are from, for the message.

    Returns
    -------
    torch.Tensor
        Embeddings in float64 on the CPU, of shape (n_utterance, dim).

    Raises
    ------
    InputError
        If embeddings are NaN, infinite or zero, or of different dimensions.

    Example
    -------
    >>> checked_embeddings(["a", "b"], [torch.ones(2), torch.zeros(2)], "the cohort")
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: 1 utterances of the cohort have ...
    """
    shapes = {tuple(embedding.shape) for embedding in embeddings}
    if len(shapes) != 1:
        sizes = ", ".join(str(shape[-1]) for shape in sorted(shapes))
        raise InputError(
            f"the embeddings of {source} are of different dimensions ({sizes}); "
            "take those of one model"
            if shapes
            else f"there are no embeddings of {source}"
        )
    if not isinstance(embeddings, torch.Tensor):
        embeddings = torch.stack(embeddings)
    matrix = embeddings.detach().cpu().double()
    norms = matrix.norm(dim=1)
    bad = (~torch.isfinite(norms) | (norms == 0)).nonzero().flatten()
    if len(bad):
        raise InputError(
            f"{len(bad)} utterances of {source} have an embedding that is NaN, "
            f"infinite or zero: {_first([names[i] for i in bad])}; leave them out, "
            "or extract them again"
        )
    return matrix


def _first(names):
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")

"""Losses of utterances and speakers, and the schedule of a margin."""

import math

import torch
from speechbrain.nnet.losses import (
    AdditiveAngularMargin,
    AngularMargin,
    LogSoftmaxWrapper,
)
from torch import nn
from torch.nn import functional as F


class UtteranceContrast(nn.Module):
    """Two parts of an utterance are alike, those of two utterances are not.

    Cross-entropy over cosines within the batch (NT-Xent, arXiv 2002.05709),
    which makes an encoder keep who speaks without speaker labels, as the
    utterance-wise contrast of UniSpeech-SAT (arXiv 2110.05752) does.

    Arguments
    ---------
    temperature : float
        Divides the cosines.

    Example
    -------
    >>> loss = UtteranceContrast(temperature=0.1)
    >>> parts = torch.eye(4)
    >>> loss(parts, parts) < loss(parts, parts.roll(1, 0))
    tensor(True)
    """

    def __init__(self, temperature=0.1):
        super().__init__()
        self.temperature = temperature

    def forward(self, first, second):
        """Computes the loss.

        Arguments
        ---------
        first : torch.Tensor
            Embeddings of one part of each utterance, of shape (batch, dim).
        second : torch.Tensor
            Embeddings of another part, of the same shape.

        Returns
        -------
        torch.Tensor
            The mean loss, a scalar.
        """
        parts = F.normalize(torch.cat([first, second]).float(), dim=1)
        with torch.autocast(parts.device.type, enabled=False):
            logits = parts @ parts.T / self.temperature
        itself = torch.eye(len(parts), dtype=torch.bool, device=parts.device)
        logits = logits.masked_fill(itself, float("-inf"))
        partner = torch.arange(len(parts), device=parts.device)
        return F.cross_entropy(logits, partner.roll(len(first)))


class SubCenterClassifier(nn.Module):
    """Cosines with the nearest of several centers of each speaker.

    One speaker's clean and noisy utterances may gather around different
    centers (sub-center ArcFace; arXiv 2512.22148, section 3.4). Takes the
    place of SpeechBrain's `Classifier`.

    Arguments
    ---------
    input_size : int
        Dimension of the embeddings.
    out_neurons : int
        Speakers.
    n_subcenters : int
        Centers of each speaker.

    Example
    -------
    >>> classifier = SubCenterClassifier(input_size=192, out_neurons=1211)
    >>> classifier(torch.rand(4, 1, 192)).shape
    torch.Size([4, 1, 1211])
    """

    def __init__(self, input_size, out_neurons, n_subcenters=3):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_subcenters, input_size, out_neurons))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, embeddings):
        """Computes the cosines.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings, of shape (batch, 1, dim).

        Returns
        -------
        torch.Tensor
            Cosines in the weights' precision, of shape (batch, 1, speaker).
        """
        # Half precision cannot tell cosines near one apart.
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = torch.einsum(
                "btd,kdn->kbtn",
                F.normalize(embeddings.to(self.weight.dtype), dim=-1),
                F.normalize(self.weight, dim=1),
            )
        return cosines.amax(dim=0)


class InterTopKAAM(nn.Module):
    """AAM-softmax with a penalty on the most similar other speakers.

    The target's angle gets a margin; the angles of the k other speakers with
    the highest cosines are made smaller by a penalty, which grows with the
    margin (Inter-TopK, arXiv 2110.05042; arXiv 2512.22148, section 3.4).

    Arguments
    ---------
    scale : float
        Scale of the cosines.
    margin : float
        Margin in radians; may be changed during training.
    top_k : int
        Speakers that are penalised; 0 for AAM-softmax.
    penalty : float
        Penalty in radians, where the margin is `base_margin`.
    base_margin : float
        The margin at which the penalty is whole; `margin` if None.

    Example
    -------
    >>> loss = InterTopKAAM(top_k=2)
    >>> cosines = torch.tensor([[[0.9, 0.2, 0.1]], [[-0.3, 0.5, 0.0]]])
    >>> right, wrong = torch.tensor([[0], [1]]), torch.tensor([[1], [0]])
    >>> loss(cosines, right) < loss(cosines, wrong)
    tensor(True)
    """

    MIN_MARGIN = 1e-3  # below it there is no penalty

    def __init__(self, scale=30.0, margin=0.3, top_k=5, penalty=0.06, base_margin=None):
        super().__init__()
        self.scale = scale
        self.margin = margin
        self.top_k = top_k
        self.penalty = penalty
        self.base_margin = margin if base_margin is None else base_margin

    def forward(self, cosines, speakers):
        """Computes the loss.

        Arguments
        ---------
        cosines : torch.Tensor
            Cosines, of shape (batch, 1, speaker).
        speakers : torch.Tensor
            Labels of shape (batch, 1).

        Returns
        -------
        torch.Tensor
            The mean loss, a scalar.
        """
        cosines = cosines.squeeze(1).float()
        target = speakers.reshape(-1, 1)
        logits = cosines
        if self.top_k and self.margin > self.MIN_MARGIN:
            others = cosines.detach().scatter(1, target, -2.0)
            hardest = others.topk(min(self.top_k, others.shape[1] - 1)).indices
            penalty = self.penalty * self.margin / self.base_margin
            penalised = _rotate(cosines.gather(1, hardest), -penalty)
            logits = logits.scatter(1, hardest, penalised)
        of_target = cosines.gather(1, target)
        with_margin = _rotate(of_target, self.margin)
        # Past pi - margin the rotated cosine would rise again.
        turning_point = math.cos(math.pi - self.margin)
        shifted = of_target - math.sin(math.pi - self.margin) * self.margin
        with_margin = torch.where(of_target > turning_point, with_margin, shifted)
        logits = logits.scatter(1, target, with_margin)
        return F.cross_entropy(self.scale * logits, target.squeeze(1))


def _rotate(cosines, angle):
    """The cosine of an angle that is made larger by `angle`, in radians."""
    # The square root has no finite gradient where the cosine is one.
    sines = (1.0 - cosines**2).clamp(min=1e-7).sqrt()
    return cosines * math.cos(angle) - sines * math.sin(angle)


class SubCenterAAM(nn.Module):
    """Sub-centers and Inter-TopK AAM-softmax in one module.

    For training loops of one's own; the recipes take `SubCenterClassifier`
    and `InterTopKAAM` apart.

    Arguments
    ---------
    emb_dim : int
        Dimension of the embeddings.
    n_speakers : int
        Speakers.
    n_subcenters : int
        Centers of each speaker.
    **arguments
        Handed on to `InterTopKAAM`.

    Example
    -------
    >>> loss = SubCenterAAM(emb_dim=192, n_speakers=1211)
    >>> loss(torch.rand(4, 1, 192), torch.tensor([[3], [0], [1210], [7]])).shape
    torch.Size([])
    """

    def __init__(self, emb_dim, n_speakers, n_subcenters=3, **arguments):
        super().__init__()
        self.classifier = SubCenterClassifier(emb_dim, n_speakers, n_subcenters)
        self.loss = InterTopKAAM(**arguments)

    def forward(self, embeddings, speakers):
        """Computes the loss.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings, of shape (batch, 1, dim).
        speakers : torch.Tensor
            Labels of shape (batch, 1).

        Returns
        -------
        torch.Tensor
            The mean loss, a scalar.
        """
        return self.loss(self.classifier(embeddings), speakers)


def speaker_loss(loss, margin=0.2, scale=30.0):
    """SpeechBrain's classification losses by name.

    Arguments
    ---------
    loss : str
        "softmax", of logits; "am-softmax" or "aam-softmax", of cosines.
    margin : float
        Margin of cosines (AM) or in radians (AAM).
    scale : float
        Scale of the cosines.

    Returns
    -------
    speechbrain.nnet.losses.LogSoftmaxWrapper
        From (batch, 1, speaker) and labels (batch, 1) to a scalar.

    Raises
    ------
    ValueError
        If there is no loss of that name.

    Example
    -------
    >>> logits = torch.tensor([[[5.0, 0.0]]])
    >>> speaker_loss("softmax")(logits, torch.tensor([[0]])) < 0.01
    tensor(True)
    """
    with_margin = {
        # No margin and no scale leave the logits as they are.
        "softmax": lambda: AngularMargin(margin=0.0, scale=1.0),
        "am-softmax": lambda: AngularMargin(margin, scale),
        "aam-softmax": lambda: AdditiveAngularMargin(margin, scale),
    }
    if loss not in with_margin:
        raise ValueError(f'loss="{loss}": use {", ".join(with_margin)}')
    return LogSoftmaxWrapper(with_margin[loss]())


class MarginSchedule:
    """Margin that rises from 0 to its full value.

    The course is that of a logarithm, an exponential or a cosine
    (arXiv 2512.22148, section 4.2): a logarithm rises early, an exponential
    late.

    Arguments
    ---------
    margin : float
        The full margin, in radians.
    n_steps : int
        Optimiser steps to the full margin; 0 for a constant margin.
    course : str
        "log", "exp" or "cos".

    Raises
    ------
    ValueError
        If the course is unknown.

    Example
    -------
    >>> schedule = MarginSchedule(0.3, n_steps=100, course="cos")
    >>> [round(schedule(step), 3) for step in (0, 50, 100, 1000)]
    [0.0, 0.15, 0.3, 0.3]
    """

    # Rise from 0 to 1 over shares of the way from 0 to 1.
    COURSES = {
        "log": lambda share: 1 - math.log(0.005 + 0.995 * share) / math.log(0.005),
        "exp": lambda share: math.expm1(4.9 * share) / math.expm1(4.9),
        "cos": lambda share: (1 - math.cos(math.pi * share)) / 2,
    }

    def __init__(self, margin, n_steps, course="log"):
        if course not in self.COURSES:
            raise ValueError(f'course="{course}": use {", ".join(self.COURSES)}')
        self.margin = margin
        self.n_steps = n_steps
        self.course = course

    def __call__(self, step):
        """Gives the margin after a number of optimiser steps.

        Arguments
        ---------
        step : int
            Optimiser steps so far.

        Returns
        -------
        float
            The margin, in radians.
        """
        if step >= self.n_steps:
            return self.margin
        return self.margin * self.COURSES[self.course](step / self.n_steps)

"""Frame-level layers of a trained embedding model."""

import functools

import torch
from torch import nn

from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.nnet.pooling import MaskedStatisticsPooling
from speechbrain_ext.utils.errors import InputError


class TeacherFrames(nn.Module):
    """Outputs of some layers of a frozen trained model, side by side.

    Called as an SSL encoder is, so that a recipe can pool them.

    Arguments
    ---------
    teacher : SpeakerRecognition
        The trained model.
    layers : list of str
        Names of frame-level modules in its embedding model, as of
        `named_modules`, such as "blocks.11"; "hidden_states.0" and so on are the
        hidden states of an SSL encoder, from the transformer's input up.
    channels_first : bool
        Whether these modules give (batch, channel, time), as those of
        SpeechBrain's ECAPA-TDNN do.

    Attributes
    ----------
    channels : int
        Channels of all layers together.

    Raises
    ------
    InputError
        If the teacher has no such layer.

    Example
    -------
    >>> from speechbrain_ext.lobes import MaskedXvector
    >>> from speechbrain_ext.lobes.features import NormalizedFbank
    >>> teacher = SpeakerRecognition(
    ...     NormalizedFbank(24), MaskedXvector(in_channels=24), 16000, threshold=0.25
    ... )
    >>> frames = TeacherFrames(teacher, ["blocks.11", "blocks.14"])
    >>> frames(torch.rand(2, 16000), torch.ones(2))[0].shape
    torch.Size([2, 101, 2012])
    """

    # Of the last call.
    fingerprint_ignores = ("_outputs",)

    def __init__(self, teacher, layers, channels_first=False):
        super().__init__()
        self.teacher = teacher.requires_grad_(False)
        self.channels_first = channels_first
        modules = dict(teacher.embedding_model.named_modules())
        encoder = teacher.encoder
        returned = encoder.layers if isinstance(encoder, Encoder) else ()
        # Position of each in what the encoder returns
        self.hidden_states = {
            f"hidden_states.{layer}": position
            for position, layer in enumerate(returned)
        }
        unknown = sorted(set(layers) - set(modules) - set(self.hidden_states))
        if unknown:
            known = [name for name in modules if name and name.count(".") < 2]
            raise InputError(
                f"the teacher has no layer {', '.join(unknown)}; it has "
                + ", ".join([*known, *self.hidden_states])
            )
        self._outputs = {}
        for name in layers:
            if name in modules:
                # A method, so that a copy of this module keeps its own outputs.
                keep = functools.partial(self._keep_output, name)
                modules[name].register_forward_hook(keep)
        self.layers = list(layers)
        self.eval()
        second = torch.zeros(1, teacher.sample_rate)
        self.channels = self(second)[0].shape[2]

    def _keep_output(self, name, module, inputs, output):
        # A layer pooling gives its weights too.
        frames = output[0] if isinstance(output, tuple) else output
        self._outputs[name] = frames.transpose(1, 2) if self.channels_first else frames

    def train(self, mode=True):
        """Stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, wav, wav_lens=None):
        """Runs the teacher up to its embedding, and keeps the layers.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, of shape (batch, time).
        wav_lens : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Features, of shape (batch, frame, channels of all layers).
        torch.Tensor
            Relative lengths in frames, of shape (batch,).
        """
        if wav_lens is None:
            wav_lens = torch.ones(len(wav), device=wav.device)
        self._outputs = {}  # of a copy its own too
        features, lengths = self.teacher.encoder(wav, wav_lens)
        self.teacher.embedding_model(features, lengths)
        frames = [
            features[self.hidden_states[name]]
            if name in self.hidden_states
            else self._outputs[name]
            for name in self.layers
        ]
        self._outputs = {}
        return torch.cat(frames, dim=2), lengths


def trained_teacher_frames(
    teacher, layers, channels_first=False, *, trust_source=False
):
    """Frame-level layers of a training's best checkpoint.

    Arguments
    ---------
    teacher : str or Path
        `output_folder` of the training.
    layers : list of str
        See `TeacherFrames`.
    channels_first : bool
        See `TeacherFrames`.
    trust_source : bool
        See `SpeakerRecognition.from_training`.

    Returns
    -------
    TeacherFrames
        The layers.
    """
    return TeacherFrames(
        SpeakerRecognition.from_training(teacher, trust_source=trust_source),
        layers,
        channels_first,
    )


def pooled_teacher_frames(
    teacher, layers, channels_first=False, pooling=None, *, trust_source=False
):
    """A teacher whose embeddings are pooled frame-level layers.

    Arguments
    ---------
    teacher : str or Path
        `output_folder` of the training.
    layers : list of str
        See `TeacherFrames`.
    channels_first : bool
        See `TeacherFrames`.
    pooling : torch.nn.Module
        Pooling from frames (batch, time, channel) and relative lengths to (batch, 1,
        dim), such as `MaskedStatisticsPooling`; the mean over time if None.
    trust_source : bool
        See `SpeakerRecognition.from_training`.

    Returns
    -------
    SpeakerRecognition
        Model for `extract_embeddings`.
    """
    frames = trained_teacher_frames(
        teacher, layers, channels_first, trust_source=trust_source
    )
    pooling = pooling or MaskedStatisticsPooling(return_std=False)
    return SpeakerRecognition(
        frames, pooling, frames.teacher.sample_rate, threshold=None
    )

"""Which frames of an utterance a model with attention pooling weighs."""

import torch

from speechbrain_ext.nnet.pooling import MultiHeadFramePooling
from speechbrain_ext.utils.errors import InputError


@torch.no_grad()
def frame_weights(speaker_model, wav):
    """Weights that the heads of multi-head attention pooling give to frames.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        Model with a `MultiHeadFramePooling` anywhere in its embedding model.
    wav : torch.Tensor
        Waveform, of shape (time,).

    Returns
    -------
    torch.Tensor
        Weights on the CPU, of shape (head, frame).

    Raises
    ------
    InputError
        If the model has no such pooling.

    Example
    -------
    >>> from speechbrain_ext.inference.speaker import SpeakerRecognition
    >>> from speechbrain_ext.lobes import VGGEmbedding
    >>> from speechbrain_ext.lobes.features import NormalizedFbank
    >>> from speechbrain_ext.nnet.pooling import MultiHeadAttnPooling
    >>> vgg = VGGEmbedding(MultiHeadAttnPooling(160, 8), 160, channels=(4, 8, 16))
    >>> model = SpeakerRecognition(NormalizedFbank(80), vgg, 16000, 0.5)
    >>> frame_weights(model, torch.rand(16000)).shape
    torch.Size([8, 13])
    """
    poolings = [
        module
        for module in speaker_model.embedding_model.modules()
        if isinstance(module, MultiHeadFramePooling)
    ]
    if not poolings:
        raise InputError("the model has no multi-head attention pooling")
    calls = []
    hook = poolings[0].register_forward_pre_hook(
        lambda module, *call: calls.append(call), with_kwargs=True
    )
    try:
        speaker_model.encode_batch(wav.unsqueeze(0))
    finally:
        hook.remove()
    ((arguments, named),) = calls
    _, weights = poolings[0](*arguments, **{**named, "return_weights": True})
    return weights[0].float().cpu()

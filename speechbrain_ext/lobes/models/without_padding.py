"""SpeechBrain's embedding models, turned into those that see no padding."""

from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.lobes.models.Xvector import Xvector

from speechbrain_ext.lobes.models import ecapa, xvector
from speechbrain_ext.nnet.masked_layers import change_classes

MODELS = {Xvector: xvector.MaskedXvector, ECAPA_TDNN: ecapa.MaskedECAPA}


def leave_padding_out(model):
    """Makes SpeechBrain's x-vectors and ECAPA-TDNNs the same in any batch.

    For models that were trained before this package had its own versions, or
    by SpeechBrain itself.

    Arguments
    ---------
    model : torch.nn.Module
        Changed in place, wherever in it such a model or layer stands.

    Returns
    -------
    torch.nn.Module
        The same model, with the same parameters.

    Example
    -------
    >>> import torch
    >>> model = leave_padding_out(Xvector(in_channels=24)).eval()
    >>> frames = torch.rand(2, 100, 24)
    >>> embeddings = model(frames, torch.tensor([1.0, 0.5]))
    >>> torch.allclose(embeddings[1:], model(frames[1:, :50]), atol=1e-5)
    True
    """
    return change_classes(model, {**xvector.LAYERS, **ecapa.LAYERS, **MODELS})

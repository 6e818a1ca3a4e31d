"""Which layers the maximum of layer attentive pooling keeps.

A sum takes all layers in; the maximum (arXiv 2409.07770 and 2512.22148) keeps,
for each channel of a frame, the one whose weighted value is the highest. How
often that is which layer, and for which sounds, says what it is good for.
"""

import numpy as np
import torch

from speechbrain_ext.nnet.pooling import LayerAttentivePooling

PHONE_CLASSES = {
    "vowel": "aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw a e i o u \u0251 \u00e6 "
    "\u028c \u0254 \u0259 \u025b \u025c \u025a \u026a \u028a \u0252 \u0250",
    "plosive": "p b t d k g q dx \u0261 \u0294 \u027e",
    "affricate": "ch jh t\u0283 d\u0292",
    "fricative": "f v th dh s z sh zh hh h x \u03b8 \u00f0 \u0283 \u0292",
    "nasal": "m n ng en em \u014b",
    "approximant": "l r w y j el \u0279 \u026d \u026b",
    "silence": "sil sp spn pau _ -",
}
CLASS_OF_PHONE = {
    phone: name for name, phones in PHONE_CLASSES.items() for phone in phones.split()
}
DECORATION = "0123456789\u02d0\u02c8\u02cc:\u0329\u032f"  # stress and length


def phone_class(phone):
    """The class of a phone.

    Arguments
    ---------
    phone : str
        Phone of ARPAbet, in any case and with stress, or of the IPA.

    Returns
    -------
    str
        A key of PHONE_CLASSES; a diphthong is what its first sound is; "other"
        for what is not known.

    Example
    -------
    >>> [phone_class(phone) for phone in ("AH0", "s", "NG", "?")]
    ['vowel', 'fricative', 'nasal', 'other']
    """
    plain = phone.lower().strip().translate(str.maketrans("", "", DECORATION))
    return CLASS_OF_PHONE.get(plain) or CLASS_OF_PHONE.get(plain[:1], "other")


def find_layer_maximum(embedding_model):
    """The pooling of a model that keeps the maximum over layers.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        Such as `LTDNN` or `LAP_ASTP`.

    Returns
    -------
    LayerAttentivePooling or None
        The first one with pool="max"; None where there is none.

    Example
    -------
    >>> from speechbrain_ext.lobes.models.lap import LAP_ASTP
    >>> type(find_layer_maximum(LAP_ASTP(24, 5, n_heads=4))).__name__
    'LAP'
    """
    for module in embedding_model.modules():
        if isinstance(module, LayerAttentivePooling) and module.pool == "max":
            return module
    return None


@torch.no_grad()
def layer_wins(embedding_model, hidden_states):
    """How often each layer is the maximum, in each frame of one utterance.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        Model with a pooling of `find_layer_maximum`.
    hidden_states : torch.Tensor
        Hidden states of the encoder, of shape (layer, 1, time, channel).

    Returns
    -------
    torch.Tensor
        On the CPU, shares of the channels that add up to one over layers, of
        shape (frame, layer).

    Example
    -------
    >>> from speechbrain_ext.lobes.models.ltdnn import LTDNN
    >>> model = LTDNN(24, 5, conv_channels=16, pooled_channels=24).eval()
    >>> wins = layer_wins(model, torch.rand(5, 1, 9, 24))
    >>> wins.shape, bool(torch.allclose(wins.sum(1), torch.ones(9)))
    (torch.Size([9, 5]), True)
    """
    pooling = find_layer_maximum(embedding_model)
    inputs = []
    hook = pooling.register_forward_pre_hook(
        lambda module, arguments: inputs.append(arguments[0])
    )
    try:
        embedding_model(hidden_states)
    finally:
        hook.remove()
    weighted, _ = pooling.weigh(inputs[0])
    # (head, channel, time), the layer
    winners = weighted[0].argmax(dim=2).flatten(0, 1)
    layers = torch.arange(pooling.n_layers, device=winners.device)
    return (winners.unsqueeze(2) == layers).float().mean(dim=0).cpu()


def wins_by_phone_class(utterances):
    """Shares of the layers for each class of phones.

    Arguments
    ---------
    utterances : list of tuple
        For each utterance its wins, from `layer_wins`; its phones, from
        `read_phones`: their starts in seconds and their names; and its duration,
        in seconds.

    Returns
    -------
    dict
        For each class that occurs, the mean share of each layer over its frames,
        a list, and the number of frames.

    Example
    -------
    >>> wins = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> wins_by_phone_class([(wins, (np.array([0.0, 0.5]), ["s", "AA1"]), 1.0)])
    {'vowel': ([0.0, 1.0], 2), 'fricative': ([1.0, 0.0], 2)}
    """
    frames = {}
    for wins, (starts, names), duration in utterances:
        times = (np.arange(len(wins)) + 0.5) * duration / len(wins)
        numbers = np.searchsorted(starts, times, side="right") - 1
        for share, number in zip(wins, numbers):
            if number >= 0:
                frames.setdefault(phone_class(names[number]), []).append(share)
    order = [*PHONE_CLASSES, "other"]
    return {
        name: (torch.stack(frames[name]).mean(dim=0).tolist(), len(frames[name]))
        for name in order
        if name in frames
    }

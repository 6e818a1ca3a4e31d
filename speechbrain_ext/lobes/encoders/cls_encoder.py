"""An encoder with a constant frame that gathers the speaker."""

from torch import nn

from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.lobes.encoders.factory import load_encoder
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
from speechbrain_ext.utils.errors import InputError

CONSTANT = 1.0


def insert_frame(encoder: Encoder) -> Encoder:
    """Inserts a constant frame before the first one of the transformer.

    Fine-tuned, the transformer gathers the utterance in that frame (a
    baseline of arXiv 2409.07770).

    Arguments
    ---------
    encoder : Encoder
        Whose transformer knows positions by their distance. To one that
        counts them from the first frame, such as Whisper's, the inserted frame
        would shift all others.

    Returns
    -------
    Encoder
        The same encoder, changed.

    Raises
    ------
    InputError
        If the encoder counts positions.

    Example
    -------
    >>> import torch
    >>> encoder = insert_frame(load_encoder("speechbrain_ext/wavlm-small"))
    >>> hidden_states, lengths = encoder(torch.rand(1, 16000), torch.ones(1))
    >>> hidden_states.shape[2]
    49
    """
    transformer = getattr(encoder.model, "encoder", None)
    if transformer is None:
        raise InputError(
            f"ssl_hub: {type(encoder).__name__} counts positions from the first "
            "frame, so none can be inserted; take hparams/ssl_mean_wavlm.yaml"
        )
    transformer.register_forward_pre_hook(_insert, with_kwargs=True)
    encoder.n_inserted = 1
    return encoder


def _insert(module, arguments, named):
    frames, *rest = arguments
    frames = nn.functional.pad(frames, (0, 0, 1, 0), value=CONSTANT)
    mask = named.get("attention_mask")
    if mask is not None:
        mask = nn.functional.pad(mask, (1, 0), value=1)
    return (frames, *rest), {**named, "attention_mask": mask}


def load_cls_encoder(source: str, **settings) -> Encoder:
    """Loads an encoder of any family and inserts a constant frame.

    Arguments
    ---------
    source : str
        See `load_encoder`.
    **settings
        Handed on to `load_encoder`.

    Returns
    -------
    Encoder
        The encoder, as of `insert_frame`.

    Example
    -------
    >>> load_cls_encoder("speechbrain_ext/wavlm-small").channels
    192
    """
    return insert_frame(load_encoder(source, **settings))


class CLSEncoder(SSLEncoder):
    """An `SSLEncoder` with a constant frame, as of `insert_frame`.

    Arguments
    ---------
    *args
        Handed on to `SSLEncoder`.
    **kwargs
        Handed on to `SSLEncoder`.

    Example
    -------
    >>> import torch
    >>> encoder = CLSEncoder("speechbrain_ext/wavlm-small", freeze=False)
    >>> hidden_states, _ = encoder(torch.rand(2, 16000), torch.ones(2))
    >>> hidden_states.shape[1:]
    torch.Size([2, 49, 192])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        insert_frame(self)


class FirstFrame(nn.Module):
    """The first frame of the last hidden state, for `insert_frame`.

    Example
    -------
    >>> import torch
    >>> FirstFrame()(torch.rand(13, 2, 50, 768)).shape
    torch.Size([2, 1, 768])
    """

    def forward(self, hidden_states, lengths=None):
        """Takes the frame.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Not needed.

        Returns
        -------
        torch.Tensor
            Pooled vectors, of shape (batch, 1, channel).
        """
        return hidden_states[-1][:, :1]

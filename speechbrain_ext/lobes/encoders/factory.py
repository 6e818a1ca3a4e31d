"""One way to every encoder: its configuration decides the class."""

from collections.abc import Mapping, Sequence

from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.lobes.encoders.hub import family_of, found
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
from speechbrain_ext.lobes.encoders.w2v_bert import W2VBertEncoder
from speechbrain_ext.lobes.encoders.whisper import WhisperEncoder
from speechbrain_ext.utils.errors import InputError

CLASSES: tuple[type[Encoder], ...] = (SSLEncoder, W2VBertEncoder, WhisperEncoder)
CLASS_OF_FAMILY = {family: kind for kind in CLASSES for family in kind.FAMILIES}


def load_encoder(
    source: str | Mapping,
    save_path: str = "pretrained_models",
    freeze: bool = True,
    freeze_feature_extractor: bool = True,
    freeze_feature_projection: bool = False,
    mask_time_prob: float = 0.0,
    mask_time_length: int = 10,
    gradient_checkpointing: bool = False,
    layers: Sequence[int] | None = None,
    lora_rank: int = 0,
    lora_alpha: int = 128,
    lora_targets: Sequence[str] | None = None,
) -> Encoder:
    """Loads a pre-trained encoder of any family.

    Arguments
    ---------
    source : str or dict
        Hub name, local folder, an encoder that comes with the package, or an
        architecture; see `Encoder`.
    save_path : str
        See `Encoder`.
    freeze : bool
        See `Encoder`.
    freeze_feature_extractor : bool
        See `Encoder`.
    freeze_feature_projection : bool
        See `Encoder`.
    mask_time_prob : float
        See `Encoder`.
    mask_time_length : int
        See `Encoder`.
    gradient_checkpointing : bool
        See `Encoder`.
    layers : list of int
        See `Encoder`.
    lora_rank : int
        See `Encoder`.
    lora_alpha : int
        See `Encoder`.
    lora_targets : list of str
        See `Encoder`.

    Returns
    -------
    Encoder
        The encoder, of the class that takes the `model_type` of its config.json.

    Raises
    ------
    FileNotFoundError
        If the local folder lacks a file that is needed.
    OSError
        If the hub cannot be reached or does not know the name.
    InputError
        If no class takes the family.

    Example
    -------
    >>> load_encoder("speechbrain_ext/wavlm-small").hop
    320
    """
    with found(source, str(save_path)) as place:
        family = family_of(place, str(save_path))
    if family not in CLASS_OF_FAMILY:
        raise InputError(
            f"ssl_hub: '{source}' is a {family}; the families of encoders are "
            + ", ".join(CLASS_OF_FAMILY)
        )
    return CLASS_OF_FAMILY[family](
        source,
        save_path,
        freeze=freeze,
        freeze_feature_extractor=freeze_feature_extractor,
        freeze_feature_projection=freeze_feature_projection,
        mask_time_prob=mask_time_prob,
        mask_time_length=mask_time_length,
        gradient_checkpointing=gradient_checkpointing,
        layers=layers,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_targets=lora_targets,
    )

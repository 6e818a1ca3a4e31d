"""Where encoders come from: the hub, a folder, or the package."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import PreTrainedConfig

from speechbrain_ext.utils.errors import InputError

EMBEDDED_ENCODERS = Path(__file__).resolve().parents[2] / "pretrained"
# What says how an encoder is built, and the parts of an architecture
ARCHITECTURE_FILES = {
    "config.json": "config",
    "preprocessor_config.json": "preprocessor",
}
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.ckpt")


def embedded_folder(source: str) -> str:
    """Folder of an encoder that comes with the package.

    Arguments
    ---------
    source : str
        See `Encoder`.

    Returns
    -------
    str
        The folder for a name that starts with "speechbrain_ext/"; any other
        source as it is.

    Raises
    ------
    FileNotFoundError
        If the package has no encoder of that name.

    Example
    -------
    >>> embedded_folder("microsoft/wavlm-base-plus")
    'microsoft/wavlm-base-plus'
    """
    package, _, name = source.partition("/")
    if package != "speechbrain_ext" or Path(source).is_dir():
        return source
    folder = EMBEDDED_ENCODERS / name
    if not (folder / "config.json").is_file():
        known = sorted(p.parent.name for p in EMBEDDED_ENCODERS.glob("*/config.json"))
        raise FileNotFoundError(
            f"ssl_hub: '{source}' does not come with the package, which has "
            + ", ".join(f"{package}/{encoder}" for encoder in known)
        )
    return str(folder)


@contextlib.contextmanager
def found(source: str | Mapping, save_path: str) -> Iterator[str]:
    """Where transformers finds an encoder.

    Arguments
    ---------
    source : str or dict
        See `Encoder`.
    save_path : str
        Folder for downloads.

    Yields
    ------
    str
        Hub name or local folder. The folder of an architecture is there for as
        long as the block runs, and has no weights.

    Raises
    ------
    FileNotFoundError
        If the package has no such encoder, or a folder lacks what is needed.
    OSError
        If the hub cannot be reached or does not know the name or revision.

    Example
    -------
    >>> with found("microsoft/wavlm-base-plus", "pretrained_models") as name:
    ...     print(name)
    microsoft/wavlm-base-plus
    """
    if isinstance(source, Mapping):
        with tempfile.TemporaryDirectory() as folder:
            for name, part in ARCHITECTURE_FILES.items():
                Path(folder, name).write_text(json.dumps(source[part]), "utf-8")
            yield folder
        return
    source = embedded_folder(str(source))
    name, _, revision = source.partition("@")
    if revision and not Path(source).exists():
        with hub_errors(source):
            source = snapshot_download(name, revision=revision, cache_dir=save_path)
    check_local_folder(source)
    yield source


@contextlib.contextmanager
def hub_errors(source: str) -> Iterator[None]:
    """Says what to do where an encoder cannot be loaded from the hub.

    Arguments
    ---------
    source : str
        See `Encoder`.

    Raises
    ------
    OSError
        In place of what the block raises, unless the source is a folder.

    Example
    -------
    >>> with hub_errors("nobody/nothing"):
    ...     raise ValueError
    Traceback (most recent call last):
        ...
    OSError: ssl_hub 'nobody/nothing' is no local folder and could not be ...
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if Path(source).exists():
            raise
        raise OSError(
            f"ssl_hub '{source}' is no local folder and could not be "
            f"loaded from the Hugging Face hub ({type(error).__name__}). "
            "Without internet, copy the model's config.json, "
            "preprocessor_config.json and weights into a folder and give "
            "its path as ssl_hub."
        ) from error


def check_local_folder(source: str) -> None:
    """Checks that a local SSL folder has what Hugging Face needs.

    Arguments
    ---------
    source : str
        Folder, or a hub name, which is not checked.

    Raises
    ------
    FileNotFoundError
        If the folder lacks the configuration or the weights.

    Example
    -------
    >>> check_local_folder("microsoft/wavlm-base-plus")
    """
    folder = Path(source)
    if not folder.exists():
        if folder.is_absolute() or source.startswith((".", "~")):
            raise FileNotFoundError(f"ssl_hub: there is no folder '{source}'")
        return
    for needed in ARCHITECTURE_FILES:
        if not (folder / needed).is_file():
            raise FileNotFoundError(
                f"ssl_hub: '{source}' has no {needed}; save the encoder with "
                "transformers' save_pretrained, feature extractor included"
            )
    if not any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES):
        raise FileNotFoundError(
            f"ssl_hub: '{source}' has no weights (model.safetensors or "
            "pytorch_model.bin)"
        )


def family_of(source: str, save_path: str) -> str:
    """Reads the family of an encoder off its configuration.

    Arguments
    ---------
    source : str
        Hub name or local folder.
    save_path : str
        Folder for downloads.

    Returns
    -------
    str
        The `model_type` of config.json, such as "wavlm".

    Raises
    ------
    OSError
        If the hub cannot be reached or does not know the name.
    InputError
        If the configuration names no family.

    Example
    -------
    >>> from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
    >>> folder = save_small_wavlm(getfixture("tmpdir") / "wavlm", n_layers=1)
    >>> family_of(folder, "pretrained_models")
    'wavlm'
    """
    with hub_errors(source):
        config, _ = PreTrainedConfig.get_config_dict(source, cache_dir=save_path)
    if "model_type" not in config:
        raise InputError(
            f"ssl_hub: config.json of '{source}' has no model_type, so its "
            "family is not known"
        )
    return config["model_type"]

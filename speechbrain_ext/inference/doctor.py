"""What works on this machine: versions, accelerators, audio formats, number types."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from speechbrain_ext.dataio.audio import AUDIO_EXTENSIONS, read_crop
from speechbrain_ext.dataio.m4a import decoder
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.precision import bf16_pays, matrix_rate

NEEDED = ("speechbrain", "torch", "torchaudio", "transformers", "soundfile", "numpy")
OPTIONAL = {
    "faiss-cpu": "search",
    "silero-vad": "vad",
    "pyarrow": "parquet",
    "ray": "ray",
    "onnxruntime": "onnx",
    "peft": "lora",
    "pyroomacoustics": "rooms",
    "webdataset": "shards",
}


class Finding(NamedTuple):
    """One thing that was looked at.

    Arguments
    ---------
    subject : str
        What it is.
    works : bool
        None where it is neither working nor broken, such as what is not installed
        and need not be.
    text : str
        What was found.
    remedy : str
        What to do; empty if nothing.
    """

    subject: str
    works: bool | None
    text: str
    remedy: str = ""


def examine():
    """Looks at the machine, in about a second.

    Yields
    ------
    Finding
        One after the other.

    Example
    -------
    >>> next(examine()).subject
    'python'
    """
    yield Finding(
        "python", True, f"{platform.python_version()} on {platform.platform()}"
    )
    yield from _packages()
    yield from _devices()
    yield _bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    yield from _formats()
    yield _cache()


def _packages():
    for name in ("speechbrain_ext", *NEEDED):
        version = _version(name)
        remedy = "" if version else f"pip install {name}"
        yield Finding(name, version is not None, version or "missing", remedy)
    torch_version, audio_version = (
        (_version(name) or "").split("+")[0].rpartition(".")[0]
        for name in ("torch", "torchaudio")
    )
    if torch_version != audio_version:
        yield Finding(
            "torch and torchaudio", False, "are of different versions",
            f"pip install torchaudio=={torch_version}.*",
        )  # fmt: skip
    for name, extra in OPTIONAL.items():
        version = _version(name)
        if version:
            yield Finding(name, True, version)
        else:
            remedy = f"if you need it: pip install 'speechbrain_ext[{extra}]'"
            yield Finding(name, None, "not installed", remedy)


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices():
    yield Finding(
        "cpu", True, f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            memory = properties.total_memory / 2**30
            yield Finding(f"cuda:{i}", True, f"{properties.name}, {memory:.0f} GiB")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "cuda", False, "there is a driver, but PyTorch finds no GPU",
            "install the PyTorch of your CUDA version (pytorch.org)",
        )  # fmt: skip
    else:
        yield Finding("cuda", None, "no GPU of Nvidia")
    if torch.backends.mps.is_available():
        yield Finding("mps", True, "Apple's GPU")


def _bfloat16(device):
    """Compares bfloat16 with float32 as `precision: auto` does."""
    rates = [matrix_rate(dtype, device) for dtype in (torch.bfloat16, torch.float32)]
    text = (
        f"{rates[0] / 1e9:.3g} GFLOP/s on {device}, "
        f"{rates[0] / rates[1]:.2g} times those of float32"
    )
    if bf16_pays(device):
        return Finding("bfloat16", True, text)
    return Finding("bfloat16", None, text, "train and embed in float32 here")


def _formats():
    """Writes a recording in each format and reads it."""
    tone = 0.1 * np.sin(np.arange(16000) / 5)
    with tempfile.TemporaryDirectory() as folder:
        for extension in AUDIO_EXTENSIONS:
            path = Path(folder) / f"tone{extension}"
            if extension == ".m4a":
                yield _m4a()
                continue
            try:
                if extension == ".opus":
                    soundfile.write(path, tone, 16000, format="OGG", subtype="OPUS")
                else:
                    soundfile.write(path, tone, 16000)
                n_samples = len(read_crop(path, 16000))
            except (InputError, soundfile.SoundFileError, ValueError) as error:
                yield Finding(
                    extension, False, str(error), "pip install --upgrade soundfile"
                )
                continue
            # Codecs with frames may add some.
            works = n_samples >= 15000
            text = f"decodes ({n_samples} samples of 16000)"
            yield Finding(extension, works, text, "" if works else "convert to flac")


def _m4a():
    name = decoder()
    if name is None:
        return Finding(
            ".m4a", None, "takes PyAV, or the programs ffmpeg and ffprobe",
            "pip install 'speechbrain_ext[m4a]', or convert to wav",
        )  # fmt: skip
    return Finding(".m4a", True, f"decodes, by {name}")


def _cache():
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding(
            "hub cache", False, f"'{HF_HUB_CACHE}' cannot be written to",
            "set HF_HOME to a folder that can",
        )  # fmt: skip
    free = shutil.disk_usage(folder).free / 2**30
    return Finding("hub cache", True, f"'{HF_HUB_CACHE}', {free:.0f} GiB free")

"""Installs speechbrain_ext."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"',
    (ROOT / "speechbrain_ext" / "__init__.py").read_text(encoding="utf-8"),
).group(1)

setup(
    name="speechbrain_ext",
    version=VERSION,
    description="Speaker verification lobes, scoring and recipes for SpeechBrain",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["speechbrain_ext", "speechbrain_ext.*"]),
    package_data={
        "speechbrain_ext": ["pretrained/*/*", "dataio/corpora/*.txt", "tools/*.csv"]
    },
    install_requires=[
        "speechbrain>=1.1,<1.2",
        # torch and torchaudio of different CUDA versions refuse each other.
        "torch==2.11.*",
        "torchaudio==2.11.*",
        "transformers>=5,<6",
        "hyperpyyaml",
        "sentencepiece",
        "soundfile",
        "safetensors",
        "scipy",
        "scikit-learn",
        "matplotlib",
        "tensorboard",
    ],
    entry_points={"console_scripts": ["speechbrain-ext = speechbrain_ext.cli:main"]},
    extras_require={
        "demo": ["espeakng-loader"],
        "kaldi": ["kaldiio"],
        "lora": ["peft"],
        "onnx": ["onnx", "onnxscript", "onnxruntime"],
        "rooms": ["pyroomacoustics"],
        "dev": [
            "pytest",
            "ruff",
            "espeakng-loader",
            "kaldiio",
            "peft",
            "onnx",
            "onnxscript",
            "onnxruntime",
            "pyroomacoustics",
        ],
    },
)

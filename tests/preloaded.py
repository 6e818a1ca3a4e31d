"""What the process has imported that the programs of tests are forked from.

Nothing of this package: what its modules import, and in which order, is tested.
"""

import contextlib
import importlib
import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import speechbrain.utils.logger

for name in (
    "fontTools.subset",
    "hyperpyyaml",
    "pydantic",
    "scipy.optimize",
    "scipy.signal",
    "scipy.stats",
    "sklearn.isotonic",
    "sklearn.linear_model",
    "sklearn.metrics",
    "soundfile",
    "speechbrain.augment.augmenter",
    "speechbrain.inference",
    "speechbrain.integrations.huggingface",
    "speechbrain.lobes.models.ECAPA_TDNN",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "transformers.models.wav2vec2_bert.modeling_wav2vec2_bert",
    "transformers.models.wavlm.modeling_wavlm",
    "onnx",
    "peft",
):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

# The fonts are looked for and parsed once.
figure = plt.figure()
figure.text(0, 0, "$10^{-1}$")
for suffix in ("png", "pdf"):
    figure.savefig(io.BytesIO(), format=suffix)
plt.close(figure)
matplotlib.rcdefaults()

# Each training writes what `pip freeze` prints, which takes as long as the rest.
description = speechbrain.utils.logger.get_environment_description()
speechbrain.utils.logger.get_environment_description = lambda: description

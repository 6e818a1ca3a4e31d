"""The README's YAML for SpeechBrain's own recipe, as that recipe calls it."""

import re
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm

README = Path(__file__).resolve().parents[1] / "README.md"


def test_lobe_in_speechbrains_recipe(tmp_path):
    text = README.read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    folder = save_small_wavlm(tmp_path / "wavlm", n_layers=2, channels=32)
    modules = load_hyperpyyaml(
        block,
        {
            "embedding_model": {
                "encoder": {"source": folder, "save_path": str(tmp_path)},
                "embedding_model": {"in_channels": 32, "n_layers": 3},
            }
        },
    )
    wavs, lens = torch.randn(2, 16000), torch.tensor([1.0, 0.7])
    # As train_speaker_embeddings.py and speaker_verification_cosine.py do
    feats = modules["compute_features"](wavs)
    feats = modules["mean_var_norm"](feats, lens)
    assert modules["embedding_model"](feats).shape == (2, 1, 192)
    model = modules["embedding_model"].eval()
    embeddings = model(feats, lens)
    assert embeddings.shape == (2, 1, 192)
    alone = model(modules["compute_features"](wavs[1:, :11200]), torch.ones(1))
    assert (embeddings[1] - alone[0]).abs().max() < 1e-5

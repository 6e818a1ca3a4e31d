"""Each system with each preset, as far as an embedding."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from test_recipe import ROOT

from speechbrain_ext.tools.random_encoder import save_random_encoder
from speechbrain_ext.training.recipes import parse_recipe_arguments

SYSTEMS = [
    path.stem
    for path in sorted((ROOT / "hparams").glob("*.yaml"))
    if "\nembedding_model:" in path.read_text(encoding="utf-8")
    and path.stem != "lde_teacher"  # needs a trained teacher
] + ["mean_vgg", "statistics_vgg", "double_mha_vgg", "ca_mhfa_wavlm"]


@pytest.mark.parametrize("preset", ["demo", "small"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_embeds(system, preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [
        str(ROOT / "hparams" / f"{system}.yaml"),
        f"--preset={ROOT / 'hparams' / 'presets' / preset}.yaml",
    ]
    merged, _, _ = parse_recipe_arguments(arguments)
    if system == "w2v_bert_mfa":
        folder = save_random_encoder("w2v-bert", tmp_path / "w2v-bert")
        arguments.append(f"--ssl_hub={folder}")
    elif "\nssl_hub:" in Path(merged).read_text(encoding="utf-8"):
        arguments.append("--ssl_hub=speechbrain_ext/wavlm-small")
    hparams_file, _, overrides = parse_recipe_arguments(arguments)
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)
    features, lengths = hparams["encoder"](torch.randn(2, 16000), torch.ones(2))
    embeddings = hparams["embedding_model"](features, lengths)
    assert embeddings.shape == (2, 1, hparams["emb_dim"])


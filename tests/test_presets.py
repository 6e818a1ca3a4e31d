"""Each system with each preset, as far as an embedding."""

import pytest
import torch
from conftest import ROOT

from speechbrain_ext.config import read_configuration
from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder

SYSTEMS = [
    path.stem
    for path in sorted((ROOT / "hparams").glob("*.yaml"))
    if "\nembedding_model:" in path.read_text(encoding="utf-8")
    and path.stem not in ("lde_teacher", "sp_teacher")  # need a trained teacher
] + ["mean_vgg", "statistics_vgg", "double_mha_vgg", "ca_mhfa_wavlm"]


@pytest.mark.parametrize("preset", ["demo", "small"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_embeds(system, preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [
        str(ROOT / "hparams" / f"{system}.yaml"),
        f"--preset={ROOT / 'hparams' / 'presets' / preset}.yaml",
    ]
    if system == "w2v_bert_mfa":
        folder = save_random_encoder("w2v-bert", tmp_path / "w2v-bert")
        arguments.append(f"--ssl_hub={folder}")
    elif "ssl_hub" in read_configuration(arguments).entries:
        arguments.append("--ssl_hub=speechbrain_ext/wavlm-small")
    hparams = read_configuration(arguments).build()
    features, lengths = hparams["encoder"](torch.randn(2, 16000), torch.ones(2))
    embeddings = hparams["embedding_model"](features, lengths)
    assert embeddings.shape == (2, 1, hparams["emb_dim"])

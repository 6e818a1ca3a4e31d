"""A clash of torch and torchaudio is one clear line."""

import builtins

import pytest

from speechbrain_ext.utils import compat


def test_clash_names_versions_and_remedy(monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "torchaudio":
            raise RuntimeError(
                "PyTorch has CUDA version 13.2 whereas TorchAudio has 13.0.\n"
                "Please install the matching version."
            )
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError) as caught:
        compat.check_torch_and_torchaudio()
    message = str(caught.value)
    assert "\n" not in message
    assert "CUDA version 13.2" in message
    assert 'pip install "torch==2.11.*" "torchaudio==2.11.*"' in message

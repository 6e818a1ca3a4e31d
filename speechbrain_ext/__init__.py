"""Speaker verification lobes, losses, scoring and recipes for SpeechBrain."""

from speechbrain_ext.utils.compat import check_torch_and_torchaudio

__version__ = "0.1.0"

check_torch_and_torchaudio()

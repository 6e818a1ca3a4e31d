"""Neural network layers: pooling and masked operations."""

from speechbrain_ext.utils.compat import check_torch_and_torchaudio

check_torch_and_torchaudio()

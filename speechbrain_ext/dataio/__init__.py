"""Reading and writing audio, manifests, trials, scores and embeddings."""

from speechbrain_ext.utils.compat import check_torch_and_torchaudio

check_torch_and_torchaudio()

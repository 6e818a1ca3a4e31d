"""w2v-BERT 2.0: a conformer on filter banks."""

from collections.abc import Sequence

import torch
import torchaudio
from torch import nn

from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.nnet.masking import valid_positions

FRAME_LENGTH, FRAME_SHIFT = 25.0, 10.0  # milliseconds
INT16_SCALE = 2**15  # Kaldi's waveforms are integers


class W2VBertEncoder(Encoder):
    """All hidden states of a w2v-BERT 2.0 encoder (arXiv 2312.05187).

    SpeechBrain's lobe computes filter banks with NumPy on the CPU and gives no
    lengths; here they are computed where the waveforms are, and lengths in
    frames come with the hidden states, as from every `Encoder`. There is no
    convolutional front end that could be frozen by itself.

    Arguments
    ---------
    source : str
        Name on the Hugging Face hub, "facebook/w2v-bert-2.0", or a local
        folder with config.json, preprocessor_config.json and weights.
    save_path : str
        Folder for downloads.
    freeze : bool
        See `Encoder`.
    gradient_checkpointing : bool
        See `Encoder`.
    lora_rank : int
        See `Encoder`.
    lora_alpha : int
        See `Encoder`.
    lora_targets : list of str
        See `Encoder`.
    layers : list of int
        See `Encoder`.
    **settings
        Handed on to `Encoder`.

    Example
    -------
    >>> from transformers import SeamlessM4TFeatureExtractor
    >>> from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel
    >>> folder = str(getfixture("tmpdir") / "w2v-bert")
    >>> config = Wav2Vec2BertConfig(
    ...     num_hidden_layers=2, hidden_size=32, num_attention_heads=2,
    ...     intermediate_size=32, feature_projection_input_dim=160,
    ... )
    >>> Wav2Vec2BertModel(config).save_pretrained(folder)
    >>> _ = SeamlessM4TFeatureExtractor().save_pretrained(folder)
    >>> encoder = W2VBertEncoder(folder, lora_rank=4)
    >>> hidden_states, lengths = encoder(
    ...     torch.rand(2, 16000), torch.tensor([1.0, 0.5])
    ... )
    >>> hidden_states.shape, lengths * 49
    (torch.Size([3, 2, 49, 32]), tensor([49., 24.]))
    >>> sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    1024
    """

    FAMILIES = ("wav2vec2-bert",)

    def __init__(
        self,
        source: str,
        save_path: str = "pretrained_models",
        freeze: bool = True,
        gradient_checkpointing: bool = False,
        lora_rank: int = 0,
        lora_alpha: int = 128,
        lora_targets: Sequence[str] | None = None,
        layers: Sequence[int] | None = None,
        **settings,
    ) -> None:
        super().__init__(
            source,
            save_path,
            freeze=freeze,
            gradient_checkpointing=gradient_checkpointing,
            layers=layers,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            lora_targets=lora_targets,
            **settings,
        )
        self.n_mels = self.feature_extractor.num_mel_bins
        self.stride = self.feature_extractor.stride
        shift = int(self.sample_rate * FRAME_SHIFT / 1000)
        self.hop = self.stride * shift
        self.receptive_field = (
            int(self.sample_rate * FRAME_LENGTH / 1000) + (self.stride - 1) * shift
        )
        self.train(self.training)

    @property
    def transformer_layers(self) -> nn.ModuleList:
        """Layers of the transformer, from the lowest to the highest."""
        return self.model.encoder.layers

    def encode(self, wav, samples):
        """Computes all hidden states, as of `Encoder`."""
        features = [
            self.filter_banks(signal[:count])
            for signal, count in zip(wav, samples.tolist())
        ]
        frames = torch.tensor([len(f) for f in features], device=wav.device)
        batch = nn.utils.rnn.pad_sequence(features, batch_first=True)
        valid = valid_positions(frames, batch.shape[1])
        hidden_states = self.model(
            batch,
            attention_mask=None if valid is None else valid.long(),
            output_hidden_states=True,
        ).hidden_states
        return hidden_states, frames

    @torch.no_grad()
    def filter_banks(self, wav):
        """The input of w2v-BERT: normalised filter banks, two frames in one.

        Arguments
        ---------
        wav : torch.Tensor
            Waveform at 16 kHz, of shape (time,).

        Returns
        -------
        torch.Tensor
            Features, of shape (frame, 2 * mel), every 20 ms.
        """
        with torch.autocast(wav.device.type, enabled=False):
            frames = torchaudio.compliance.kaldi.fbank(
                wav.float().unsqueeze(0) * INT16_SCALE,
                num_mel_bins=self.n_mels,
                frame_length=FRAME_LENGTH,
                frame_shift=FRAME_SHIFT,
                sample_frequency=self.sample_rate,
            )
            variance, mean = torch.var_mean(frames, dim=0)
            frames = (frames - mean) / torch.sqrt(variance + 1e-7)
        n_pairs = len(frames) // self.stride
        return frames[: n_pairs * self.stride].reshape(n_pairs, -1)

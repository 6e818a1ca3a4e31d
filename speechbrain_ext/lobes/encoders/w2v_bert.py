"""w2v-BERT 2.0 with all hidden states, and LoRA to adapt it."""

import torch
import torchaudio
from speechbrain.integrations.huggingface.w2v_bert import W2VBert

from speechbrain_ext.lobes.encoders.ssl_encoder import (
    SSLEncoder,
    check_local_folder,
    hub_errors,
    sample_counts,
)
from speechbrain_ext.utils.errors import InputError

FRAME_LENGTH, FRAME_SHIFT = 25.0, 10.0  # milliseconds
INT16_SCALE = 2**15  # Kaldi's waveforms are integers


class W2VBertEncoder(W2VBert):
    """All hidden states of a w2v-BERT 2.0 encoder (arXiv 2312.05187).

    SpeechBrain's lobe computes filter banks with NumPy on the CPU and gives no
    lengths; here they are computed where the waveforms are, and lengths in
    frames come with the hidden states, as from `SSLEncoder`. With LoRA
    (arXiv 2106.09685) low-rank updates of the attention are trained, and,
    where the encoder is not frozen, all the rest with them.

    Arguments
    ---------
    source : str
        Name on the Hugging Face hub, "facebook/w2v-bert-2.0", or a local
        folder with config.json, preprocessor_config.json and weights.
    save_path : str
        Folder for downloads.
    freeze : bool
        If True, only LoRA is trained, where there is any.
    gradient_checkpointing : bool
        Where something is trained, computes the layers again in the backward
        pass in place of keeping them: less memory, more time.
    lora_rank : int
        Rank of the updates; 0 for none.
    lora_alpha : float
        The updates count alpha / rank times.
    lora_targets : list of str
        Names of the linear layers to update, in every layer.

    Attributes
    ----------
    n_layers : int
        Number of hidden states that are returned.
    channels : int
        Their channels.
    hop : int
        Samples from frame to frame.
    receptive_field : int
        Samples that the shortest utterance needs.
    transformer_layers : torch.nn.ModuleList
        The layers of the transformer, from the lowest to the highest.

    Raises
    ------
    FileNotFoundError
        If the local folder lacks a file that is needed.
    OSError
        If the hub cannot be reached or does not know the name.
    InputError
        If peft is not installed, or the encoder is another one.

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
        source,
        save_path="pretrained_models",
        freeze=True,
        gradient_checkpointing=False,
        lora_rank=0,
        lora_alpha=128,
        lora_targets=("linear_q", "linear_v"),
    ):
        source = str(source)
        check_local_folder(source)
        with hub_errors(source):
            super().__init__(
                source, str(save_path), freeze=freeze, output_all_hiddens=True
            )
        # Weights on a hub may be in half precision, which saves space only.
        self.model.float()
        if lora_rank:
            self.model = add_lora(self.model, lora_rank, lora_alpha, lora_targets)
            # peft freezes what it does not add.
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad = not freeze or "lora_" in name
        # Without SpecAugment no gradient reaches it, which stops DDP.
        if hasattr(self.model, "masked_spec_embed"):
            self.model.masked_spec_embed.requires_grad = False
        self.is_trained = any(p.requires_grad for p in self.parameters())
        if gradient_checkpointing and self.is_trained:
            self.model.gradient_checkpointing_enable()
        self.n_layers = self.config.num_hidden_layers + 1
        self.channels = self.config.hidden_size
        self.n_mels = self.feature_extractor.num_mel_bins
        self.stride = self.feature_extractor.stride
        shift = int(self.sample_rate * FRAME_SHIFT / 1000)
        self.hop = self.stride * shift
        self.receptive_field = (
            int(self.sample_rate * FRAME_LENGTH / 1000) + (self.stride - 1) * shift
        )
        self.train(self.training)

    override_config = SSLEncoder.override_config  # checks the family
    transformer_layers = SSLEncoder.transformer_layers

    def train(self, mode=True):
        """Sets the mode, but for a frozen encoder, which stays in eval mode."""
        return super().train(mode and not self.freeze)

    def forward(self, wav, wav_lens=None):
        """Encodes a batch of waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, of shape (batch, time).
        wav_lens : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        torch.Tensor
            Relative lengths in frames, of shape (batch,).

        Raises
        ------
        ValueError
            If an utterance is shorter than one frame.
        """
        samples = sample_counts(wav, wav_lens, self.receptive_field)
        features = [
            self.filter_banks(signal[:count])
            for signal, count in zip(wav, samples.tolist())
        ]
        frames = torch.tensor([len(f) for f in features], device=wav.device)
        features = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        n_frames = features.shape[1]
        valid = torch.arange(n_frames, device=wav.device) < frames.unsqueeze(1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.is_trained):
            hidden_states = self.model(
                features,
                # Without padding, no mask: attention can take its fast path.
                attention_mask=None if bool(valid.all()) else valid.long(),
                output_hidden_states=True,
            ).hidden_states
            return torch.stack(hidden_states), frames / n_frames

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
            Of shape (frame, 2 * mel), every 20 ms.
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


def add_lora(model, rank, alpha, targets):
    """Adds trained low-rank updates to linear layers (arXiv 2106.09685).

    Arguments
    ---------
    model : torch.nn.Module
        Whose own parameters are frozen.
    rank : int
        Of the updates.
    alpha : float
        The updates count alpha / rank times.
    targets : list of str
        Names of the linear layers.

    Returns
    -------
    torch.nn.Module
        The same model, changed.

    Raises
    ------
    InputError
        If peft is not installed, or there are no such layers.

    Example
    -------
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    >>> model = add_lora(model, rank=2, alpha=4, targets=["0"])
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
    32
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError(
            'lora_rank: LoRA needs peft: pip install -e ".[lora]"; 0 leaves it out'
        ) from None
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets))
    try:
        return inject_adapter_in_model(config, model)
    except ValueError as error:
        raise InputError(f"lora_targets: {str(error).splitlines()[0]}") from None

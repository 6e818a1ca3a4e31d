"""wav2vec 2.0, HuBERT and WavLM encoders whose outputs ignore padding."""

import contextlib
import math
from pathlib import Path

import torch
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
from torch import nn

from speechbrain_ext.nnet.masking import frame_counts
from speechbrain_ext.utils.errors import InputError

EMBEDDED_ENCODERS = Path(__file__).resolve().parents[2] / "pretrained"
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.ckpt")


class LengthAwareGroupNorm(nn.GroupNorm):
    """Group norm of one channel a group over the valid frames only.

    The first convolution of the base encoders is followed by a group norm
    over time, which counts padding in PyTorch's version. Parameters have the
    same names, so checkpoints load unchanged.

    Arguments
    ---------
    n_channels : int
        Channels of the input, each a group of its own.
    eps : float
        Added to the variance.

    Example
    -------
    >>> norm = LengthAwareGroupNorm(4)
    >>> x = torch.rand(2, 4, 10)
    >>> norm.counts = torch.tensor([10, 6])
    >>> padded = norm(x)[1, :, :6]
    >>> norm.counts = torch.tensor([6])
    >>> torch.allclose(padded, norm(x[1:, :, :6])[0], atol=1e-6)
    True
    """

    # Set before each call.
    fingerprint_ignores = ("counts",)

    def __init__(self, n_channels, eps=1e-5):
        super().__init__(n_channels, n_channels, eps=eps)
        self.counts = None

    def forward(self, x):
        """Normalises each channel over the first `counts` frames.

        Arguments
        ---------
        x : torch.Tensor
            Of shape (batch, channel, time).

        Returns
        -------
        torch.Tensor
            Of the shape of x.
        """
        if self.counts is None or bool((self.counts == x.shape[-1]).all()):
            return super().forward(x)
        counts = self.counts.to(x.device).view(-1, 1, 1)
        valid = torch.arange(x.shape[-1], device=x.device) < counts
        x32 = x.float()
        mean = (x32 * valid).sum(-1, keepdim=True) / counts
        variance = ((x32 - mean) ** 2 * valid).sum(-1, keepdim=True) / counts
        x32 = (x32 - mean) * torch.rsqrt(variance + self.eps)
        out = x32 * self.weight.view(1, -1, 1) + self.bias.view(1, -1, 1)
        return out.to(x.dtype)


class SSLEncoder(Wav2Vec2):
    """All hidden states of a wav2vec 2.0, HuBERT or WavLM encoder.

    A thin layer over SpeechBrain's Hugging Face lobe. In a padded batch every
    utterance gets the hidden states that it gets alone, and a frozen encoder
    stays in eval mode when the Brain calls `train()`.

    Arguments
    ---------
    source : str
        Name on the Hugging Face hub, such as "microsoft/wavlm-base-plus";
        "speechbrain_ext/wavlm-small", the encoder that comes with the package;
        or a local folder with config.json, preprocessor_config.json and
        weights.
    save_path : str
        Folder for downloads.
    freeze : bool
        If True, no gradients, no autograd memory, no dropout.
    freeze_feature_extractor : bool
        With freeze=False, keeps the convolutional front end frozen.
    gradient_checkpointing : bool
        With freeze=False, computes the layers again in the backward pass in
        place of keeping them: less memory, more time.
    layers : list of int
        Hidden states to return, 0 being the input of the transformer; all if
        None.

    Attributes
    ----------
    n_layers : int
        Number of hidden states that are returned.
    channels : int
        Their channels.
    hop : int
        Samples from frame to frame.
    receptive_field : int
        Samples that the front end sees for a frame.
    transformer_layers : torch.nn.ModuleList
        The layers of the transformer, from the lowest to the highest.

    Raises
    ------
    FileNotFoundError
        If the local folder lacks a file that is needed.
    OSError
        If the hub cannot be reached or does not know the name.
    InputError
        If the encoder is of another family.
    ValueError
        If `layers` names a hidden state that the encoder lacks.

    Example
    -------
    >>> from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
    >>> folder = save_small_wavlm(getfixture("tmpdir") / "wavlm")
    >>> encoder = SSLEncoder(folder, freeze=True)
    >>> hidden_states, lengths = encoder(
    ...     torch.rand(2, 16000), torch.tensor([1.0, 0.5])
    ... )
    >>> hidden_states.shape
    torch.Size([7, 2, 48, 192])
    >>> lengths * 48
    tensor([48., 23.])
    """

    FAMILIES = ("wav2vec2", "hubert", "wavlm", "unispeech-sat")

    def __init__(
        self,
        source,
        save_path="pretrained_models",
        freeze=True,
        freeze_feature_extractor=True,
        gradient_checkpointing=False,
        layers=None,
    ):
        source = embedded_folder(str(source))
        check_local_folder(source)
        with hub_errors(source):
            super().__init__(
                source,
                str(save_path),
                freeze=freeze,
                freeze_feature_extractor=freeze_feature_extractor,
                output_all_hiddens=True,
            )
        # Weights on a hub may be in half precision, which saves space only.
        self.model.float()
        n_hidden_states = self.config.num_hidden_layers + 1
        self.layers = list(range(n_hidden_states) if layers is None else layers)
        if not set(self.layers) <= set(range(n_hidden_states)):
            raise ValueError(
                f"layers={self.layers}: '{source}' has hidden states 0 to "
                f"{n_hidden_states - 1}"
            )
        self.n_layers = len(self.layers)
        self.channels = self.config.hidden_size
        self.hop = math.prod(self.config.conv_stride)
        self.receptive_field = 1
        for kernel, stride in zip(
            reversed(self.config.conv_kernel), reversed(self.config.conv_stride)
        ):
            self.receptive_field = kernel + stride * (self.receptive_field - 1)
        if gradient_checkpointing and not freeze:
            self.model.gradient_checkpointing_enable()
        # A trained parameter that no gradient reaches stops DDP: that of
        # SpecAugment, and what comes after the highest layer that is returned.
        self.model.masked_spec_embed.requires_grad = False
        self.transformer_layers[max(self.layers) :].requires_grad_(False)
        if max(self.layers) < n_hidden_states - 1 and getattr(
            self.config, "do_stable_layer_norm", False
        ):
            self.model.encoder.layer_norm.requires_grad_(False)
        if self.config.feat_extract_norm == "group":
            first = self.model.feature_extractor.conv_layers[0]
            norm = LengthAwareGroupNorm(
                first.layer_norm.num_channels, first.layer_norm.eps
            )
            norm.load_state_dict(first.layer_norm.state_dict())
            for new, old in zip(norm.parameters(), first.layer_norm.parameters()):
                new.requires_grad = old.requires_grad
            first.layer_norm = norm
        self.train(self.training)

    def override_config(self, config):
        """Checks the family, and turns layer drop off.

        A skipped layer has no hidden state.

        Arguments
        ---------
        config : transformers.PretrainedConfig
            The encoder's configuration.

        Returns
        -------
        transformers.PretrainedConfig
            The same, changed.

        Raises
        ------
        InputError
            If the encoder is of another family.
        """
        if config.model_type not in self.FAMILIES:
            raise InputError(
                f"ssl_hub: '{config.name_or_path}' is a {config.model_type}; "
                f"{type(self).__name__} takes {', '.join(self.FAMILIES)} (for "
                "w2v-BERT 2.0: hparams/w2v_bert_mfa.yaml)"
            )
        config.layerdrop = 0.0
        return config

    @property
    def transformer_layers(self):
        """Layers of the transformer, from the lowest to the highest."""
        return self.model.encoder.layers

    def train(self, mode=True):
        """Sets the mode, but for what is frozen, which stays in eval mode."""
        super().train(mode and not self.freeze)
        if self.freeze_feature_extractor:
            self.model.feature_extractor.eval()
        return self

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
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            return self._hidden_states(wav, wav_lens)

    def _hidden_states(self, wav, wav_lens):
        samples = sample_counts(wav, wav_lens, self.receptive_field)
        frames = self.model._get_feat_extract_output_lengths(samples)
        positions = torch.arange(wav.shape[1], device=wav.device)
        valid = positions < samples.unsqueeze(1)
        wav = wav.masked_fill(~valid, 0.0)
        if self.normalize_wav:
            wav = normalize_waveform(wav, valid)
        first = self.model.feature_extractor.conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), LengthAwareGroupNorm):
            kernel, stride = first.conv.kernel_size[0], first.conv.stride[0]
            first.layer_norm.counts = (samples - kernel) // stride + 1
        # Without padding, no mask: attention can take its fast path.
        attention_mask = None if bool(valid.all()) else valid.long()
        hidden_states = self.model(
            wav, attention_mask=attention_mask, output_hidden_states=True
        ).hidden_states
        stacked = torch.stack([hidden_states[layer] for layer in self.layers])
        return stacked, frames / stacked.shape[2]


def sample_counts(wav, wav_lens, receptive_field):
    """Samples of each utterance, each enough for a frame.

    Arguments
    ---------
    wav : torch.Tensor
        Waveforms, of shape (batch, time).
    wav_lens : torch.Tensor
        Relative lengths, of shape (batch,); whole waveforms if None.
    receptive_field : int
        Samples that a frame needs.

    Returns
    -------
    torch.Tensor
        Samples, of shape (batch,), dtype long.

    Raises
    ------
    ValueError
        If an utterance is shorter than one frame.

    Example
    -------
    >>> sample_counts(torch.rand(2, 1000), torch.tensor([1.0, 0.5]), 400)
    tensor([1000,  500])
    """
    if wav_lens is None:
        wav_lens = torch.ones(len(wav), device=wav.device)
    samples = frame_counts(wav_lens, wav.shape[1])
    if bool((samples < receptive_field).any()):
        raise ValueError(
            f"an utterance of {int(samples.min())} samples is shorter than "
            f"one frame of the SSL encoder ({receptive_field} samples)"
        )
    return samples


def normalize_waveform(wav, valid):
    """Zero mean and unit variance over the valid samples.

    Arguments
    ---------
    wav : torch.Tensor
        Waveforms, zero where padded, of shape (batch, time).
    valid : torch.Tensor
        Boolean mask of shape (batch, time).

    Returns
    -------
    torch.Tensor
        Of the shape of wav, zero where padded.

    Example
    -------
    >>> wav = torch.tensor([[1.0, 3.0, 0.0]])
    >>> normalize_waveform(wav, torch.tensor([[True, True, False]]))
    tensor([[-1.,  1.,  0.]])
    """
    counts = valid.sum(1, keepdim=True)
    mean = wav.sum(1, keepdim=True) / counts
    centered = (wav - mean).masked_fill(~valid, 0.0)
    variance = (centered**2).sum(1, keepdim=True) / counts
    return centered * torch.rsqrt(variance + 1e-7)


def embedded_folder(source):
    """Folder of an encoder that comes with the package.

    Arguments
    ---------
    source : str
        As of `SSLEncoder`.

    Returns
    -------
    str
        The folder for a name that starts with "speechbrain_ext/"; any other
        source as it is.

    Raises
    ------
    FileNotFoundError
        If the package has no encoder of that name.

    Example
    -------
    >>> embedded_folder("microsoft/wavlm-base-plus")
    'microsoft/wavlm-base-plus'
    """
    package, _, name = source.partition("/")
    if package != "speechbrain_ext" or Path(source).is_dir():
        return source
    folder = EMBEDDED_ENCODERS / name
    if not (folder / "config.json").is_file():
        known = sorted(p.parent.name for p in EMBEDDED_ENCODERS.glob("*/config.json"))
        raise FileNotFoundError(
            f"ssl_hub: '{source}' does not come with the package, which has "
            + ", ".join(f"{package}/{encoder}" for encoder in known)
        )
    return str(folder)


@contextlib.contextmanager
def hub_errors(source):
    """Says what to do where an encoder cannot be loaded from the hub.

    Arguments
    ---------
    source : str
        As of `SSLEncoder`.

    Raises
    ------
    OSError
        In place of what the block raises, unless the source is a folder.

    Example
    -------
    >>> with hub_errors("nobody/nothing"):
    ...     raise ValueError
    Traceback (most recent call last):
        ...
    OSError: ssl_hub 'nobody/nothing' is no local folder and could not be ...
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if Path(source).exists():
            raise
        raise OSError(
            f"ssl_hub '{source}' is no local folder and could not be "
            f"loaded from the Hugging Face hub ({type(error).__name__}). "
            "Without internet, copy the model's config.json, "
            "preprocessor_config.json and weights into a folder and give "
            "its path as ssl_hub."
        ) from error


def check_local_folder(source):
    """Checks that a local SSL folder has what Hugging Face needs.

    Arguments
    ---------
    source : str
        Folder, or a hub name, which is not checked.

    Raises
    ------
    FileNotFoundError
        If the folder lacks the configuration or the weights.

    Example
    -------
    >>> check_local_folder("microsoft/wavlm-base-plus")
    """
    folder = Path(source)
    if not folder.exists():
        if folder.is_absolute() or source.startswith((".", "~")):
            raise FileNotFoundError(f"ssl_hub: there is no folder '{source}'")
        return
    for needed in ("config.json", "preprocessor_config.json"):
        if not (folder / needed).is_file():
            raise FileNotFoundError(
                f"ssl_hub: '{source}' has no {needed}; save the encoder with "
                "transformers' save_pretrained, feature extractor included"
            )
    if not any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES):
        raise FileNotFoundError(
            f"ssl_hub: '{source}' has no weights (model.safetensors or "
            "pytorch_model.bin)"
        )

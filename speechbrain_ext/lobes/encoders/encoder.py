"""What every encoder of waveforms keeps to, and what all of them share."""

import abc
import contextlib
import copy
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from speechbrain.integrations.huggingface.huggingface import HFTransformersInterface
from torch import nn

from speechbrain_ext.lobes.encoders.hub import found, hub_errors
from speechbrain_ext.lobes.encoders.lora import add_lora
from speechbrain_ext.nnet.masking import frame_counts, is_traced
from speechbrain_ext.utils.errors import InputError

# Linear layers of the attention, as the classes in transformers name them
QUERIES_AND_VALUES = ("q_proj", "v_proj", "linear_q", "linear_v")


class Encoder(HFTransformersInterface, abc.ABC):
    """All hidden states of a pre-trained encoder in Hugging Face's format.

    In a padded batch every utterance gets the hidden states that it gets
    alone, and a frozen encoder stays in eval mode when the Brain calls
    `train()`. The hidden states are those that the class in transformers
    returns. With LoRA (arXiv 2106.09685) low-rank updates of linear layers are
    trained, and, where the encoder is not frozen, all the rest with them.

    A class names its FAMILIES and defines `hop`, `receptive_field`,
    `transformer_layers` and `encode`; `load_encoder` lists it.

    Arguments
    ---------
    source : str or dict
        Name on the Hugging Face hub, such as "microsoft/wavlm-base-plus", with
        "@" and a revision where it must be that one;
        "speechbrain_ext/wavlm-small", the encoder that comes with the package;
        a local folder with config.json, preprocessor_config.json and weights;
        or an `architecture`, which is built with random weights, to load others.
    save_path : str
        Folder for downloads.
    freeze : bool
        If True, only LoRA is trained, where there is any; without it, there are
        no gradients, no autograd memory and no dropout.
    freeze_feature_extractor : bool
        With freeze=False, keeps the convolutional front end frozen.
    freeze_feature_projection : bool
        With freeze=False, keeps the projection of its output frozen too, so that
        the transformer alone is trained.
    mask_time_prob : float
        SpecAugment (arXiv 1904.08779) in training: share of the transformer's
        input frames in spans in whose place a learned vector comes; 0 for none.
    mask_time_length : int
        Frames of a span.
    gradient_checkpointing : bool
        Where something is trained, computes the layers again in the backward
        pass in place of keeping them: less memory, more time.
    layers : list of int
        Hidden states to return, 0 being the input of the transformer; all if
        None.
    lora_rank : int
        Rank of the updates; 0 for none.
    lora_alpha : int
        The updates count alpha / rank times.
    lora_targets : list of str
        Names of the linear layers to update, in every layer; if None, the
        queries and values of the attention.

    Attributes
    ----------
    n_layers : int
        Number of hidden states that are returned.
    channels : int
        Their channels.
    hop : int
        Samples from frame to frame.
    receptive_field : int
        Samples that the front end needs for a frame, and so the length of the
        shortest utterance.
    longest : int or None
        Samples of the longest utterance that is encoded in one piece, where there
        is a limit; an exported encoder takes no longer ones.
    sample_rate : int
        Sample rate of the waveforms, in Hz.
    transformer_layers : torch.nn.ModuleList
        The layers of the transformer, from the lowest to the highest.

    Raises
    ------
    FileNotFoundError
        If the local folder lacks a file that is needed.
    OSError
        If the hub cannot be reached or does not know the name.
    InputError
        If the encoder is of another family, if peft is needed and not
        installed, or if `lora_targets` names no layer.
    ValueError
        If `layers` names a hidden state that the encoder lacks.
    """

    FAMILIES: tuple[str, ...]
    # Of how it was built, not of what it computes.
    fingerprint_ignores: tuple[str, ...] = ("has_own_weights",)

    hop: int
    receptive_field: int
    longest: int | None = None
    n_inserted: int = 0  # frames, by `insert_frame`
    model: Any  # of transformers

    def __init__(
        self,
        source: str | Mapping,
        save_path: str = "pretrained_models",
        freeze: bool = True,
        freeze_feature_extractor: bool = True,
        freeze_feature_projection: bool = False,
        mask_time_prob: float = 0.0,
        mask_time_length: int = 10,
        gradient_checkpointing: bool = False,
        layers: Sequence[int] | None = None,
        lora_rank: int = 0,
        lora_alpha: int = 128,
        lora_targets: Sequence[str] | None = None,
    ) -> None:
        self.has_own_weights = not isinstance(source, Mapping)
        save_path = str(save_path)
        # For `override_config`
        self.mask_time_prob = mask_time_prob
        self.mask_time_length = mask_time_length
        with found(source, save_path) as place, hub_errors(place):
            super().__init__(place, save_path, freeze=freeze)
            self.load_feature_extractor(place, cache_dir=save_path)
        # Weights on a hub may be in half precision, which saves space only.
        self.model.float()
        self.sample_rate: int = self.feature_extractor.sampling_rate
        n_hidden_states = self.config.num_hidden_layers + 1
        self.layers = list(range(n_hidden_states) if layers is None else layers)
        if not set(self.layers) <= set(range(n_hidden_states)):
            raise ValueError(
                f"layers={self.layers}: '{place}' has hidden states 0 to "
                f"{n_hidden_states - 1}"
            )
        self.n_layers: int = len(self.layers)
        self.channels: int = self.config.hidden_size
        if mask_time_prob and not hasattr(self.model, "masked_spec_embed"):
            raise InputError(
                f"mask_time_prob: {type(self).__name__} has no vector to mask frames "
                "with; set it to 0"
            )
        self.kept_frozen: list[nn.Module] = []
        if freeze_feature_extractor:
            self.kept_frozen += self.front_end
        if freeze_feature_projection and hasattr(self.model, "feature_projection"):
            self.kept_frozen.append(self.model.feature_projection)
        for module in self.kept_frozen:
            module.requires_grad_(False)
        if lora_rank:
            if lora_targets is None:
                names = {name.split(".")[-1] for name, _ in self.model.named_modules()}
                lora_targets = [name for name in QUERIES_AND_VALUES if name in names]
            self.model = add_lora(self.model, lora_rank, lora_alpha, lora_targets)
        self.freeze_unused()
        self.is_trained = any(p.requires_grad for p in self.model.parameters())
        self.recomputes = gradient_checkpointing and self.is_trained
        if self.recomputes:
            # The other kind passes no gradient through a frozen input, as LoRA has.
            model = self.model
            # transformers 5 began with the other name, and warns of it now.
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})

    def _from_pretrained(self, source, *args, **kwargs):
        """Loads the weights, where the source has any."""
        if self.has_own_weights:
            super()._from_pretrained(source, *args, **kwargs)
        else:
            # Classes that are chosen by the configuration have a method for it.
            build = getattr(self.auto_class, "from_config", self.auto_class)
            self.model = build(copy.deepcopy(self.config))

    @property
    def architecture(self) -> dict:
        """What builds the same encoder without its weights.

        Plain data, config and preprocessor, to be given as `source`.
        """
        config = json.loads(self.config.to_json_string())
        # Where it once lay is no part of it.
        for name in ("_name_or_path", "transformers_version"):
            config.pop(name, None)
        preprocessor = json.loads(self.feature_extractor.to_json_string())
        return {"config": config, "preprocessor": preprocessor}

    def override_config(self, config):
        """Checks the family, and turns off what changes hidden states at random.

        But for SpecAugment, where it is asked for. A skipped layer has no
        hidden state. Adapters after the last layer change none, and are turned
        off too.

        Arguments
        ---------
        config : transformers.PreTrainedConfig
            The encoder's configuration.

        Returns
        -------
        transformers.PreTrainedConfig
            The same, changed.

        Raises
        ------
        InputError
            If the encoder is of another family.
        """
        if config.model_type not in self.FAMILIES:
            raise InputError(
                f"ssl_hub: '{config.name_or_path}' is a {config.model_type}; "
                f"{type(self).__name__} takes {', '.join(self.FAMILIES)} "
                "(speechbrain_ext.lobes.load_encoder takes all families)"
            )
        # Set where a configuration lacks it too: some classes take what is not
        # there for on.
        config.layerdrop = 0.0
        config.apply_spec_augment = self.mask_time_prob > 0
        if config.apply_spec_augment:
            config.mask_time_prob = self.mask_time_prob
            config.mask_time_length = self.mask_time_length
            config.mask_time_min_masks = 0
            config.mask_feature_prob = 0.0
        config.add_adapter = False
        config.use_intermediate_ffn_before_adapter = False
        return config

    @property
    @abc.abstractmethod
    def transformer_layers(self) -> nn.ModuleList:
        """Layers of the transformer, from the lowest to the highest."""

    @property
    def front_end(self) -> list[nn.Module]:
        """The convolutions before the transformer; none by default."""
        return []

    def freeze_unused(self) -> None:
        """Freezes what no gradient can reach, which stops DDP.

        The parameter of SpecAugment where it is off, and what comes after the
        highest hidden state that is returned.
        """
        if hasattr(self.model, "masked_spec_embed") and not self.mask_time_prob:
            self.model.masked_spec_embed.requires_grad = False
        for layer in list(self.transformer_layers)[max(self.layers) :]:
            layer.requires_grad_(False)

    def train(self, mode: bool = True):
        """Sets the mode, but for what is frozen, which stays in eval mode."""
        super().train(mode and not self.freeze)
        for module in self.kept_frozen:
            module.eval()
        for module in self.model.modules():
            # Of the conformer: batches of its pre-training were larger, and a
            # batch's statistics would count padding.
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        if self.recomputes:
            # LoRA in a frozen encoder: transformers computes again what is in
            # training mode only. The dropouts below stay in eval mode.
            for layer in self.transformer_layers:
                layer.training = mode
        return self

    def forward(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
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
        has_gradients = torch.is_grad_enabled() and self.is_trained
        with torch.set_grad_enabled(has_gradients), self._without_unused_layers():
            hidden_states, frames = self.encode(wav, samples)
            frames = frames + self.n_inserted
            stacked = torch.stack([hidden_states[layer] for layer in self.layers])
        return stacked, frames / stacked.shape[2]

    @contextlib.contextmanager
    def _without_unused_layers(self):
        """Takes layers above the highest hidden state out for a while.

        One more stays, since what the last one gives may be normalised.
        """
        layers, n_needed = self.transformer_layers, max(self.layers) + 1
        if is_traced() or len(layers) <= n_needed:
            yield
            return
        every = layers._modules
        layers._modules = dict(itertools.islice(every.items(), n_needed))
        try:
            yield
        finally:
            layers._modules = every

    def frames_of(self, samples):
        """Frames of a waveform, without an inserted one.

        Arguments
        ---------
        samples : torch.Tensor or int
            Its samples.

        Returns
        -------
        torch.Tensor or int
            Frames that the encoder gives for so many samples.
        """
        return (samples - self.receptive_field) // self.hop + 1

    @abc.abstractmethod
    def encode(
        self, wav: torch.Tensor, samples: torch.Tensor
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """Computes all hidden states.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, of shape (batch, time).
        samples : torch.Tensor
            Valid samples of each, of shape (batch,).

        Returns
        -------
        list of torch.Tensor
            From the input of the transformer up, each of shape
            (batch, time, channel).
        torch.Tensor
            Valid frames of each utterance, of shape (batch,).
        """


def sample_counts(
    wav: torch.Tensor, wav_lens: torch.Tensor | None, receptive_field: int
) -> torch.Tensor:
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
    if not is_traced() and bool((samples < receptive_field).any()):
        raise ValueError(
            f"an utterance of {int(samples.min())} samples is shorter than "
            f"one frame of the SSL encoder ({receptive_field} samples)"
        )
    return samples

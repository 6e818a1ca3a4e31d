"""Trained speaker models, ready to embed and verify."""

import functools
import statistics
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from speechbrain.utils.checkpoints import average_checkpoints

from speechbrain_ext.config import select_keys
from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.inference.extraction import model_fingerprint
from speechbrain_ext.nnet.pooling import attends_to_layers
from speechbrain_ext.utils.checkpoints import (
    best_checkpoint,
    best_checkpoints,
    load_parameters,
)
from speechbrain_ext.utils.errors import InputError

MODEL_KEYS = ("encoder", "embedding_model", "sample_rate")


class SpeakerRecognition(torch.nn.Module):
    """A trained model, with the methods of SpeechBrain's SpeakerRecognition.

    Arguments
    ---------
    encoder : torch.nn.Module
        From waveforms and lengths to features and lengths.
    embedding_model : torch.nn.Module
        From features and lengths to embeddings (batch, 1, dim).
    sample_rate : int
        In Hz.
    threshold : float
        Score above which two utterances are of one speaker.

    Example
    -------
    >>> from speechbrain.lobes.models.Xvector import Xvector
    >>> from speechbrain_ext.lobes.features import NormalizedFbank
    >>> model = SpeakerRecognition(
    ...     NormalizedFbank(24), Xvector(in_channels=24), 16000, threshold=0.25
    ... )
    >>> model.encode_batch(torch.rand(2, 16000)).shape
    torch.Size([2, 1, 512])
    """

    def __init__(self, encoder, embedding_model, sample_rate, threshold):
        super().__init__()
        self.encoder = encoder
        self.embedding_model = embedding_model
        self.sample_rate = sample_rate
        self.threshold = threshold
        self.eval()

    @classmethod
    def from_training(cls, output_folder, device="cpu"):
        """Loads the best checkpoint of a training.

        Where the training's YAML says `average_checkpoints: n`, the weights
        and thresholds of the n best ones are averaged.

        Arguments
        ---------
        output_folder : str or Path
            `output_folder` of the training, with hyperparams.yaml and save/.
        device : str
            Where to compute.

        Returns
        -------
        SpeakerRecognition
            With the threshold of the validation trials.

        Raises
        ------
        InputError
            If the folder holds no finished training, or checkpoint and
            hyperparams.yaml are of different architectures.
        """
        output_folder = Path(output_folder)
        best = best_checkpoint(output_folder / "save")
        hparams_file = output_folder / "hyperparams.yaml"
        if not hparams_file.is_file():
            raise InputError(f"'{output_folder}' has no hyperparams.yaml")
        content = YAML().load(hparams_file.read_text(encoding="utf-8"))
        checkpoints = best_checkpoints(
            output_folder / "save", content.get("average_checkpoints", 1)
        )
        model = load_hyperpyyaml(select_keys(content, MODEL_KEYS, hparams_file))
        for name in ("encoder", "embedding_model"):
            # A frozen encoder is not saved.
            if not (best.path / f"{name}.ckpt").is_file():
                continue
            load_parameters(
                model[name],
                average_checkpoints(checkpoints, name),
                f"{name} in '{best.path}', by '{hparams_file}',",
            )
        thresholds = [checkpoint.meta["threshold"] for checkpoint in checkpoints]
        return cls(**model, threshold=statistics.mean(thresholds)).to(device)

    @property
    def device(self):
        """Device of the parameters."""
        return next(self.parameters()).device

    @torch.no_grad()
    def encode_batch(self, wavs, wav_lens=None):
        """Embeds waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at `sample_rate`, of shape (batch, time).
        wav_lens : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Of shape (batch, 1, dim).
        """
        if wav_lens is None:
            wav_lens = torch.ones(len(wavs))
        features, lengths = self.encoder(wavs.to(self.device), wav_lens.to(self.device))
        return self.embedding_model(features, lengths)

    @functools.cached_property
    def fingerprint(self):
        """Hash of the parameters, for embedding stores; computed once."""
        return model_fingerprint(self)

    @property
    def has_layer_weights(self):
        """Whether the embedding model attends to layers."""
        return attends_to_layers(self.embedding_model)

    @torch.no_grad()
    def layer_weights(self, wav):
        """Layer weights of an utterance, where `has_layer_weights`.

        Arguments
        ---------
        wav : torch.Tensor
            Waveform, of shape (time,).

        Returns
        -------
        torch.Tensor
            On the CPU, of shape (head, frame, layer).
        """
        features, _ = self.encoder(wav.unsqueeze(0).to(self.device))
        _, weights = self.embedding_model(features, return_weights=True)
        return weights[0].cpu()

    def load_audio(self, path):
        """Reads an audio file as the model wants it.

        Arguments
        ---------
        path : str or Path
            Audio file of any sample rate and number of channels.

        Returns
        -------
        torch.Tensor
            Waveform, of shape (time,).
        """
        return read_crop(path, self.sample_rate)

    def verify_batch(self, wavs1, wavs2, wav1_lens=None, wav2_lens=None):
        """Scores pairs of waveforms.

        Arguments
        ---------
        wavs1 : torch.Tensor
            Of shape (batch, time).
        wavs2 : torch.Tensor
            Of shape (batch, time).
        wav1_lens : torch.Tensor
            Relative lengths, of shape (batch,).
        wav2_lens : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Cosine scores, of shape (batch, 1).
        torch.Tensor
            Whether the score is above `threshold`.
        """
        scores = torch.cosine_similarity(
            self.encode_batch(wavs1, wav1_lens),
            self.encode_batch(wavs2, wav2_lens),
            dim=-1,
        )
        return scores, scores > self.threshold

    def verify_files(self, path_x, path_y):
        """Scores two audio files.

        Arguments
        ---------
        path_x : str or Path
            Audio file.
        path_y : str or Path
            Audio file.

        Returns
        -------
        torch.Tensor
            The cosine score, of shape (1,).
        torch.Tensor
            Whether the score is above `threshold`.
        """
        scores, decisions = self.verify_batch(
            self.load_audio(path_x).unsqueeze(0),
            self.load_audio(path_y).unsqueeze(0),
        )
        return scores[0], decisions[0]

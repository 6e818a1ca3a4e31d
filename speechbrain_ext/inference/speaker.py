"""Trained speaker models, ready to embed and verify."""

import statistics
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import average_checkpoints

from speechbrain_ext.config import resolve, select_keys
from speechbrain_ext.dataio.audio import read_crop, read_header
from speechbrain_ext.dataio.windows import Windows, cut_recording
from speechbrain_ext.lobes.models.without_padding import leave_padding_out
from speechbrain_ext.nnet.pooling import attends_to_layers
from speechbrain_ext.utils.checkpoints import (
    best_checkpoint,
    best_checkpoints,
    load_parameters,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fingerprints import model_fingerprint

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
    >>> from speechbrain_ext.lobes import MaskedXvector
    >>> from speechbrain_ext.lobes.features import NormalizedFbank
    >>> model = SpeakerRecognition(
    ...     NormalizedFbank(24), MaskedXvector(in_channels=24), 16000, threshold=0.25
    ... )
    >>> model.encode_batch(torch.rand(2, 16000)).shape
    torch.Size([2, 1, 512])
    """

    # Decides on scores, not on embeddings.
    fingerprint_ignores = ("threshold",)

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
        content = resolve(hparams_file.read_text(encoding="utf-8"), hparams_file)
        checkpoints = best_checkpoints(
            output_folder / "save", content.get("average_checkpoints", 1)
        )
        model = load_hyperpyyaml(select_keys(content, MODEL_KEYS, hparams_file))
        # Trainings of earlier versions name SpeechBrain's own classes.
        leave_padding_out(model["embedding_model"])
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

    def encode_file(self, path, window_length=None, window_overlap=None):
        """Embeds an audio file; a long one in windows, read one by one.

        Arguments
        ---------
        path : str or Path
            Audio file of any sample rate and number of channels.
        window_length : float
            Seconds of the windows that a longer recording is cut into, whose
            embeddings are averaged with their lengths as weights; the recording
            as a whole if None.
        window_overlap : float
            Seconds that windows share, at the least; none if None.

        Returns
        -------
        torch.Tensor
            On the CPU, of shape (dim,).

        Raises
        ------
        InputError
            If the recording is too long to be embedded as a whole, or shorter
            than its header says.
        """
        windows = Windows.of_settings(window_length, window_overlap)
        item = {"wav": str(path), "duration": read_header(path).duration}
        total, n_samples = 0.0, 0
        for piece in cut_recording(item, windows):
            if "start" in piece:
                crop = piece["start"], piece["duration"]
                wav = read_crop(path, self.sample_rate, *crop)
                if len(wav) == 0:
                    raise InputError(f"'{path}' is shorter than its header says")
            else:
                wav = self.load_audio(path)
            embedding = self.encode_batch(wav.unsqueeze(0))[0, 0]
            # In double precision a mean over one piece is the piece itself.
            total = total + len(wav) * embedding.double().cpu()
            n_samples += len(wav)
        return (total / n_samples).float()

    @property
    def fingerprint(self):
        """Hash of all that embeddings depend on, as of `model_fingerprint`.

        Computed anew each time, as parameters and attributes can change.
        """
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

    def verify_files(self, path_x, path_y, window_length=None, window_overlap=None):
        """Scores two audio files.

        Arguments
        ---------
        path_x : str or Path
            Audio file.
        path_y : str or Path
            Audio file.
        window_length : float
            As of `encode_file`.
        window_overlap : float
            As of `encode_file`.

        Returns
        -------
        torch.Tensor
            The cosine score, of shape (1,).
        torch.Tensor
            Whether the score is above `threshold`.
        """
        score = torch.cosine_similarity(
            *(
                self.encode_file(path, window_length, window_overlap).unsqueeze(0)
                for path in (path_x, path_y)
            )
        )
        return score, score > self.threshold

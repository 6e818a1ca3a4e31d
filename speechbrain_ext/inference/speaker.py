"""Trained speaker models, ready to embed and verify."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.checkpoints import average_checkpoints
from speechbrain.utils.data_utils import split_path
from speechbrain.utils.fetching import fetch
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ext.dataio.audio import read_crop, require_header
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.dataio.windows import Windows, cut_recording
from speechbrain_ext.inference.model_folder import find_model, load_model
from speechbrain_ext.inference.model_scoring import ModelScoring, Verification
from speechbrain_ext.inference.trusted_yaml import load_trusted_yaml
from speechbrain_ext.lobes.models.without_padding import leave_padding_out
from speechbrain_ext.nnet.pooling import attends_to_layers
from speechbrain_ext.utils.checkpoints import (
    best_checkpoint,
    best_checkpoints,
    load_parameters,
    require_file,
)
from speechbrain_ext.utils.distributed import device_of
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fingerprints import model_fingerprint
from speechbrain_ext.utils.precision import HALVES, computing_in

# Embeddings of a speaker's recordings, and their seconds
Enrolled = tuple[torch.Tensor, list[float]]
# Scores of all speakers; the highest, its index and its name
Classification = tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]
MODEL_KEYS = ("encoder", "embedding_model", "sample_rate")


class Candidate(NamedTuple):
    """An enrolled speaker, compared with a recording.

    Arguments
    ---------
    name : str
        Name of the speaker.
    score : float
        Score of the recording against what was enrolled.
    decision : bool
        Whether they are of one speaker.
    log_likelihood_ratio : float
        See `Verification`; None without calibration.
    probability : float
        See `Verification`; None without calibration.
    """

    name: str
    score: float
    decision: bool
    log_likelihood_ratio: float | None
    probability: float | None


def rank_speakers(
    scoring: ModelScoring,
    embedding: torch.Tensor,
    duration: float,
    enrolled: dict[str, Enrolled],
    threshold: float | None = None,
) -> list[Candidate]:
    """Compares a recording with enrolled speakers.

    Arguments
    ---------
    scoring : ModelScoring
        Scoring of the model.
    embedding : torch.Tensor
        Embedding of the recording, of shape (dim,).
    duration : float
        Duration of the recording, in seconds.
    enrolled : dict
        Embeddings of each speaker's recordings and their seconds.
    threshold : float
        Threshold in place of the model's own.

    Returns
    -------
    list of Candidate
        All of them, the highest score first.

    Example
    -------
    >>> enrolled = {"ann": (torch.eye(2)[:1], [1.0]), "bob": (torch.ones(1, 2), [1.0])}
    >>> scoring = ModelScoring(threshold=0.5)
    >>> [one.name for one in rank_speakers(scoring, torch.ones(2), 1.0, enrolled)]
    ['bob', 'ann']
    """
    names = list(enrolled)
    rows, durations, ids, enrolments = [embedding], [duration], ["test"], {}
    for name, (embeddings, seconds) in enrolled.items():
        enrolments[name] = [f"{name} {i}" for i in range(len(embeddings))]
        rows.extend(embeddings)
        durations.extend(seconds)
        ids.extend(enrolments[name])
    result = scoring.score(
        EmbeddingStore(ids, torch.stack(rows), ids, durations, ""),
        Trials([0] * len(names), names, ["test"] * len(names)),
        enrolments,
        threshold,
    )
    columns = [
        [None] * len(names) if values is None else values.tolist()
        for values in (
            result.score,
            result.decision,
            result.log_likelihood_ratio,
            result.probability,
        )
    ]
    candidates = [Candidate(*row) for row in zip(names, *columns)]
    return sorted(candidates, key=lambda one: one.score, reverse=True)


class SpeakerRecognition(torch.nn.Module):
    """A trained model, with the methods of SpeechBrain's SpeakerRecognition.

    Embeddings do not depend on the batch, and decisions are made by the model's
    own threshold, or by its calibration.

    Arguments
    ---------
    encoder : torch.nn.Module
        Module from waveforms and lengths to features and lengths.
    embedding_model : torch.nn.Module
        Module from features and lengths to embeddings (batch, 1, dim).
    sample_rate : int
        Sample rate of the waveforms, in Hz.
    threshold : float
        Score above which two utterances are of one speaker.
    scoring : ModelScoring
        How to score and decide, in place of the threshold.
    classifier : torch.nn.Module
        Module from embeddings to scores of the training speakers, for
        `classify_batch`.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Names of the training speakers.

    Attributes
    ----------
    enrolled : dict
        Embeddings of each enrolled speaker's recordings and their seconds.

    Example
    -------
    >>> from speechbrain_ext.lobes import MaskedXvector, NormalizedFbank
    >>> model = SpeakerRecognition(
    ...     NormalizedFbank(24), MaskedXvector(in_channels=24), 16000, threshold=0.25
    ... )
    >>> model.encode_batch(torch.rand(2, 16000)).shape
    torch.Size([2, 1, 512])
    """

    # They decide on scores or come after embeddings.
    fingerprint_ignores = ("scoring", "enrolled", "_classification")

    def __init__(
        self,
        encoder: torch.nn.Module,
        embedding_model: torch.nn.Module,
        sample_rate: int,
        threshold: float | None = None,
        scoring: ModelScoring | None = None,
        classifier: torch.nn.Module | None = None,
        label_encoder: CategoricalEncoder | None = None,
    ) -> None:
        super().__init__()
        if scoring is None:
            scoring = ModelScoring(threshold=threshold)
        self.encoder = encoder
        self.embedding_model = embedding_model
        self.sample_rate = sample_rate
        self.scoring = scoring
        self.enrolled: dict[str, Enrolled] = {}
        # In a tuple it is no submodule: it is no part of what embeds.
        self._classification = (classifier, label_encoder)
        self.eval()

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        savedir: str | Path | None = None,
        revision: str | None = None,
        token: str | None = None,
        run_opts: dict[str, Any] | RunOptions | None = None,
        trust_source: bool = False,
    ) -> "SpeakerRecognition":
        """Loads an exported model.

        Arguments
        ---------
        source : str or Path
            Folder that `speechbrain-ext export` wrote, or its name on the Hugging
            Face hub.
        savedir : str or Path
            Folder for the download; the hub's cache if None.
        revision : str
            Branch, tag or commit on the hub.
        token : str
            Token for the hub; the one that is logged in with if None.
        run_opts : dict or speechbrain.utils.run_opts.RunOptions
            {"device": "cuda:0"} says where to compute; a GPU if there is one.
        trust_source : bool
            Whether its hyperparams.yaml may call anything, not only layers and
            lobes of torch.nn, speechbrain and speechbrain_ext.

        Returns
        -------
        SpeakerRecognition
            The model, with its threshold and calibration.

        Raises
        ------
        InputError
            If there is no such model, or its hyperparams.yaml would call
            something else.
        """
        model = load_model(find_model(source, savedir, revision, token), trust_source)
        embedder = model.pop("embedding_model")
        return cls(embedder.encoder, embedder.embedding_model, **model).to(
            device_of(run_opts)
        )

    @classmethod
    def from_training(
        cls,
        output_folder: str | Path,
        device: str | torch.device = "cpu",
        trust_source: bool = False,
    ) -> "SpeakerRecognition":
        """Loads the best checkpoint of a training.

        Where the training's YAML says `average_checkpoints: n`, the weights
        and thresholds of the n best ones are averaged.

        Arguments
        ---------
        output_folder : str or Path
            `output_folder` of the training, with hyperparams.yaml and save/.
        device : str
            Device to compute on.
        trust_source : bool
            See `from_hparams`; needed where the encoder or the embedding
            model is of a package of your own.

        Returns
        -------
        SpeakerRecognition
            The model, with the threshold of the validation trials.

        Raises
        ------
        InputError
            If the folder holds no finished training, checkpoint and
            hyperparams.yaml are of different architectures, hyperparams.yaml
            would call what is not on the allow-list, or there is no such device.
        """
        output_folder = Path(output_folder)
        best = best_checkpoint(output_folder / "save")
        hparams_file = output_folder / "hyperparams.yaml"
        if not hparams_file.is_file():
            raise InputError(f"'{output_folder}' has no hyperparams.yaml")
        text = hparams_file.read_text(encoding="utf-8")
        model = load_trusted_yaml(
            text,
            hparams_file,
            MODEL_KEYS,
            ("average_checkpoints", "dataset"),
            trust_source,
        )
        dataset = model.pop("dataset", None)
        checkpoints = best_checkpoints(
            output_folder / "save", model.pop("average_checkpoints", 1)
        )
        # Trainings of earlier versions name SpeechBrain's own classes.
        leave_padding_out(model["embedding_model"])
        for name in ("encoder", "embedding_model"):
            # What is frozen is not saved.
            is_trained = any(w.requires_grad for w in model[name].parameters())
            if not is_trained and name not in best.paramfiles:
                continue
            for checkpoint in checkpoints:
                require_file(checkpoint, name)
            load_parameters(
                model[name],
                average_checkpoints(checkpoints, name),
                f"{name} in '{best.path}', by '{hparams_file}',",
            )
        thresholds = [checkpoint.meta.get("threshold") for checkpoint in checkpoints]
        if None in thresholds:
            raise InputError(
                f"'{best.path}' has no threshold of validation trials; give the "
                "output_folder of a training of a speaker model"
            )
        scoring = ModelScoring(
            threshold=statistics.mean(thresholds),
            threshold_from=f"EER of the validation trials of {dataset or 'its corpus'}",
        )
        return cls(**model, scoring=scoring).to(device_of({"device": device}))

    @property
    def threshold(self) -> float | None:
        """Score above which two utterances are of one speaker, or None."""
        return self.scoring.threshold

    @threshold.setter
    def threshold(self, value: float | None) -> None:
        self.scoring.threshold = value

    @property
    def precision(self) -> str:
        """In what embeddings are computed: "fp32", "fp16" or "bf16".

        `choose_precision` says which one is faster. Embeddings are in float32 in any
        case. It counts in the fingerprint.
        """
        return vars(self).get("_precision", "fp32")

    @precision.setter
    def precision(self, value: str) -> None:
        if value not in ("fp32", *HALVES):
            raise InputError(f"precision: '{value}'; give fp32, fp16 or bf16")
        # Without an attribute the fingerprint is that of versions before there was one.
        vars(self).pop("_precision", None)
        if value != "fp32":
            self._precision = value

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> "SpeakerRecognition":
        """Stays in evaluation mode, also as a part of what is trained.

        In training mode batch norm and dropout would make embeddings depend on the
        batch and on chance. What is trained further are `encoder` and
        `embedding_model`, which have their own modes.

        Arguments
        ---------
        mode : bool
            Has no effect.

        Returns
        -------
        SpeakerRecognition
            The model itself.
        """
        del mode
        return super().train(False)

    @torch.no_grad()
    def encode_batch(
        self,
        wavs: torch.Tensor | ArrayLike,
        wav_lens: torch.Tensor | ArrayLike | None = None,
        normalize: bool = False,
    ) -> torch.Tensor:
        """Embeds waveforms.

        Arguments
        ---------
        wavs : torch.Tensor or numpy.ndarray
            Waveforms at `sample_rate`, of shape (batch, time), or one of shape
            (time,); floating-point samples, or integers of 16 or 32 bits.
        wav_lens : torch.Tensor or numpy.ndarray
            Relative lengths, above 0 and up to 1, of shape (batch,).
        normalize : bool
            Whether to subtract the mean of the training embeddings.

        Returns
        -------
        torch.Tensor
            Embeddings, of shape (batch, 1, dim).

        Raises
        ------
        InputError
            If waveforms or lengths are of another shape, type or range, the
            parameters are not in float32, or the mean is not known.
        """
        batch = _as_batch(wavs).to(self.device)
        relative = _as_lengths(wav_lens, len(batch)).to(self.device)
        dtype = next(self.parameters()).dtype
        if dtype != torch.float32:
            raise InputError(
                f"the model's parameters are {dtype}; call float() on it, and compute "
                "in half precision by its precision"
            )
        with computing_in(self.precision, self.device):
            embeddings = self.embedding_model(*self.encoder(batch, relative))
        if self.precision != "fp32":
            embeddings = embeddings.float()
        if not normalize:
            return embeddings
        cohort = self.scoring.cohort
        if cohort is None or not self.scoring.has_cohort:
            raise InputError(
                "normalize: the model has no mean of training embeddings; export it "
                "with --cohort"
            )
        return embeddings - cohort.mean.to(embeddings.device)

    def encode_file(
        self,
        path: str | Path,
        window_length: float | None = None,
        window_overlap: float | None = None,
    ) -> torch.Tensor:
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
            Embedding on the CPU, of shape (dim,).

        Raises
        ------
        InputError
            If the recording is too long to be embedded as a whole, or shorter
            than its header says.
        """
        windows = Windows.of_settings(window_length, window_overlap)
        item = {"wav": str(path), "duration": require_header(path).duration}
        total, n_samples = torch.zeros((), dtype=torch.float64), 0
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
    def fingerprint(self) -> str:
        """Hash of all that embeddings depend on, as of `model_fingerprint`.

        Computed anew each time, as parameters and attributes can change.
        """
        return model_fingerprint(self)

    @property
    def has_layer_weights(self) -> bool:
        """Whether the embedding model attends to layers."""
        return attends_to_layers(self.embedding_model)

    @torch.no_grad()
    def layer_weights(self, wav: torch.Tensor | ArrayLike) -> torch.Tensor:
        """Layer weights of an utterance, where `has_layer_weights`.

        Arguments
        ---------
        wav : torch.Tensor or numpy.ndarray
            Waveform, of shape (time,).

        Returns
        -------
        torch.Tensor
            Layer weights on the CPU, of shape (head, frame, layer).
        """
        features, _ = self.encoder(_as_batch(wav).to(self.device))
        _, weights = self.embedding_model(features, return_weights=True)
        return weights[0].cpu()

    def embed_files(
        self,
        paths: Iterable[str | Path],
        window_length: float | None = None,
        window_overlap: float | None = None,
    ) -> torch.Tensor:
        """Embeds audio files, one after the other.

        Arguments
        ---------
        paths : list of str
            Audio files.
        window_length : float
            See `encode_file`.
        window_overlap : float
            See `encode_file`.

        Returns
        -------
        torch.Tensor
            Embeddings on the CPU, of shape (n_file, dim).

        Raises
        ------
        InputError
            If there are none, or as of `encode_file`.
        """
        paths = list(paths)
        if not paths:
            raise InputError("there are no files to embed")
        return torch.stack(
            [self.encode_file(path, window_length, window_overlap) for path in paths]
        )

    def load_audio(
        self, path: str | Path, savedir: str | Path | None = None
    ) -> torch.Tensor:
        """Reads an audio file as the model wants it.

        Arguments
        ---------
        path : str or Path
            Audio file of any sample rate and number of channels. With savedir
            also a URL, or a file on the Hugging Face hub.
        savedir : str or Path
            Folder for the download.

        Returns
        -------
        torch.Tensor
            Waveform, of shape (time,).
        """
        if savedir is not None:
            source, name = split_path(str(path))
            path = fetch(name, source=source, savedir=savedir)
        return read_crop(path, self.sample_rate)

    def verify_batch(
        self,
        wavs1: torch.Tensor | ArrayLike,
        wavs2: torch.Tensor | ArrayLike,
        wav1_lens: torch.Tensor | ArrayLike | None = None,
        wav2_lens: torch.Tensor | ArrayLike | None = None,
        threshold: float | None = None,
    ) -> Verification:
        """Scores pairs of waveforms.

        Arguments
        ---------
        wavs1 : torch.Tensor or numpy.ndarray
            See `encode_batch`.
        wavs2 : torch.Tensor or numpy.ndarray
            Waveforms to compare them with, as many.
        wav1_lens : torch.Tensor or numpy.ndarray
            Relative lengths, of shape (batch,).
        wav2_lens : torch.Tensor or numpy.ndarray
            Relative lengths, of shape (batch,).
        threshold : float
            Threshold in place of the model's own.

        Returns
        -------
        Verification
            The pair of scores and decisions, each of shape (batch, 1).
        """
        first, second = _as_batch(wavs1), _as_batch(wavs2)
        result = self.scoring.compare(
            self.encode_batch(first, wav1_lens)[:, 0],
            self.encode_batch(second, wav2_lens)[:, 0],
            self._seconds(first, wav1_lens),
            self._seconds(second, wav2_lens),
            threshold,
        )
        ratios = result.log_likelihood_ratio
        return Verification(
            result.score.unsqueeze(1),
            result.decision.unsqueeze(1),
            None if ratios is None else ratios.unsqueeze(1),
        )

    def _seconds(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | ArrayLike | None
    ) -> list[float]:
        """Duration of each waveform."""
        whole = wavs.shape[1] / self.sample_rate
        return (_as_lengths(wav_lens, len(wavs)).cpu() * whole).tolist()

    def verify_files(
        self,
        path_x: str | Path,
        path_y: str | Path,
        threshold: float | None = None,
        window_length: float | None = None,
        window_overlap: float | None = None,
        savedir: str | Path | None = None,
    ) -> Verification:
        """Scores two audio files.

        Arguments
        ---------
        path_x : str or Path
            First audio file.
        path_y : str or Path
            Second audio file.
        threshold : float
            Threshold in place of the model's own.
        window_length : float
            See `encode_file`.
        window_overlap : float
            See `encode_file`.
        savedir : str or Path
            See `load_audio`.

        Returns
        -------
        Verification
            The pair of score and decision, each of shape (1,).
        """
        if savedir is not None:
            result = self.verify_batch(
                self.load_audio(path_x, savedir),
                self.load_audio(path_y, savedir),
                threshold=threshold,
            )
            ratio = result.log_likelihood_ratio
            return Verification(
                result.score[0], result.decision[0], None if ratio is None else ratio[0]
            )
        paths = [path_x, path_y]
        embeddings = self.embed_files(paths, window_length, window_overlap)
        seconds = [require_header(path).duration for path in paths]
        return self.scoring.compare(
            embeddings[:1], embeddings[1:], seconds[:1], seconds[1:], threshold
        )

    def enrol(
        self,
        name: str,
        files: str | Path | Iterable[str | Path],
        window_length: float | None = None,
        window_overlap: float | None = None,
    ) -> torch.Tensor:
        """Keeps a speaker for `identify`; a name that is known is replaced.

        Arguments
        ---------
        name : str
            Name of the speaker.
        files : str or list of str
            Recordings of the speaker, whose embeddings are averaged at unit
            length.
        window_length : float
            See `encode_file`.
        window_overlap : float
            See `encode_file`.

        Returns
        -------
        torch.Tensor
            Embeddings of the recordings, of shape (n_file, dim).
        """
        files = [files] if isinstance(files, (str, Path)) else list(files)
        embeddings = self.embed_files(files, window_length, window_overlap)
        seconds = [require_header(path).duration for path in files]
        self.enrolled[name] = (embeddings, seconds)
        return embeddings

    def identify(
        self,
        file: str | Path,
        top: int = 5,
        threshold: float | None = None,
        window_length: float | None = None,
        window_overlap: float | None = None,
    ) -> list[Candidate]:
        """Compares a recording with all enrolled speakers.

        Arguments
        ---------
        file : str or Path
            Audio file.
        top : int
            Largest number of candidates.
        threshold : float
            Threshold in place of the model's own.
        window_length : float
            See `encode_file`.
        window_overlap : float
            See `encode_file`.

        Returns
        -------
        list of Candidate
            The highest score first. A speaker that is not enrolled gets candidates
            too; their `decision` says that it is none of them.

        Raises
        ------
        InputError
            If nobody is enrolled.
        """
        if not self.enrolled:
            raise InputError("nobody is enrolled; call enrol(name, files) first")
        embedding = self.encode_file(file, window_length, window_overlap)
        duration = require_header(file).duration
        return rank_speakers(
            self.scoring, embedding, duration, self.enrolled, threshold
        )[:top]

    @torch.no_grad()
    def classify_batch(
        self,
        wavs: torch.Tensor | ArrayLike,
        wav_lens: torch.Tensor | ArrayLike | None = None,
    ) -> Classification:
        """Which of the training speakers waveforms are of.

        Arguments
        ---------
        wavs : torch.Tensor or numpy.ndarray
            See `encode_batch`.
        wav_lens : torch.Tensor or numpy.ndarray
            Relative lengths, of shape (batch,).

        Returns
        -------
        out_prob : torch.Tensor
            Scores of the speakers, of shape (batch, n_speaker).
        score : torch.Tensor
            The highest of each, of shape (batch,).
        index : torch.Tensor
            Its speaker, of shape (batch,).
        text_lab : list of str
            Names of these speakers.

        Raises
        ------
        InputError
            If the model was exported without its classifier.
        """
        classifier, label_encoder = self._classification
        if classifier is None or label_encoder is None:
            raise InputError("the model has no classifier of training speakers")
        embeddings = self.encode_batch(wavs, wav_lens)
        outputs = classifier.to(self.device).eval()(embeddings).squeeze(1)
        score, index = outputs.max(dim=-1)
        return outputs, score, index, label_encoder.decode_torch(index)

    def classify_file(
        self, path: str | Path, savedir: str | Path | None = None
    ) -> Classification:
        """Which of the training speakers a recording is of.

        Arguments
        ---------
        path : str or Path
            See `load_audio`.
        savedir : str or Path
            See `load_audio`.

        Returns
        -------
        tuple
            See `classify_batch`.
        """
        return self.classify_batch(self.load_audio(path, savedir))

    def forward(
        self,
        wavs: torch.Tensor | ArrayLike,
        wav_lens: torch.Tensor | ArrayLike | None = None,
    ) -> Classification:
        """Classifies waveforms, as `classify_batch`."""
        return self.classify_batch(wavs, wav_lens)


def _as_batch(wavs: torch.Tensor | ArrayLike) -> torch.Tensor:
    """Waveforms as float32 between -1 and 1, of shape (batch, time)."""
    try:
        batch = torch.as_tensor(wavs)
    except (TypeError, ValueError):
        raise InputError(
            "waveforms are no array of numbers; give a tensor or NumPy array, those of "
            "different lengths padded, with wav_lens "
            "(speechbrain.utils.data_utils.batch_pad_right does so)"
        ) from None
    if batch.dtype in (torch.int16, torch.int32):
        batch = batch.double() / 2 ** (torch.iinfo(batch.dtype).bits - 1)
    elif not batch.is_floating_point():
        raise InputError(
            f"waveforms are of {batch.dtype}; give floating-point samples, int16 or "
            "int32"
        )
    if batch.dim() == 1:
        batch = batch.unsqueeze(0)
    if batch.dim() != 2:
        raise InputError(
            f"waveforms are of shape {tuple(batch.shape)}; give (batch, time) or "
            "(time,)"
        )
    if not batch.numel():
        raise InputError(f"waveforms of shape {tuple(batch.shape)} have no samples")
    if batch.shape[0] > batch.shape[1]:
        raise InputError(
            f"waveforms of shape {tuple(batch.shape)} are more than each has samples; "
            "give (batch, time), and of several channels their mean"
        )
    return batch.float()


def _as_lengths(wav_lens: torch.Tensor | ArrayLike | None, n_wavs: int) -> torch.Tensor:
    """Relative lengths as float32, of shape (batch,)."""
    if wav_lens is None:
        return torch.ones(n_wavs)
    lengths = torch.as_tensor(wav_lens, dtype=torch.float32)
    if lengths.shape != (n_wavs,):
        raise InputError(
            f"wav_lens are of shape {tuple(lengths.shape)}; give one for each of "
            f"{n_wavs} waveforms"
        )
    if not bool(((lengths > 0) & (lengths <= 1)).all()):
        raise InputError(
            "wav_lens are above 0 and up to 1, relative to the longest waveform; "
            f"these are from {lengths.min():g} to {lengths.max():g}"
        )
    return lengths

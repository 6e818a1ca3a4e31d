"""The Brain that pre-trains an SSL encoder by masked prediction."""

import copy
import csv
import functools
import shutil
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import if_main_process
from torch.utils.data import RandomSampler
from tqdm import tqdm

from speechbrain_ext.lobes.encoders.small_wavlm import save_encoder
from speechbrain_ext.lobes.encoders.ssl_encoder import normalize_waveform
from speechbrain_ext.plots.training import plot_losses
from speechbrain_ext.training.brains import StepBrain, forget_steps
from speechbrain_ext.utils.cache_keys import (
    file_key,
    make_once,
    stable_hash,
    stale_parts,
)
from speechbrain_ext.utils.distributed import (
    rank_and_processes,
    union_of_processes,
    without_wrapper,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fingerprints import model_fingerprint

HISTORY_FIELDS = (
    "step", "train_loss", "valid_prediction", "valid_contrast",
    "valid_masked_accuracy",
)  # fmt: skip


class PretrainingBrain(StepBrain):
    """Trains an encoder to predict the units of masked, disturbed speech.

    The units are those of the clean crops; noise, rooms and other speakers
    come on top, for each crop of a pair on its own (WavLM, arXiv 2110.13900).

    Needs in `modules`: model, a `MaskedPrediction`. Needs in `hparams`, beside
    what `StepBrain` needs: wav_augment, utterance_mixing, contrast_weight,
    history, a CSV file for the losses.

    Arguments
    ---------
    units : KMeansUnits
        What to predict; fitted.
    *args
        Handed on to `speechbrain.Brain`.
    **kwargs
        Handed on to `speechbrain.Brain`.
    """

    def __init__(self, *args, units, **kwargs):
        super().__init__(*args, **kwargs)
        self.units = units.to(self.device).eval()

    def compute_forward(self, batch, stage):
        """From pairs of crops to losses.

        Arguments
        ---------
        batch : PaddedBatch
            Batch with first and second.
        stage : Stage
            Stage.TRAIN or Stage.VALID.

        Returns
        -------
        dict
            Losses, as `MaskedPrediction` gives them.
        """
        batch = batch.to(self.device, non_blocking=True)
        crops = [batch.first.data, batch.second.data]
        units = self.units(torch.cat(crops))
        if stage == sb.Stage.TRAIN:
            lengths = torch.ones(len(crops[0]), device=self.device)
            crops = [self.hparams.wav_augment(c, lengths)[0] for c in crops]
            crops = [self.hparams.utterance_mixing(crop) for crop in crops]
        wavs = torch.cat(crops)
        valid = torch.ones_like(wavs, dtype=torch.bool)
        model = self.modules.model
        if stage != sb.Stage.TRAIN:
            # A wrapped one exchanges its buffers at each batch, of which the
            # processes have different numbers.
            model = without_wrapper(model)
        return model(normalize_waveform(wavs, valid), units)

    def compute_objectives(self, predictions, batch, stage):
        """Weighs the losses.

        Arguments
        ---------
        predictions : dict
            What `compute_forward` returned.
        batch : PaddedBatch
            The batch.
        stage : Stage
            Stage.TRAIN or Stage.VALID.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        loss = (
            predictions["prediction"]
            + self.hparams.contrast_weight * predictions["contrast"]
        )
        if stage != sb.Stage.TRAIN:
            self.valid_losses[self.validation_batch()] = {
                name: float(value)
                for name, value in {**predictions, "loss": loss}.items()
            }
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Forgets the losses of the last validation."""
        if stage == sb.Stage.VALID:
            self.valid_losses = {}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs the losses of all processes' batches and saves a checkpoint."""
        if stage == sb.Stage.TRAIN:
            self.train_loss = stage_loss
            return
        _, batches = zip(*sorted(union_of_processes(self.valid_losses).items()))
        means = {
            f"valid_{name}": sum(losses[name] for losses in batches) / len(batches)
            for name in batches[0]
        }
        loss = means.pop("valid_loss")
        self._write_history(
            {"step": self.optimizer_step, "train_loss": self.train_loss, **means}
        )
        self.end_validation(
            {"loss": loss, **means},
            f"prediction {means['valid_prediction']:.3f} "
            f"({100 * means['valid_masked_accuracy']:.1f} % of the masked "
            f"frames), contrast {means['valid_contrast']:.3f}",
            {"loss": loss},
            min_key="loss",
        )

    def _write_history(self, row):
        if not if_main_process():
            return
        path = Path(self.hparams.history)
        forget_steps(path, row["step"])
        is_new = not path.is_file()
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, HISTORY_FIELDS)
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def validation_loader(dataset, batch_size, num_workers=0):
    """Whole batches of the validation, under torchrun those of this process.

    The loss of a batch depends on what is in it, so that the processes take the
    batches of one process in turn.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Data set that `crop_pair_dataset` made.
    batch_size : int
        Pairs of crops in a batch.
    num_workers : int
        Processes that read audio.

    Returns
    -------
    SaveableDataLoader
        The loader.

    Raises
    ------
    InputError
        If there are fewer utterances than a batch has.
    """
    n_batches = len(dataset) // batch_size
    if n_batches == 0:
        raise InputError(
            f"batch_size: {batch_size}, but there are {len(dataset)} utterances to "
            "validate on; give a smaller one, or more valid_speakers"
        )
    rank, n_processes = rank_and_processes()
    batches = [
        range(number * batch_size, (number + 1) * batch_size)
        for number in range(rank, n_batches, n_processes)
    ]
    return make_dataloader(dataset, batch_sampler=batches, num_workers=num_workers)


def fit_units(
    units,
    path,
    dataset,
    n_utterances,
    loading,
    crop_duration,
    change_voice=None,
    is_training=False,
):
    """Clusters targets, unless they are there and were made from the same.

    They depend on what the units are of and how many, on the utterances (ids,
    durations and sizes, so that a copy of the corpus elsewhere counts as the
    same), on how many are drawn and on how they are cropped.

    Arguments
    ---------
    units : KMeansUnits
        Units to fit.
    path : str or Path
        Where to save the clusters.
    dataset : DynamicItemDataset
        Data set that `crop_pair_dataset` made.
    n_utterances : int
        How many to cluster, drawn at random.
    loading : dict
        Arguments of the loader.
    crop_duration : float
        Duration of the crops of the dataset, in seconds.
    change_voice : torch.nn.Module
        Change of the voice of the dataset.
    is_training : bool
        Whether a training that has learned the units goes on.

    Raises
    ------
    InputError
        If the units of a training that goes on are of something else.
    """
    n_utterances = min(n_utterances, len(dataset))
    utterances = {
        name: [item["duration"], file_key(item["wav"])["size"]]
        for name, item in dataset.data.items()
    }
    key = {
        "features": model_fingerprint(units.features),
        "n_units": units.n_units,
        "seed": units.seed,
        "utterances": stable_hash(utterances),
        "n_utterances": n_utterances,
        "crop_duration": crop_duration,
        "change_voice": (
            None if change_voice is None else model_fingerprint(change_voice)
        ),
    }
    stale = stale_parts(path, key)
    if stale and is_training:
        raise InputError(
            f"the training in '{Path(path).parent}' learns units of other "
            f"{', '.join(stale)}; give another output_folder"
        )
    fit = functools.partial(_fit_units, units, path, dataset, n_utterances, loading)
    make_once(path, key, fit)


def _fit_units(units, path, dataset, n_utterances, loading):
    sampler = RandomSampler(
        dataset,
        num_samples=n_utterances,
        generator=torch.Generator().manual_seed(units.seed),
    )
    loader = make_dataloader(dataset, sampler=sampler, **loading)
    n_batches = -(-n_utterances // loading["batch_size"])
    units.fit(
        batch.first.data
        for batch in tqdm(loader, total=n_batches, desc="Clustering frames")
    )
    units.save(path)


def export_encoder(encoder, output_folder):
    """Saves the encoder for `ssl_hub`, in float16, and plots its losses.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        The pre-trained encoder.
    output_folder : str or Path
        Output folder of the training; gets encoder and losses.png, losses.pdf.
    """
    output_folder = Path(output_folder)
    folder = output_folder / "encoder"
    if folder.is_dir():
        shutil.rmtree(folder)
    save_encoder(copy.deepcopy(encoder).half(), folder)
    with open(output_folder / "losses.csv", encoding="utf-8") as file:
        plot_losses(list(csv.DictReader(file)), output_folder / "losses")

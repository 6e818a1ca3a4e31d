"""Trainings of a few steps, in the process, whose every draw counts."""

import functools

import numpy as np
import soundfile
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import AddNoise, AddReverb, DropChunk
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger
from torch import nn

from speechbrain_ext.augment.rooms import write_rooms_table
from speechbrain_ext.augment.span_drop import SpanDrop
from speechbrain_ext.augment.utterance_mixing import UtteranceMixing
from speechbrain_ext.augment.vocal_tract import VocalTractPerturb
from speechbrain_ext.dataio.datasets import (
    crop_pair_dataset,
    embedding_loader,
    speaker_classes,
    training_dataset,
)
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.lobes.encoders.small_wavlm import small_wavlm
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.lobes.models.masked_prediction import MaskedPrediction
from speechbrain_ext.lobes.units import KMeansUnits, MFCCFeatures
from speechbrain_ext.training.brains import SpeakerBrain
from speechbrain_ext.training.distillation import (
    DistillationBrain,
    DistillationHeads,
    DistillationLoss,
    TargetEmbeddings,
    distillation_dataset,
)
from speechbrain_ext.training.pretraining import PretrainingBrain
from speechbrain_ext.utils.checkpoints import AtomicCheckpointer, TrainingClock


class TwoLayers(nn.Module):
    """Filter banks as if they were the two layers of an encoder."""

    def __init__(self):
        super().__init__()
        self.fbank = NormalizedFbank(n_mels=8)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, wavs, lengths):
        features, lengths = self.fbank(wavs, lengths)
        features = features.reshape(1, *features.shape[-3:]) * self.scale
        return features.repeat(2, 1, 1, 1), lengths


class Embedding(nn.Module):
    """With what keeps a state or draws: batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 6)
        )

    def forward(self, features, lengths):
        return self.layers(features.mean(2).mean(0)).unsqueeze(1)


def utterances_of(corpus):
    return {
        f"{path.parent.name}/{path.name}": {
            "wav": str(path),
            "speaker": path.parent.name,
            "duration": soundfile.info(path).duration,
        }
        for path in sorted(corpus.rglob("*.wav"))
    }


def augmentations(folder):
    """Recordings that SpeechBrain reads in turn, noise that is drawn."""
    rng = np.random.default_rng(0)
    paths = [folder / f"recording{i}.wav" for i in range(5)]
    for path in paths:
        decay = np.exp(-np.arange(1600) / 200)
        soundfile.write(path, decay * rng.standard_normal(1600) / 5, 16000)
    table = folder / "recordings.csv"
    write_rooms_table(table, [(path, 0.1) for path in paths])
    return Augmenter(
        parallel_augment=False,
        concat_original=False,
        min_augmentations=1,
        max_augmentations=3,
        shuffle_augmentations=True,
        augment_prob=0.8,
        augmentations=[
            AddReverb(str(table)),
            AddNoise(str(table), snr_low=5, snr_high=20, pad_noise=True),
            DropChunk(drop_length_low=100, drop_length_high=400),
        ],
    )


def schedule(n_steps):
    return functools.partial(
        torch.optim.lr_scheduler.OneCycleLR,
        max_lr=0.01,
        total_steps=n_steps,
        pct_start=0.3,
    )


def settings(folder, n_steps, per_epoch, modules):
    """What the YAML of every training says, and its checkpointer."""
    folder.mkdir(exist_ok=True)
    counter, clock = EpochCounter(-(-n_steps // per_epoch)), TrainingClock()
    tensorboard = type("Silent", (), {"log_stats": lambda self, **stats: None})
    hparams = {
        "seed": 1986,
        "number_of_steps": n_steps,
        "steps_per_epoch": per_epoch,
        "validate_after": 0,
        "epoch_counter": counter,
        "clock": clock,
        "lr_scheduler": schedule(n_steps),
        "train_logger": FileTrainLogger(str(folder / "train_log.txt")),
        "tensorboard_logger": tensorboard(),
        "keep_checkpoints": 1,
        "wav_augment": augmentations(folder),
    }
    checkpointer = AtomicCheckpointer(
        folder / "save", {**modules, "counter": counter, "clock": clock}
    )
    return hparams, checkpointer


def run_options(accumulation, device="cpu"):
    return {
        "device": device,
        "noprogressbar": True,
        "ckpt_interval_minutes": 0,
        "ckpt_interval_steps": 2,
        "grad_accumulation_factor": accumulation,
    }


def speaker_training(
    corpus, folder, n_steps=7, per_epoch=4, batch_size=4, accumulation=1,
    distil=False, num_workers=0, utterances=None, device="cpu",
):  # fmt: skip
    """A Brain and what its `fit` takes."""
    torch.manual_seed(0)
    utterances = utterances or utterances_of(corpus)
    speeds = [100] if distil else [90, 100, 110]
    speakers = speaker_classes(utterances, speeds)
    labels = sb.dataio.encoder.CategoricalEncoder()
    labels.update_from_iterable(speakers)
    labels.expect_len(len(speakers))
    modules = {"encoder": TwoLayers(), "embedding_model": Embedding()}
    if distil:
        store = EmbeddingStore(
            list(utterances), torch.randn(len(utterances), 5),
            ["s"] * len(utterances), [1.0] * len(utterances), "f00",
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        store.save(folder / "utterance.safetensors")
        targets = TargetEmbeddings(folder, ["utterance"])
        modules["classifier"] = DistillationHeads(
            6, len(speakers), targets.sizes, separate_heads=True
        )
        cost = DistillationLoss(mse_weight=0.1)
        brain_class, own = DistillationBrain, {"target_embeddings": targets}
        dataset = distillation_dataset(utterances, labels, 16000, 0.5, speeds, targets)
    else:
        modules["classifier"] = Classifier(6, out_neurons=len(speakers))
        cost = LogSoftmaxWrapper(AdditiveAngularMargin(0.2, 30))
        brain_class, own = SpeakerBrain, {}
        dataset = training_dataset(utterances, labels, 16000, 0.5, speeds)
    hparams, checkpointer = settings(folder, n_steps, per_epoch, modules)
    names = list(utterances)[:6]
    brain = brain_class(
        modules=modules,
        opt_class=torch.optim.Adam,
        hparams={
            **hparams,
            **own,
            "compute_cost": cost,
            "encoder_lr_scheduler": schedule(n_steps),
            "encoder_frozen_steps": 1,
            "layer_lr_decay": 1.0,
            "margin_schedule": None,
            "classifier_weight_decay": None,
            "fea_augment": SpanDrop(utterance_prob=0.5),
            "augment": True,
        },
        run_opts=run_options(accumulation, device),
        checkpointer=checkpointer,
        valid_trials=Trials([1, 0, 0], names[:3], [names[1], *names[4:]]),
    )
    valid = embedding_loader({n: utterances[n] for n in names}, 16000, 10)
    loading = {"batch_size": batch_size, "num_workers": num_workers}
    return brain, (dataset, valid, loading)


def pretraining(corpus, folder, n_steps=3, per_epoch=2, accumulation=1, device="cpu"):
    """Like `speaker_training`, of masked prediction."""
    torch.manual_seed(0)
    utterances = utterances_of(corpus)
    model = MaskedPrediction(
        small_wavlm(n_layers=2, channels=32, n_bands=8), n_units=3,
        contrast_layer=1,
    )  # fmt: skip
    units = KMeansUnits(MFCCFeatures(receptive_field=760), n_units=3)
    units.fit([torch.randn(2, 16000)])
    hparams, checkpointer = settings(folder, n_steps, per_epoch, {"model": model})
    brain = PretrainingBrain(
        modules={"model": model},
        opt_class=torch.optim.AdamW,
        hparams={
            **hparams,
            "utterance_mixing": UtteranceMixing(prob=0.5),
            "contrast_weight": 1.0,
            "history": folder / "losses.csv",
        },
        run_opts=run_options(accumulation, device),
        checkpointer=checkpointer,
        units=units,
    )
    dataset, valid = (
        crop_pair_dataset(utterances, 16000, 0.5, voice)
        for voice in (VocalTractPerturb(0.9, 1.1), None)
    )
    loading = {"batch_size": 2, "num_workers": 0}
    return brain, (dataset, make_dataloader(valid, batch_size=20), loading)


def fit(brain, data):
    dataset, valid, loading = data
    brain.fit(brain.hparams.epoch_counter, dataset, valid, train_loader_kwargs=loading)
    return brain


def state_of(brain):
    return {
        f"{name}.{key}": value
        for name, module in brain.modules.items()
        for key, value in module.state_dict().items()
    }


def trained(model):
    """Gives batch norms the statistics of noise, and weights that are not new."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            # Covariances of a mixture and the like are no free numbers.
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.train()
        for _ in range(3):
            model(torch.randn(4, 16000))
    return model.eval()

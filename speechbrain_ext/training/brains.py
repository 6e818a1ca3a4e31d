"""The Brains: steps and schedules, and the training of embedding models."""

import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_broadcast
from speechbrain.utils.epoch_loop import EpochCounterWithStopper
from speechbrain.utils.logger import get_logger

from speechbrain_ext.analysis.layer_attention import layer_usage
from speechbrain_ext.inference.verification import (
    summary,
    verification_metrics,
)
from speechbrain_ext.nnet.batch_norm import synchronise_on_cpus
from speechbrain_ext.nnet.pooling import attends_to_layers
from speechbrain_ext.processing.scoring import cosine_scores
from speechbrain_ext.utils.checkpoints import other_architecture
from speechbrain_ext.utils.distributed import in_all_processes, without_wrapper
from speechbrain_ext.utils.errors import InputError

logger = get_logger(__name__)


class StepBrain(sb.Brain):
    """A Brain whose schedules count optimiser steps.

    The learning rates move after each step, a loss that is not finite stops
    the training with the last checkpoint in place, and each validation ends
    with a log line, an estimate of the time left and a checkpoint.

    Needs in `hparams`: lr_scheduler, train_logger, tensorboard_logger, clock,
    keep_checkpoints, number_of_steps.
    """

    def trained_parameters(self):
        """Parameters and schedule of each optimizer.

        Returns
        -------
        dict
            For each name, groups of parameters, as torch.optim takes them,
            and a function from optimizer to schedule. The learning rate of a
            group is the schedule's times its lr_scale, if it has one.
        """
        return {
            "optimizer": (
                [{"params": self.modules.parameters()}],
                self.hparams.lr_scheduler,
            )
        }

    def init_optimizers(self):
        """Sets up optimizers and schedules of what is trained."""
        self.optimizers_dict = {}
        self.schedulers = {}
        for name, (given, lr_scheduler) in self.trained_parameters().items():
            groups = [
                {**group, "params": [p for p in group["params"] if p.requires_grad]}
                for group in given
            ]
            groups = [group for group in groups if group["params"]]
            if not groups:
                continue
            optimizer = self.opt_class(groups)
            try:
                scheduler = lr_scheduler(optimizer)
            except ZeroDivisionError:
                raise InputError(
                    f"number_of_steps: {self.hparams.number_of_steps} leaves the "
                    "one-cycle schedule a warm-up of exactly one step, which "
                    "PyTorch cannot; take some steps more, or another warmup"
                ) from None
            for group in optimizer.param_groups:
                for key in ("lr", "initial_lr", "max_lr", "min_lr"):
                    if key in group:
                        group[key] *= group.get("lr_scale", 1.0)
            self.optimizers_dict[name] = optimizer
            self.schedulers[name] = scheduler
            if self.checkpointer is not None:
                self.checkpointer.add_recoverable(name, optimizer)
                self.checkpointer.add_recoverable(f"{name}_lr", scheduler)

    def _wrap_distributed(self):
        """As SpeechBrain's, which needs GPUs for its synchronised batch norm."""
        if not self.distributed_launch or self.device_type != "cpu":
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if any(p.requires_grad for p in module.parameters()):
                self.modules[name] = torch.nn.parallel.DistributedDataParallel(
                    synchronise_on_cpus(module),
                    find_unused_parameters=self.find_unused_parameters,
                )

    def on_fit_start(self):
        """Sets up the optimizers and resumes from the latest checkpoint."""
        try:
            super().on_fit_start()
        except RuntimeError as error:
            if "state_dict" not in str(error):
                raise
            first_line = str(error).strip().split("\n")[0]
            raise other_architecture(
                self.checkpointer.checkpoints_dir, first_line
            ) from None
        for scheduler in self.schedulers.values():
            planned = getattr(scheduler, "total_steps", None)
            if planned not in (None, self.hparams.number_of_steps):
                raise InputError(
                    f"number_of_steps: {self.hparams.number_of_steps}, but the "
                    f"checkpoint in '{self.checkpointer.checkpoints_dir}' is of "
                    f"a one-cycle schedule of {planned} steps, which cannot be "
                    "changed on the way; give another output_folder"
                )
        if self.optimizer_step:
            logger.info(f"Resumed after {self.optimizer_step} optimiser steps.")

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Moves the learning rates after each optimiser step."""
        if should_step:
            for scheduler in self.schedulers.values():
                scheduler.step()

    def check_loss_isfinite(self, loss):
        """Stops all processes at the first loss that is NaN or infinite.

        Arguments
        ---------
        loss : torch.Tensor
            The loss.

        Raises
        ------
        InputError
            If the loss is not finite. Checkpoints are left as they are.
        """
        if not in_all_processes(torch.isfinite(loss)):
            raise InputError(
                f"the loss is {loss.item()} after {self.optimizer_step} "
                "optimiser steps; training stops and the last checkpoint in "
                f"'{self.checkpointer.checkpoints_dir}' is kept. Try a lower "
                "lr, or precision fp32 or bf16 for fp16"
            )

    def end_validation(self, valid_stats, summary, meta, min_key):
        """Logs a validation and saves a checkpoint.

        Arguments
        ---------
        valid_stats : dict
            For the log.
        summary : str
            For people.
        meta : dict
            For the checkpoint.
        min_key : str
            Of meta; the checkpoints with the lowest values are kept.
        """
        seconds = self.hparams.clock.seconds()
        rate = self.optimizer_step / seconds
        remaining = (self.hparams.number_of_steps - self.optimizer_step) / rate
        stats = {
            "stats_meta": {
                "step": self.optimizer_step,
                "lr": self.schedulers["optimizer"].get_last_lr()[0],
                "minutes": seconds / 60,
            },
            "train_stats": {"loss": self.train_loss},
            "valid_stats": valid_stats,
        }
        self.hparams.train_logger.log_stats(**stats)
        self.hparams.tensorboard_logger.log_stats(**stats)
        logger.info(
            f"Step {self.optimizer_step} of {self.hparams.number_of_steps}, "
            f"about {remaining / 60:.0f} min left. Validation: {summary}"
        )
        self.checkpointer.save_and_keep_only(
            meta={**meta, "step": self.optimizer_step},
            min_keys=[min_key],
            num_to_keep=self.hparams.keep_checkpoints,
        )


class SpeakerBrain(StepBrain):
    """Trains an embedding model with a speaker classifier.

    Validation is verification: the EER of the validation trials chooses the
    checkpoint, and its threshold goes into the checkpoint for EER*.

    Needs in `modules`: encoder, embedding_model, classifier. Needs in
    `hparams`, beside what `StepBrain` needs: compute_cost,
    encoder_lr_scheduler, encoder_frozen_steps, layer_lr_decay,
    margin_schedule and span_drop (or None), augment and, where that is True,
    wav_augment.

    Arguments
    ---------
    valid_trials : Trials
        Validation trials, whose utterances the `valid_set` of `fit` gives.
    *args
        As of `speechbrain.Brain`.
    **kwargs
        As of `speechbrain.Brain`.
    """

    def __init__(self, *args, valid_trials, **kwargs):
        super().__init__(*args, **kwargs)
        self.valid_trials = valid_trials

    def compute_forward(self, batch, stage):
        """From waveforms to cosines with the speakers, or to embeddings.

        Arguments
        ---------
        batch : PaddedBatch
            With sig, and in training spk_id_encoded.
        stage : Stage
            Stage.TRAIN or Stage.VALID.

        Returns
        -------
        torch.Tensor
            In training cosines, of shape (batch, 1, speaker); else
            embeddings, of shape (batch, 1, dim).
        """
        batch = batch.to(self.device)
        wavs, lengths = batch.sig
        training = stage == sb.Stage.TRAIN
        if training and self.hparams.augment:
            wavs, lengths = self.hparams.wav_augment(wavs, lengths)
        trains_encoder = training and (
            self.optimizer_step >= self.hparams.encoder_frozen_steps
        )
        with torch.set_grad_enabled(trains_encoder):
            features, lengths = self.modules.encoder(wavs, lengths)
        if training and self.hparams.span_drop:
            features, lengths = self.hparams.span_drop(features, lengths)
        model = self.modules.embedding_model
        if training:
            return self.modules.classifier(model(features, lengths))
        if self.layer_weights is None and attends_to_layers(model):
            embeddings, weights = model(features, lengths, return_weights=True)
            # The first batch has the longest utterances, and they come first.
            self.layer_weights = weights[0].float().cpu()
            return embeddings
        return model(features, lengths)

    def compute_objectives(self, predictions, batch, stage):
        """The classification loss; in validation, keeps the embeddings.

        Arguments
        ---------
        predictions : torch.Tensor
            Of `compute_forward`.
        batch : PaddedBatch
            The batch.
        stage : Stage
            Stage.TRAIN or Stage.VALID.

        Returns
        -------
        torch.Tensor
            The loss; zero in validation, whose speakers are unknown.
        """
        if stage != sb.Stage.TRAIN:
            for name, embedding in zip(batch.id, predictions.squeeze(1)):
                self.valid_embeddings[name] = embedding.float().cpu()
            return torch.zeros(())
        speakers, _ = batch.spk_id_encoded
        if self.hparams.augment:
            speakers = self.hparams.wav_augment.replicate_labels(speakers)
        return self.hparams.compute_cost(predictions, speakers)

    def trained_parameters(self):
        """One optimizer for the encoder, if it is trained, one for the rest."""
        encoder = self.modules["encoder"]
        of_encoder = set(encoder.parameters())
        rest = [p for p in self.modules.parameters() if p not in of_encoder]
        return {
            "optimizer": ([{"params": rest}], self.hparams.lr_scheduler),
            "encoder_optimizer": (
                layer_groups(encoder, self.hparams.layer_lr_decay),
                self.hparams.encoder_lr_scheduler,
            ),
        }

    def on_fit_batch_start(self, batch, should_step):
        """Sets the margin of the step."""
        if self.hparams.margin_schedule:
            margin = self.hparams.margin_schedule(self.optimizer_step)
            self.hparams.compute_cost.margin = margin

    def on_stage_start(self, stage, epoch=None):
        """Forgets the last validation."""
        if stage == sb.Stage.VALID:
            self.valid_embeddings = {}
            self.layer_weights = None

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Scores the validation trials, logs and saves a checkpoint."""
        if stage == sb.Stage.TRAIN:
            self.train_loss = stage_loss
            return
        if self.layer_weights is not None:
            layer_usage([self.layer_weights])  # warns if it has collapsed
        scores = cosine_scores(self.valid_embeddings, self.valid_trials)
        metrics = verification_metrics(self.valid_trials, scores)
        if isinstance(self.hparams.epoch_counter, EpochCounterWithStopper):
            # One decision: scores of two GPUs may differ in the last digit.
            self.hparams.epoch_counter.update_metric(ddp_broadcast(metrics["EER"]))
        self.end_validation(
            {"EER": metrics["EER"], "minDCF": metrics["minDCF_0.01"]},
            summary(metrics),
            {"EER": metrics["EER"], "threshold": metrics["EER_threshold"]},
            min_key="EER",
        )


def layer_groups(encoder, decay):
    """Groups of an encoder's parameters whose rate falls from layer to layer.

    Arguments
    ---------
    encoder : torch.nn.Module
        With `transformer_layers`, from the lowest to the highest, unless
        decay is 1.
    decay : float
        The rate of a layer is that of the next one times decay; what is below
        the layers counts as one more layer.

    Returns
    -------
    list of dict
        Groups with params and lr_scale, from the lowest to the highest.

    Raises
    ------
    InputError
        If decay is not 1 and the encoder has no such layers.

    Example
    -------
    >>> from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
    >>> from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
    >>> folder = save_small_wavlm(getfixture("tmpdir") / "wavlm", n_layers=2)
    >>> groups = layer_groups(SSLEncoder(folder, freeze=False), decay=0.9)
    >>> [round(group["lr_scale"], 2) for group in groups]
    [0.81, 0.9, 1.0]
    """
    encoder = without_wrapper(encoder)
    layers = getattr(encoder, "transformer_layers", ())
    if decay != 1 and not layers:
        raise InputError(
            f"layer_lr_decay: {decay}, but {type(encoder).__name__} has no "
            "transformer layers whose rates could fall; leave it at 1"
        )
    in_layers = [list(layer.parameters()) for layer in layers]
    of_layers = {p for parameters in in_layers for p in parameters}
    below = [p for p in encoder.parameters() if p not in of_layers]
    groups = [below, *in_layers]
    return [
        {"params": parameters, "lr_scale": decay ** (len(groups) - 1 - height)}
        for height, parameters in enumerate(groups)
    ]

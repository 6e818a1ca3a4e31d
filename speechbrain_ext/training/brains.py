"""The Brains: steps and schedules, and the training of embedding models."""

import re
import shlex
import sys
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import (
    ddp_all_reduce,
    ddp_broadcast,
    if_main_process,
    is_distributed_initialized,
)
from speechbrain.utils.epoch_loop import EpochCounterWithStopper
from speechbrain.utils.logger import get_logger

from speechbrain_ext.analysis.layer_attention import layer_usage
from speechbrain_ext.augment.recordings import draw_anew
from speechbrain_ext.dataio.datasets import StepSampler
from speechbrain_ext.inference.verification import (
    summary,
    verification_metrics,
)
from speechbrain_ext.nnet.batch_norm import synchronise_on_cpus
from speechbrain_ext.nnet.pooling import attends_to_layers
from speechbrain_ext.processing.scoring import cosine_scores
from speechbrain_ext.utils.checkpoints import other_architecture
from speechbrain_ext.utils.distributed import (
    device_of,
    in_all_processes,
    rank_and_processes,
    union_of_processes,
    without_wrapper,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path
from speechbrain_ext.utils.precision import choose_precision
from speechbrain_ext.utils.randomness import seed_generators
from speechbrain_ext.utils.signals import (
    Stopped,
    outlive_first_signal,
    stop_request,
)

logger = get_logger(__name__)


class StepBrain(sb.Brain):
    """A Brain whose schedules count optimiser steps.

    The learning rates move after each step, a loss that is not finite stops
    the training with the last checkpoint in place, and each validation ends
    with a log line, an estimate of the time left and a checkpoint.

    All that a batch draws depends on the seed, the step and the process
    alone. A training that was killed and resumed ends with the parameters of
    an uninterrupted one, bit for bit on a processor. SIGTERM and SIGINT save a
    checkpoint after the step and end the program with 143 and 130.

    Needs in `hparams`: seed, lr_scheduler, train_logger, tensorboard_logger,
    clock, epoch_counter, keep_checkpoints, number_of_steps, steps_per_epoch,
    validate_after, and wav_augment where there is one. Where it has precision or
    eval_precision, these may be "auto".
    """

    _lost_loss = None  # a loss of this step that is not finite

    def __init__(
        self,
        modules=None,
        opt_class=None,
        hparams=None,
        run_opts=None,
        checkpointer=None,
    ):
        device = device_of(run_opts)
        chosen = {
            key: choose_precision(hparams[key], device, key)
            for key in ("precision", "eval_precision")
            if key in (hparams or {})
        }
        super().__init__(
            modules, opt_class, {**(hparams or {}), **chosen}, run_opts, checkpointer
        )

    def make_dataloader(
        self, dataset, stage, ckpt_prefix="dataloader-", **loader_kwargs
    ):
        """As in SpeechBrain; the training's batches are of a `StepSampler`.

        Arguments
        ---------
        dataset : DynamicItemDataset
            Data set; in training a `DrawnDataset`.
        stage : Stage
            Stage.TRAIN or Stage.VALID.
        ckpt_prefix : str
            Prefix of SpeechBrain's loaders; a `StepSampler` has nothing to save.
        **loader_kwargs
            Options of the loader, in training with batch_size.

        Returns
        -------
        SaveableDataLoader
            The loader.
        """
        if stage != sb.Stage.TRAIN:
            return super().make_dataloader(dataset, stage, ckpt_prefix, **loader_kwargs)
        rank, n_processes = rank_and_processes()
        self.train_sampler = StepSampler(
            len(dataset),
            self.hparams.number_of_steps,
            self.hparams.steps_per_epoch,
            loader_kwargs.pop("batch_size"),
            self.grad_accumulation_factor,
            self.hparams.seed,
            rank,
            n_processes,
            dataset.shard_sizes,
        )
        own = {
            # A GPU takes a pinned batch while it computes.
            "pin_memory": torch.device(self.device).type == "cuda",
            # Readers know a large corpus already when an epoch begins.
            "persistent_workers": loader_kwargs.get("num_workers", 0) > 0,
        }
        return make_dataloader(
            dataset,
            batch_sampler=self.train_sampler,
            worker_init_fn=outlive_first_signal,
            **{**own, **loader_kwargs},
        )

    def fit(self, *args, **kwargs):
        """As in SpeechBrain; a signal ends it after a step, with a checkpoint.

        Arguments
        ---------
        *args
            Handed on to `speechbrain.Brain.fit`.
        **kwargs
            Handed on to `speechbrain.Brain.fit`.

        Raises
        ------
        SystemExit
            If a signal asks for it, with 143 after SIGTERM and 130 after SIGINT.
        """
        # What was done before, such as encoding a corpus, is no training.
        self.hparams.clock.start()
        try:
            with stop_request() as self._stop_request:
                super().fit(*args, **kwargs)
        except Stopped as stopped:
            if if_main_process():
                print(
                    f"{stopped} after {self.optimizer_step} of "
                    f"{self.hparams.number_of_steps} steps, which are saved in "
                    f"'{self.checkpointer.checkpoints_dir}'. To go on: "
                    f"{shlex.join(['python', *sys.argv])}",
                    file=sys.stderr,
                )
            raise SystemExit(stopped.exit_code) from None

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
        self._rates = {}
        for name, (given, lr_scheduler) in self.trained_parameters().items():
            groups = [
                {**group, "params": [p for p in group["params"] if p.requires_grad]}
                for group in given
            ]
            if self.remove_vector_weight_decay:
                groups = [
                    part for group in groups for part in vectors_without_decay(group)
                ]
            groups = [group for group in groups if group["params"]]
            if not groups:
                continue
            optimizer = self.opt_class(groups)
            if len(groups) > 1:
                # SpeechBrain clips the gradients of the first group alone.
                optimizer.register_step_pre_hook(self._clip_all_groups)
            scheduler = start_schedule(
                lr_scheduler, optimizer, self.hparams.number_of_steps
            )
            for group in optimizer.param_groups:
                for key in ("lr", "initial_lr", "max_lr", "min_lr"):
                    if key in group:
                        group[key] *= group.get("lr_scale", 1.0)
            self.optimizers_dict[name] = optimizer
            self._rates[name] = _rates(optimizer)
            self.schedulers[name] = scheduler
            if self.checkpointer is not None:
                self.checkpointer.add_recoverable(name, optimizer)
                self.checkpointer.add_recoverable(f"{name}_lr", scheduler)

    def _clip_all_groups(self, optimizer, args, kwargs):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)

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
        except (RuntimeError, ValueError) as error:
            # Of modules, of optimizers, of files that are not there
            if not re.search("state.dict|load path", str(error)):
                raise
            first_line = str(error).strip().split("\n")[0]
            raise other_architecture(
                self.checkpointer.checkpoints_dir, " ".join(first_line.split())
            ) from None
        for name, optimizer in self.optimizers_dict.items():
            if _rates(optimizer) != self._rates[name]:
                raise InputError(
                    f"{name}: {self._rates[name]}, but the checkpoint in "
                    f"'{self.checkpointer.checkpoints_dir}' goes on with its own "
                    f"rates, {_rates(optimizer)}; give these, or another "
                    "output_folder"
                )
        self._resume_epoch()
        if self.optimizer_step:
            logger.info(f"Resumed after {self.optimizer_step} optimiser steps.")

    def _resume_epoch(self):
        """Finds epoch and batch of the step of the checkpoint.

        Batch size, accumulation and steps of an epoch may have changed.
        """
        counter = self.hparams.epoch_counter
        n_steps = self.hparams.number_of_steps
        per_epoch = self.hparams.steps_per_epoch
        check_epochs(counter, n_steps, per_epoch)
        done = self.optimizer_step
        if self.step:
            # In an epoch, or after its last step and before its validation
            counter.current = max(0, done - 1) // per_epoch
            in_epoch = done - counter.current * per_epoch
            self.step = in_epoch * self.grad_accumulation_factor
        elif done < n_steps:
            counter.current = done // per_epoch
        self.train_sampler.resume(done)

    def fit_batch(self, batch):
        """As in SpeechBrain; what the batch draws depends on its number.

        Arguments
        ---------
        batch : PaddedBatch
            The batch.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        part = self.step % self.grad_accumulation_factor
        rank, _ = rank_and_processes()
        self._seed_batch(sb.Stage.TRAIN, rank, self.optimizer_step, part)
        return super().fit_batch(batch)

    def evaluate_batch(self, batch, stage):
        """As in SpeechBrain; each validation draws the same.

        Arguments
        ---------
        batch : PaddedBatch
            The batch.
        stage : Stage
            Stage.VALID.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        self._seed_batch(stage, 0, self.validation_batch())
        return super().evaluate_batch(batch, stage)

    def validation_batch(self):
        """Number of a batch of a validation that the processes share in turn.

        Returns
        -------
        int
            From 1, as one process alone would count.
        """
        rank, n_processes = rank_and_processes()
        return (self.step - 1) * n_processes + rank + 1

    def _seed_batch(self, stage, *number):
        seed_generators(self.hparams.seed, stage.name, *number)
        draw_anew(getattr(self.hparams, "wav_augment", None))

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        # Checkpoints do not have the gradients of a part of a step.
        if self.step % self.grad_accumulation_factor:
            return False
        return bool(self._stop_signal()) or super()._should_save_intra_epoch_ckpt(
            last_ckpt_time, steps_since_ckpt
        )

    def _save_intra_epoch_ckpt(self):
        super()._save_intra_epoch_ckpt()
        self._stop_if_asked()

    def _stop_if_asked(self):
        """Ends the training after a checkpoint, if a signal asked for it."""
        signum = self._stop_signal()
        if signum:
            raise Stopped(signum)

    def _stop_signal(self):
        """The signal that asked any of the processes to stop, or 0."""
        signum = torch.tensor(self._stop_request.signum, device=self.device)
        if is_distributed_initialized():
            ddp_all_reduce(signum, torch.distributed.ReduceOp.MAX)
        return int(signum)

    def _fit_valid(self, valid_set, epoch, enable):
        last = self.optimizer_step >= self.hparams.number_of_steps
        if self.optimizer_step > self.hparams.validate_after or last:
            super()._fit_valid(valid_set, epoch, enable)
        else:
            # A training that resumes from it goes on with the next epoch.
            self._save_intra_epoch_ckpt()

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Moves the learning rates after each optimiser step."""
        if should_step:
            for scheduler in self.schedulers.values():
                scheduler.step()

    def check_loss_isfinite(self, loss):
        """Stops all processes at the first step with a loss that is NaN or infinite.

        Where gradients are accumulated the processes exchange it once a step.

        Arguments
        ---------
        loss : torch.Tensor
            The loss.

        Raises
        ------
        InputError
            If the loss is not finite. Checkpoints are left as they are.
        """
        if not torch.isfinite(loss):
            self._lost_loss = loss.item()
        if self.step % self.grad_accumulation_factor:
            return
        lost, self._lost_loss = self._lost_loss, None
        if not in_all_processes(lost is None):
            raise InputError(
                f"the loss is {loss.item() if lost is None else lost} after "
                f"{self.optimizer_step} optimiser steps; training stops and the last "
                f"checkpoint in '{self.checkpointer.checkpoints_dir}' is kept. Try a "
                "lower lr, or precision fp32 or bf16 for fp16"
            )

    def end_validation(self, valid_stats, summary, meta, min_key):
        """Logs a validation and saves a checkpoint.

        Arguments
        ---------
        valid_stats : dict
            Statistics for the log.
        summary : str
            Summary for people to read.
        meta : dict
            What the checkpoint says of itself.
        min_key : str
            Key of meta; the checkpoints with its lowest values are kept.
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
        if if_main_process():
            forget_steps(self.hparams.train_logger.save_file, self.optimizer_step)
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
        self._stop_if_asked()


def start_schedule(lr_scheduler, optimizer, n_steps):
    """Makes the schedule of an optimizer.

    Arguments
    ---------
    lr_scheduler : callable
        From an optimizer to its schedule.
    optimizer : torch.optim.Optimizer
        The optimizer.
    n_steps : int
        Optimiser steps of the training, for the message.

    Returns
    -------
    torch.optim.lr_scheduler.LRScheduler
        The schedule.

    Raises
    ------
    InputError
        If a phase of it would have no steps.

    Example
    -------
    >>> import functools
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> one_cycle = functools.partial(
    ...     torch.optim.lr_scheduler.OneCycleLR, max_lr=1, total_steps=10, pct_start=0.1
    ... )
    >>> start_schedule(one_cycle, optimizer, 10)
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: number_of_steps: 10 leaves a phase ...
    """
    try:
        return lr_scheduler(optimizer)
    except ZeroDivisionError:
        schedule = getattr(lr_scheduler, "func", lr_scheduler).__name__
        raise InputError(
            f"number_of_steps: {n_steps} leaves a phase of {schedule} no "
            "steps to rise or fall in, which PyTorch cannot; take more steps, "
            "or another warmup"
        ) from None


def check_epochs(epoch_counter, n_steps, steps_per_epoch):
    """Refuses epochs that end before the steps do.

    Arguments
    ---------
    epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
        Counter of the epochs.
    n_steps : int
        Optimiser steps of the training.
    steps_per_epoch : int
        Optimiser steps of an epoch.

    Raises
    ------
    InputError
        If there are too few epochs.

    Example
    -------
    >>> from speechbrain.utils.epoch_loop import EpochCounter
    >>> check_epochs(EpochCounter(2), 7, 3)
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: number_of_steps: 7 are more than the 2 ...
    """
    if epoch_counter.limit * steps_per_epoch < n_steps:
        raise InputError(
            f"number_of_steps: {n_steps} are more than the {epoch_counter.limit} "
            f"epochs of epoch_counter have at steps_per_epoch: {steps_per_epoch}"
        )


def _rates(optimizer):
    """What a checkpoint has of an optimizer and its schedule beside their state."""
    names = ("initial_lr", "max_lr", "min_lr", "weight_decay")
    return [
        {name: group[name] for name in names if name in group}
        for group in optimizer.param_groups
    ]


def vectors_without_decay(group):
    """Splits parameters by whether their weights decay, as SpeechBrain does.

    Arguments
    ---------
    group : dict
        A group as torch.optim takes it.

    Returns
    -------
    list of dict
        The group of matrices and the like, and one of vectors, such as biases and
        norms, without decay.

    Example
    -------
    >>> group = {"params": list(torch.nn.Linear(3, 2).parameters()), "lr": 0.1}
    >>> matrices, vectors = vectors_without_decay(group)
    >>> matrices["params"][0].shape, vectors["weight_decay"]
    (torch.Size([2, 3]), 0.0)
    """
    vectors = [p for p in group["params"] if p.dim() == 1]
    others = [p for p in group["params"] if p.dim() != 1]
    return [
        {**group, "params": others},
        {**group, "params": vectors, "weight_decay": 0.0},
    ]


def forget_steps(path, first):
    """Drops the lines that a killed run has logged after its last checkpoint.

    Arguments
    ---------
    path : str or Path
        A text file whose lines begin with a step, as `step: 5,` or `5,`; it
        need not be there.
    first : int
        Lines of this step and of later ones go, and unfinished lines.

    Example
    -------
    >>> log = getfixture("tmpdir") / "train_log.txt"
    >>> _ = log.write_text("step: 5, loss: 2\\nstep: 10, loss: 1\\n", "utf-8")
    >>> forget_steps(log, 10)
    >>> log.read_text("utf-8")
    'step: 5, loss: 2\\n'
    """
    if not Path(path).is_file():
        return
    with open(path, newline="", encoding="utf-8") as file:
        lines = file.readlines()
    steps = [re.match(r"(?:step: )?(\d+),", line) for line in lines]
    kept = [
        line
        for line, step in zip(lines, steps)
        if line.endswith("\n") and (step is None or int(step[1]) < first)
    ]
    if kept != lines:
        with atomic_path(path) as partial:
            with open(partial, "w", newline="", encoding="utf-8") as file:
                file.writelines(kept)


class SpeakerBrain(StepBrain):
    """Trains an embedding model with a speaker classifier.

    Validation is verification: the EER of the validation trials chooses the
    checkpoint, and its threshold goes into the checkpoint for EER*.

    Needs in `modules`: encoder, embedding_model, classifier. Needs in
    `hparams`, beside what `StepBrain` needs: compute_cost,
    encoder_lr_scheduler, encoder_frozen_steps, layer_lr_decay,
    classifier_weight_decay, margin_schedule and fea_augment (or None), augment
    and, where that is True, wav_augment.

    Arguments
    ---------
    valid_trials : Trials
        Validation trials, whose utterances the `valid_set` of `fit` gives, in
        each of several processes all of them or its own share.
    *args
        Handed on to `speechbrain.Brain`.
    **kwargs
        Handed on to `speechbrain.Brain`.
    """

    def __init__(self, *args, valid_trials, **kwargs):
        super().__init__(*args, **kwargs)
        self.valid_trials = valid_trials

    def compute_forward(self, batch, stage):
        """From waveforms to cosines with the speakers, or to embeddings.

        Arguments
        ---------
        batch : PaddedBatch
            Batch with sig, and in training spk_id_encoded.
        stage : Stage
            Stage.TRAIN or Stage.VALID.

        Returns
        -------
        torch.Tensor
            In training cosines, of shape (batch, 1, speaker); else
            embeddings, of shape (batch, 1, dim).
        """
        batch = batch.to(self.device, non_blocking=True)
        wavs, lengths = batch.sig
        training = stage == sb.Stage.TRAIN
        if training and self.hparams.augment:
            wavs, lengths = self.hparams.wav_augment(wavs, lengths)
        trains_encoder = training and (
            self.optimizer_step >= self.hparams.encoder_frozen_steps
        )
        encoder, model = self.modules.encoder, self.modules.embedding_model
        if not training:
            # Wrapped ones exchange their buffers at each batch, of which the
            # processes have different numbers.
            encoder, model = without_wrapper(encoder), without_wrapper(model)
        with torch.set_grad_enabled(trains_encoder):
            features, lengths = encoder(wavs, lengths)
        if training and self.hparams.fea_augment:
            features, lengths = self.hparams.fea_augment(features, lengths)
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
            What `compute_forward` returned.
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
        groups = [{"params": rest}]
        if self.hparams.classifier_weight_decay is not None:
            of_classifier = set(self.modules["classifier"].parameters())
            groups = [
                {"params": [p for p in rest if p not in of_classifier]},
                {
                    "params": list(self.modules["classifier"].parameters()),
                    "weight_decay": self.hparams.classifier_weight_decay,
                },
            ]
        return {
            "optimizer": (groups, self.hparams.lr_scheduler),
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
        embeddings = union_of_processes(self.valid_embeddings)
        scores = cosine_scores(embeddings, self.valid_trials)
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
        decay is 1 or it is frozen, as `freeze` says.
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
        If decay is not 1 and the encoder is to be trained and has no such layers.

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
    if decay != 1 and not layers and not getattr(encoder, "freeze", False):
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

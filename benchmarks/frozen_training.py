"""Times whole training steps behind a frozen encoder, and how busy the device is.

    python benchmarks/frozen_training.py --device cuda --batch_size 128

Crops of 3 s are read by worker processes from files, encoded by WavLM with random
weights, and L-TDNN is trained by Adam. Ours is the recipes' `SpeakerBrain` with its own
loader, in bfloat16 where that pays; the rival is a plain float32 loop over
transformers' encoder and the layers one after the other, which reads its batch first.
A device is busy for the time of its kernels; a processor for its own time. The parts
are those of ours: what it waits for its batches, the encoder, classifier and loss
(forward and backward, timed alone), and the rest, back end and optimiser.
"""

import functools
import tempfile

import speechbrain as sb
import torch
from data_loading import crops_of
from extraction import find_utterances
from measure import (
    PartClock,
    alternate,
    measure_floors,
    now,
    peak_bytes,
    ratio,
    read_options,
    report,
)
from rivals import PlainBackEnd, PlainEncoder, build_back_end, build_encoder
from speechbrain.utils.epoch_loop import EpochCounter
from torch.profiler import ProfilerActivity, profile

from speechbrain_ext.nnet.losses import InterTopKAAM, SubCenterClassifier
from speechbrain_ext.training.brains import SpeakerBrain
from speechbrain_ext.utils.precision import computing_in

EMBEDDING_DIM, N_SPEAKERS, LEARNING_RATE = 192, 1211, 1e-4
EPOCHS = 1000  # more than are run


class PlainTraining:
    """A number of steps of a plain loop in float32."""

    def __init__(self, encoder, modules, dataset, options):
        self.options = options
        self.encoder = encoder.to(options.device)
        self.modules = modules.to(options.device).train()
        self.optimizer = torch.optim.Adam(self.modules.parameters(), lr=LEARNING_RATE)
        n_items = options.steps * options.batch_size
        self.loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=options.batch_size,
            sampler=[(i % len(dataset), i) for i in range(n_items)],
        )

    def __call__(self):
        back_end, classifier, loss = self.modules
        for batch in self.loader:
            wavs = batch["sig"].to(self.options.device)
            speakers = batch["spk_id_encoded"].to(self.options.device)
            with torch.no_grad():
                states = self.encoder(wavs)
            value = loss(classifier(back_end(states)), speakers)
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()
            self.optimizer.step()


class RecipeTraining:
    """A number of steps as the recipes train."""

    def __init__(self, encoder, modules, dataset, options):
        self.options = options
        back_end, classifier, loss = modules
        constant = functools.partial(
            torch.optim.lr_scheduler.ConstantLR, factor=1.0, total_iters=0
        )
        self.brain = SpeakerBrain(
            {"encoder": encoder, "embedding_model": back_end, "classifier": classifier},
            functools.partial(torch.optim.Adam, lr=LEARNING_RATE),
            {
                "seed": 1986,
                "number_of_steps": EPOCHS * options.steps,
                "steps_per_epoch": options.steps,
                "epoch_counter": EpochCounter(EPOCHS),
                "precision": "auto",
                "lr_scheduler": constant,
                "encoder_lr_scheduler": constant,
                "encoder_frozen_steps": 0,
                "layer_lr_decay": 1.0,
                "classifier_weight_decay": None,
                "margin_schedule": None,
                "augment": False,
                "fea_augment": None,
                "compute_cost": loss,
            },
            {"device": options.device},
            valid_trials=None,
        )
        self.loader = self.brain.make_dataloader(
            dataset,
            sb.Stage.TRAIN,
            batch_size=options.batch_size,
            num_workers=options.workers,
        )
        self.brain.on_fit_start()
        self.brain.modules.train()
        self.epoch = 0
        self.waited = 0.0

    def __call__(self):
        self.epoch += 1
        self.brain.train_sampler.set_epoch(self.epoch)
        self.waited, start = 0.0, now(self.options.device)
        for batch in self.loader:
            self.waited += now(self.options.device) - start
            self.brain.step += 1
            self.brain.fit_batch(batch)
            start = now(self.options.device)


def busy_share(training, device, seconds):
    """Share of the wall clock in which the device computes."""
    if not device.startswith("cuda"):
        times = alternate({"steps": training}, 1)["steps"]
        return times.cpu[0] / times.wall[0] / torch.get_num_threads()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        training()
        torch.cuda.synchronize()
    kernels = sum(event.self_device_time_total for event in profiler.key_averages())
    return kernels / 1e6 / seconds


def measure_parts(training, precision, options):
    """The rows of the parts of a step."""
    device, n_steps = options.device, options.steps
    clock = PartClock(training.brain.modules.encoder, device)
    whole = alternate({"steps": training}, 1, device)["steps"].seconds(device)
    classifier = training.brain.modules.classifier
    embeddings = torch.randn(options.batch_size, 1, EMBEDDING_DIM, device=device)
    speakers = torch.arange(options.batch_size, device=device) % N_SPEAKERS
    embeddings.requires_grad_()

    def loss():
        with computing_in(precision, device):
            cosines = classifier(embeddings)
            value = training.brain.hparams.compute_cost(cosines, speakers.unsqueeze(1))
        value.backward()

    of_loss = n_steps * alternate({"loss": loss}, 5, device)["loss"].seconds(device)
    parts = {
        "its reading": training.waited,
        "its encoder": clock.seconds,
        "its classifier and loss": of_loss,
        "its back end and optimiser": whole - training.waited - clock.seconds - of_loss,
    }
    return [
        {"job": name, "seconds a step": part / n_steps, "of_whole": part / whole}
        for name, part in parts.items()
    ]


def main():
    """Measures and reports."""
    options = read_options(
        __doc__,
        repeats=3,
        batch_size=8,
        steps=4,
        workers=2,
        size="base",
        device="cpu",
        folder="",
        n_utterances=200,
    )
    device = options.device
    if options.tiny:
        options.size, options.batch_size, options.steps = "tiny", 2, 2
        options.n_utterances, options.workers = 4, 0
    floors = measure_floors(device, tiny=options.tiny)
    encoder = build_encoder(options.size)
    with tempfile.TemporaryDirectory() as scratch:
        dataset = crops_of(
            find_utterances(options.folder, options.n_utterances, scratch)
        )

        def modules(wrap=lambda back_end: back_end):
            back_end = build_back_end("L-TDNN", encoder, options.tiny)
            classifier = SubCenterClassifier(EMBEDDING_DIM, N_SPEAKERS)
            return torch.nn.ModuleList([wrap(back_end), classifier, InterTopKAAM()])

        jobs = {
            "plain float32 loop": PlainTraining(
                PlainEncoder(encoder), modules(PlainBackEnd), dataset, options
            ),
            "here": RecipeTraining(encoder, modules(), dataset, options),
        }
        precision = {
            "plain float32 loop": "fp32",
            "here": jobs["here"].brain.precision,
        }
        times = alternate(jobs, options.repeats, device)
        rows = [
            {
                "job": name,
                "seconds a step": times[name].seconds(device) / options.steps,
                "ratio": ratio(times["plain float32 loop"], times[name], device),
                "of_time_busy": busy_share(job, device, times[name].seconds(device)),
                "peak_bytes": peak_bytes(job, device),
                "precision": precision[name],
            }
            for name, job in jobs.items()
        ]
        rows += measure_parts(jobs["here"], precision["here"], options)
    report("frozen_training", rows, options, floors, device,
           encoder=options.size, batch=f"{options.batch_size} x 3 s",
           steps=options.steps, workers=options.workers)  # fmt: skip


if __name__ == "__main__":
    main()

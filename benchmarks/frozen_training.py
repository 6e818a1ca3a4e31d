"""Times whole training steps behind a frozen encoder, and how busy the device is.

    python benchmarks/frozen_training.py --device cuda --batch_size 128

Crops of 3 s are read by worker processes from files, encoded by WavLM with random
weights, and L-TDNN is trained by Adam. Ours encodes and trains in bfloat16 where that
pays and reads the next batches meanwhile; the rival is a plain float32 loop over
transformers' encoder and the layers one after the other, which reads its batch first.
A device is busy for the time of its kernels; a processor for its own time.
"""

import functools
import tempfile

import torch
from data_loading import crops_of
from extraction import find_utterances
from measure import alternate, measure_floors, peak_bytes, ratio, read_options, report
from rivals import PlainBackEnd, PlainEncoder, build_back_end, build_encoder
from torch.profiler import ProfilerActivity, profile

from speechbrain_ext.nnet.losses import SubCenterAAM
from speechbrain_ext.utils.precision import choose_precision


class Training:
    """A number of training steps."""

    def __init__(self, encoder, back_end, dataset, options, is_ours):
        self.device = options.device
        self.encoder = encoder.to(self.device)
        n_speakers = len({item["speaker"] for item in dataset.data.values()})
        loss = SubCenterAAM(192, n_speakers)
        self.model = torch.nn.ModuleList([back_end, loss]).to(self.device).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.n_steps = options.steps
        n_items = options.steps * options.batch_size
        on_gpu = self.device.startswith("cuda")
        precision = choose_precision("auto", self.device) if is_ours else "fp32"
        self.bf16 = precision == "bf16"
        self.loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=options.batch_size,
            sampler=[(i % len(dataset), i) for i in range(n_items)],
            num_workers=options.workers if is_ours else 0,
            persistent_workers=bool(is_ours and options.workers),
            pin_memory=on_gpu and is_ours,
        )

    def __call__(self):
        back_end, loss = self.model
        for batch in self.loader:
            wavs = batch["sig"].to(self.device, non_blocking=True)
            speakers = batch["spk_id_encoded"].to(self.device, non_blocking=True)
            kind = wavs.device.type
            with torch.autocast(kind, torch.bfloat16, enabled=self.bf16):
                with torch.no_grad():
                    states = self.encoder(wavs)
                if isinstance(states, tuple):
                    states, _ = states
                value = loss(back_end(states), speakers)
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()
            self.optimizer.step()


def busy_share(training, seconds):
    """Share of the wall clock in which the device computes."""
    if not training.device.startswith("cuda"):
        times = alternate({"steps": training}, 1)["steps"]
        return times.cpu[0] / times.wall[0] / torch.get_num_threads()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        training()
        torch.cuda.synchronize()
    kernels = sum(event.self_device_time_total for event in profiler.key_averages())
    return kernels / 1e6 / seconds


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
    if options.tiny:
        options.size, options.batch_size, options.steps = "tiny", 2, 2
        options.n_utterances, options.workers = 4, 0
    floors = measure_floors(options.device, tiny=options.tiny)
    encoder = build_encoder(options.size)
    build = functools.partial(build_back_end, "L-TDNN", encoder, options.tiny)
    with tempfile.TemporaryDirectory() as scratch:
        dataset = crops_of(
            find_utterances(options.folder, options.n_utterances, scratch)
        )
        jobs = {
            "plain float32 loop": Training(
                PlainEncoder(encoder), PlainBackEnd(build()), dataset, options, False
            ),
            "here": Training(encoder, build(), dataset, options, True),
        }
        times = alternate(jobs, options.repeats, options.device)
        rows = [
            {
                "job": name,
                "seconds a step": times[name].seconds(options.device) / options.steps,
                "ratio": ratio(
                    times["plain float32 loop"], times[name], options.device
                ),
                "of_time_busy": busy_share(job, times[name].seconds(options.device)),
                "peak_bytes": peak_bytes(job, options.device),
                "precision": "bf16" if job.bf16 else "fp32",
            }
            for name, job in jobs.items()
        ]
    report("frozen_training", rows, options, floors, options.device,
           encoder=options.size, batch=f"{options.batch_size} x 3 s",
           steps=options.steps, workers=options.workers)  # fmt: skip


if __name__ == "__main__":
    main()

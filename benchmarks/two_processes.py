"""Trains L-TDNN in two processes on one device, with synchronised batch norms.

    python benchmarks/two_processes.py --device cuda

Each process has half of a batch, one of them with padding. The gradients must be
those of one process with the whole batch; the times of both are given. The processes
talk by gloo, since NCCL wants a card for each.
"""

import os
import socket
import tempfile
from pathlib import Path

import torch
from measure import alternate, read_options, report
from rivals import build_back_end, build_encoder
from torch.nn.parallel import DistributedDataParallel

from speechbrain_ext.nnet.batch_norm import synchronise_on_cpus

N_PROCESSES, TOLERANCE = 2, 1e-3


def draw(options, encoder):
    """The whole batch: hidden states, lengths and what to project embeddings on."""
    generator = torch.Generator().manual_seed(0)
    n_batch = N_PROCESSES * options.batch_size
    shape = encoder.n_layers, n_batch, 149, encoder.channels
    states = torch.randn(shape, generator=generator)
    lengths = torch.ones(n_batch)
    lengths[0] = 0.6
    return states, lengths, torch.randn(n_batch, 1, 192, generator=generator)


def step_of(model, states, lengths, target, device):
    """A function that runs forward and backward pass."""
    states, lengths, target = (x.to(device) for x in (states, lengths, target))

    def step():
        model.zero_grad(set_to_none=True)
        # A mean over the batch, so that DDP's mean of gradients is that of all.
        (model(states, lengths) * target).mean().backward()

    return step


def build(options, encoder):
    """L-TDNN in training mode, without dropout."""
    model = build_back_end("L-TDNN", encoder, options.tiny).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def run_process(rank, options, port, folder):
    """One of the processes; the first one saves its gradients and its times."""
    torch.set_num_threads(options.threads)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=N_PROCESSES)
    encoder = build_encoder(options.size)
    model = build(options, encoder)
    if options.device == "cpu":
        model = synchronise_on_cpus(model)
    else:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model).to(options.device)
    model = DistributedDataParallel(model)
    states, lengths, target = draw(options, encoder)
    own = slice(rank * options.batch_size, (rank + 1) * options.batch_size)
    step = step_of(model, states[:, own], lengths[own], target[own], options.device)
    times = alternate({"step": step}, options.repeats, options.device)["step"]
    if rank == 0:
        gradients = [p.grad.cpu() for p in model.parameters()]
        torch.save((gradients, times.wall), Path(folder) / "gradients.pt")
    torch.distributed.destroy_process_group()


def main():
    """Measures and reports."""
    options = read_options(__doc__, repeats=3, batch_size=8, size="base", device="cpu")
    if options.tiny:
        options.size, options.batch_size = "tiny", 2
    encoder = build_encoder(options.size)
    model = build(options, encoder).to(options.device)
    step = step_of(model, *draw(options, encoder), options.device)
    alone = alternate({"step": step}, options.repeats, options.device)["step"].wall
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            run_process, (options, port, folder), nprocs=N_PROCESSES
        )
        gradients, together = torch.load(Path(folder) / "gradients.pt")
    expected = [p.grad.cpu() for p in model.parameters()]
    scale = max(g.abs().max() for g in expected)
    error = max((a - b).abs().max() for a, b in zip(gradients, expected)) / scale
    if error > TOLERANCE:
        raise SystemExit(f"gradients differ by {error:.2g} of the greatest")
    rows = [
        {"processes": n, "seconds (wall)": sorted(wall)[len(wall) // 2],
         "greatest relative difference": difference}
        for n, wall, difference in ((1, alone, 0.0), (2, together, error.item()))
    ]  # fmt: skip
    report("two_processes", rows, options, None, options.device,
           encoder=options.size, batch=N_PROCESSES * options.batch_size)  # fmt: skip


if __name__ == "__main__":
    main()

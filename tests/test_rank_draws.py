"""Two processes draw different crops and have equal parameters."""

import socket

import pytest
import torch
from processes import forked, join_two
from trainings import fit, pretraining, speaker_training, state_of


def train(rank, kind, corpus, folder, port):
    """One of two processes: trains, leaves its parameters and its crops."""
    join_two(rank, port)
    training = {"speakers": speaker_training, "pre-training": pretraining}[kind]
    brain, data = training(corpus, folder, n_steps=3, per_epoch=2, accumulation=2)
    brain.distributed_backend = "gloo"
    at_start = {name: value.clone() for name, value in state_of(brain).items()}
    crops, draws = [], []
    forward = brain.compute_forward

    def noted(batch, stage):
        if stage.name == "TRAIN":
            crops.extend(batch.sig.data if kind == "speakers" else batch.first.data)
            with torch.random.fork_rng():
                draws.append(torch.rand(4))
        return forward(batch, stage)

    brain.compute_forward = noted
    fit(brain, data)
    at_end = {
        name.replace(".module.", "."): value for name, value in state_of(brain).items()
    }
    torch.save((at_start, at_end, crops, draws), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["speakers", "pre-training"])
def test_ranks_share_parameters_and_no_draws(kind, corpus, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        forked.Process(target=train, args=(rank, kind, corpus, tmp_path, port))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    (start, end, crops, draws), (start_2, end_2, crops_2, draws_2) = results
    assert all(torch.equal(start[name], start_2[name]) for name in start)
    assert start.keys() == end.keys()
    assert all(torch.equal(end[name], end_2[name]) for name in end)
    assert not all(torch.equal(start[name], end[name]) for name in end)
    # Not a crop is shared, nor are the draws of the batches.
    assert len(crops) == len(crops_2) > 0
    assert not any(torch.equal(a, b) for a in crops for b in crops_2)
    assert not any(torch.equal(a, b) for a in draws for b in draws_2)

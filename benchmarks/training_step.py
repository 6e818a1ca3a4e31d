"""Times a training step of the back ends, and what memory it needs.

    python benchmarks/training_step.py [--batch_size 4]

L-TDNN and LAP + ASTP get the hidden states of crops of 3 s, as from a frozen encoder;
the step is forward, margin loss over 1,211 speakers and backward. The rival has the
same layers called one after the other (`rivals`). Both begin with the same weights,
dropout is off, and their gradients must be the same. A third job recomputes in the
backward pass (`recompute: True`). Shares are of the rate of a matrix product, by the
operations of the step here, and of that of a copy, by the bytes that each job's own
operations read and write. Memory is that of tensors at the peak.
"""

import copy

import torch
from measure import (
    alternate,
    count_bytes,
    count_flop,
    measure_floors,
    peak_tensor_bytes,
    ratio,
    read_options,
    report,
)
from rivals import PlainBackEnd, build_back_end, build_encoder
from torch import nn

from speechbrain_ext.nnet.losses import SubCenterAAM

N_SPEAKERS, SECONDS = 1211, 3
TOLERANCE = 1e-3  # of the greatest gradient


class Step:
    """Forward and backward pass of a back end and the loss."""

    def __init__(self, back_end, loss, hidden_states, speakers, dtype):
        self.modules = nn.ModuleList([back_end, loss]).train()
        for module in self.modules.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.inputs = hidden_states, speakers
        self.dtype = dtype

    def __call__(self):
        back_end, loss = self.modules
        hidden_states, speakers = self.inputs
        self.modules.zero_grad(set_to_none=True)
        kind = hidden_states.device.type
        with torch.autocast(kind, self.dtype, enabled=self.dtype != torch.float32):
            value = loss(back_end(hidden_states), speakers)
        value.backward()

    def gradients(self):
        """All gradients as one vector."""
        return torch.cat([p.grad.flatten() for p in self.modules.parameters()])


def measure_back_end(name, encoder, options, floors, dtype):
    """The rows of one back end."""
    device = options.device
    generator = torch.Generator().manual_seed(1)
    n_frames = encoder.frames_of(SECONDS * encoder.sample_rate)
    shape = encoder.n_layers, options.batch_size, n_frames, encoder.channels
    hidden_states = torch.randn(shape, generator=generator).to(device)
    speakers = torch.randint(N_SPEAKERS, (shape[1], 1), generator=generator).to(device)
    back_end = build_back_end(name, encoder, options.tiny)
    recomputing = copy.deepcopy(back_end)
    for module in recomputing.modules():
        if hasattr(module, "recompute"):
            module.recompute = True
    loss = SubCenterAAM(192, N_SPEAKERS)
    steps = {
        which: Step(
            model.to(device),
            copy.deepcopy(loss).to(device),
            hidden_states,
            speakers,
            dtype,
        )
        for which, model in (
            ("module by module", PlainBackEnd(back_end)),
            ("here", back_end),
            ("here, recomputing", recomputing),
        )
    }
    plain, *others = steps.values()
    for step in steps.values():
        step()
    scale = plain.gradients().abs().max()
    for step in others:
        error = ((plain.gradients() - step.gradients()).abs().max() / scale).item()
        if error > TOLERANCE and dtype == torch.float32:
            raise SystemExit(f"{name}: gradients differ by {error:.2g}")
    times = alternate(steps, options.repeats, device)
    flop = count_flop(others[0])
    moved = {which: count_bytes(step) for which, step in steps.items()}
    peaks = {which: peak_tensor_bytes(step, device) for which, step in steps.items()}
    plain_peak = peaks["module by module"]
    return [
        {
            "back end": name,
            "job": which,
            "seconds": times[which].seconds(device),
            "ratio": ratio(times["module by module"], times[which], device),
            "of_floor": floors.seconds(flop) / times[which].seconds(device),
            "of_copy_rate": floors.seconds(moved_bytes=moved[which])
            / times[which].seconds(device),
            "peak_bytes": peaks[which],
            "of_plain_peak": peaks[which] / plain_peak,
        }
        for which in steps
    ]


def main():
    """Measures and reports."""
    options = read_options(
        __doc__, repeats=3, batch_size=4, size="base", device="cpu", bf16=False
    )
    if options.tiny:
        options.size, options.batch_size = "tiny", 2
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    floors = measure_floors(options.device, dtype, options.tiny)
    encoder = build_encoder(options.size)
    rows = [
        row
        for name in ("L-TDNN", "LAP + ASTP")
        for row in measure_back_end(name, encoder, options, floors, dtype)
    ]
    report(
        "training_step",
        rows,
        options,
        floors,
        options.device,
        encoder=options.size,
        precision="bf16" if options.bf16 else "fp32",
        batch=f"{options.batch_size} x {SECONDS} s",
    )


if __name__ == "__main__":
    main()

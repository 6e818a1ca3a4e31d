"""Times training steps with a frozen encoder and on its stored hidden states.

    python benchmarks/hidden_states.py --data_folder /data/speechocean762/audio

A step reads the crops, encodes them where they are waveforms, and trains the back
end: its forward and backward pass and the optimiser's. The two kinds of step
alternate; medians of the processor time of one thread. Before them each utterance
is encoded once, as a whole, which is timed too. The encoder is the package's small
WavLM, of 7 layers of 192 channels, and the settings are those of
hparams/presets/small.yaml.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from speechbrain import Stage

from speechbrain_ext.config import read_configuration
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.lobes.encoders.stored_states import StoredStates
from speechbrain_ext.training.recipes import start_training
from speechbrain_ext.training.steps import (
    hidden_state_datasets,
    prepare_data,
    speaker_datasets,
    speaker_modules,
    training_speakers,
)

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = ("ltdnn_wavlm.yaml", "superb_xvector.yaml")


def steps(configuration, hparams, paths, modules, dataset):
    """A function that does one step more."""
    brain = hparams["brain_class"](
        modules=modules,
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=configuration.run_opts,
        valid_trials=read_trials(paths["valid_trials"]),
    )
    loader = brain.make_dataloader(
        dataset, Stage.TRAIN, batch_size=hparams["batch_size"], num_workers=0
    )
    brain.on_fit_start()
    brain.modules.train()
    batches = iter(loader)

    def step():
        brain.step += 1
        brain.fit_batch(next(batches))

    return step


def time_system(name, arguments, folder, states_folder):
    """Seconds of a step of either kind, and of the encoding of the corpus."""
    configuration = read_configuration(
        [
            str(ROOT / "hparams" / name),
            f"--preset={ROOT / 'hparams' / 'presets' / 'small.yaml'}",
            "--dataset=folder",
            f"--data_folder={arguments.data_folder}",
            f"--output_folder={folder}",
            f"--hidden_state_cache={states_folder}",
            f"--sentence_len={arguments.sentence_len}",
            "--num_workers=0",
            "--device=cpu",
        ]
    )
    hparams = start_training(configuration)
    paths = prepare_data(hparams)
    speakers = training_speakers(hparams, paths["train"])
    modules = speaker_modules(hparams, speakers)
    waveforms, _ = speaker_datasets(hparams, paths, speakers)
    start = time.process_time()
    stored, _ = hidden_state_datasets(
        hparams, paths, speakers, modules["encoder"], configuration.run_opts
    )
    encoding = time.process_time() - start
    functions = [
        steps(configuration, hparams, paths, modules, waveforms),
        steps(
            configuration,
            hparams,
            paths,
            {**modules, "encoder": StoredStates()},
            stored,
        ),
    ]
    times = [[], []]
    for _ in range(1 + arguments.steps):
        for function, taken in zip(functions, times):
            start = time.process_time()
            function()
            taken.append(time.process_time() - start)
    seconds = sum(
        item["duration"]
        for split in ("train", "valid")
        for item in read_manifest(paths[split]).values()
    )
    # The first one is to warm up.
    return *(statistics.median(taken[1:]) for taken in times), encoding, seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--sentence_len", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        states_folder = Path(folder) / "states"
        for name in SYSTEMS:
            row = time_system(name, arguments, Path(folder) / name, states_folder)
            rows.append((name, *row))
        n_bytes = sum(f.stat().st_size for f in states_folder.rglob("*.safetensors"))
    print("| system | encoder and back end (s a step) | stored (s a step) | ratio |")
    print("|---|---|---|---|")
    for name, encoded, stored, _, _ in rows:
        print(f"| {name} | {encoded:.2f} | {stored:.2f} | {encoded / stored:.1f} |")
    for name, _, _, encoding, seconds in rows:
        print(f"{name}: {seconds:.0f} s of speech encoded in {encoding:.0f} s")
    print(f"{n_bytes / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()

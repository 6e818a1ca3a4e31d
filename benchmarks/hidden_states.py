"""Times training steps with a frozen encoder and on its stored hidden states.

    python benchmarks/hidden_states.py --folder /data/speechocean762 --threads 1

A step reads the crops, encodes them where they are waveforms, and trains the back
end: its forward and backward pass and the optimiser's. Before the steps each
utterance is encoded once, as a whole, which is timed too. The encoder is the
package's small WavLM, of 7 layers of 192 channels, and the settings are those of
hparams/presets/small.yaml. Without a folder it is the demo's corpus.
"""

import tempfile
from pathlib import Path

from measure import alternate, now, ratio, read_options, report
from speechbrain import Stage

from speechbrain_ext.config import HPARAMS, read_configuration
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


def measure_system(name, options, folder, states_folder):
    """The row of a system, and the seconds that were encoded before its steps."""
    corpus = ["--dataset=demo", f"--data_folder={folder.parent / 'demo'}"]
    if options.folder:
        corpus = ["--dataset=folder", f"--data_folder={options.folder}"]
    tiny = []
    if options.tiny:
        tiny = [
            "--batch_size=2", "--valid_speakers=2", "--test_speakers=2",
            "--n_valid_trials=20", "--n_test_trials=20",
        ]  # fmt: skip
    configuration = read_configuration(
        [
            str(HPARAMS / name),
            f"--preset={HPARAMS / 'presets' / 'small.yaml'}",
            f"--output_folder={folder}",
            f"--hidden_state_cache={states_folder}",
            f"--sentence_len={options.sentence_len}",
            "--num_workers=0",
            "--device=cpu",
            *corpus,
            *tiny,
        ]
    )
    hparams = start_training(configuration)
    paths = prepare_data(hparams)
    speakers = training_speakers(hparams, paths["train"])
    modules = speaker_modules(hparams, speakers)
    waveforms, _ = speaker_datasets(hparams, paths, speakers)
    start = now()
    stored, _ = hidden_state_datasets(
        hparams, paths, speakers, modules["encoder"], configuration.run_opts
    )
    encoding = now() - start
    without_encoder = {**modules, "encoder": StoredStates()}
    jobs = {
        "encoded": steps(configuration, hparams, paths, modules, waveforms),
        "stored": steps(configuration, hparams, paths, without_encoder, stored),
    }
    times = alternate(jobs, options.repeats)
    return {
        "system": name,
        "encoder and back end, s a step": times["encoded"].seconds(),
        "stored, s a step": times["stored"].seconds(),
        "ratio": ratio(times["encoded"], times["stored"]),
        "s to encode before": encoding,
    }, sum(
        item["duration"]
        for split in ("train", "valid")
        for item in read_manifest(paths[split]).values()
    )


def main():
    """Measures and reports."""
    options = read_options(__doc__, repeats=10, folder="", sentence_len=3.0)
    if options.tiny:
        options.sentence_len = 1.0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        states_folder = Path(folder) / "states"
        for name in SYSTEMS[: 1 if options.tiny else None]:
            row, seconds = measure_system(
                name, options, Path(folder) / name, states_folder
            )
            rows.append(row)
        n_bytes = sum(f.stat().st_size for f in states_folder.rglob("*.safetensors"))
    report(
        "hidden_states",
        rows,
        options,
        seconds_of_speech=seconds,
        hidden_states_bytes=n_bytes,
    )


if __name__ == "__main__":
    main()

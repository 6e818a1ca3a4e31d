"""Size, speed and error rate of trained models as they would be shipped.

    python recipes/VoxCeleb/deployment_table.py results/xvector_teacher/1986 \\
        results/kd_xvector_fc/1986 --names teacher student \\
        --output_folder results/deployment

For each model, with its SSL encoder where it has one, PyTorch float32, ONNX
float32, float16 and dynamic int8: parameters, multiplications of a second of
speech, megabytes, median latency of an utterance, its processor time, which other
work on the machine lengthens less, and real-time factor on one CPU core with the
front end, the EER of its test trials by cosine, and of its test
utterances' embeddings the lowest cosine to those of PyTorch. Writes
deployment.md, deployment.csv and an exported model for each.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from verify_onnx import FILES, OnnxSpeakerModel

from speechbrain_ext.dataio.manifests import manifest_paths, read_manifest
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.inference.onnx import export_onnx
from speechbrain_ext.inference.sources import add_trust_option, load_model
from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.metrics.detection import EER
from speechbrain_ext.processing.scoring import cosine_scores
from speechbrain_ext.training.recipes import model_names
from speechbrain_ext.utils.errors import add_debug_option, one_line_errors
from speechbrain_ext.utils.tables import write_table


def main():
    """Measures each model in each form."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "trained_models", nargs="+", help="output_folders; the first is the teacher"
    )
    parser.add_argument("--names", nargs="+", help="of the models")
    parser.add_argument("--output_folder", required=True)
    add_trust_option(parser)
    add_debug_option(parser)
    options = parser.parse_args()
    names = model_names(options.names, options.trained_models)
    torch.set_num_threads(1)
    rows, teacher_parameters = [], None
    for name, folder in zip(names, map(Path, options.trained_models)):
        speaker_model = load_model(folder, "cpu", trust_source=options.trust_source)
        parameters = sum(p.numel() for p in speaker_model.parameters())
        teacher_parameters = teacher_parameters or parameters
        n_multiplications = multiplications(speaker_model)
        exported = Path(options.output_folder) / name
        files = export_onnx(speaker_model, exported)
        for form, size, embed in (
            (
                "PyTorch float32",
                4 * parameters,
                lambda wav: speaker_model.encode_batch(wav.unsqueeze(0))[0, 0],
            ),
            *(
                (
                    f"ONNX {kind}",
                    file.stat().st_size,
                    onnx_embedding(OnnxSpeakerModel(exported, file.name)),
                )
                for kind, file in zip(FILES, files)
            ),
        ):
            eer, latency, processor, factor, embeddings = measure(
                speaker_model, folder, embed, f"{name}, {form}"
            )
            if form == "PyTorch float32":
                reference = embeddings
            cosine = min(
                torch.cosine_similarity(embeddings[utterance], expected, dim=0)
                for utterance, expected in reference.items()
            )
            rows.append(
                {
                    "model": name,
                    "form": form,
                    "parameters": parameters,
                    "smaller %": f"{100 * (1 - parameters / teacher_parameters):.0f}",
                    "M multiplications a second": f"{n_multiplications:.1f}",
                    "MB": f"{size / 1e6:.2f}",
                    "latency ms": f"{1000 * latency:.1f}",
                    "processor ms": f"{1000 * processor:.1f}",
                    "real-time factor": f"{factor:.5f}",
                    "EER %": f"{100 * eer:.2f}",
                    "lowest cosine": f"{cosine:.5f}",
                }
            )
            write_table(Path(options.output_folder) / "deployment", rows)
    print((Path(options.output_folder) / "deployment.md").read_text("utf-8"))


def onnx_embedding(model):
    """Makes a function from waveform to embedding of an exported model."""
    return lambda wav: torch.from_numpy(model.embed(wav.numpy()))


def multiplications(speaker_model):
    """Counts the networks' millions of multiplications for a second of speech."""
    wav = torch.rand(1, 10 * speaker_model.sample_rate)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        features, _ = speaker_model.encoder(wav)
        if not isinstance(speaker_model.encoder, Encoder):
            counter.flop_counts.clear()  # filter banks are no network
        speaker_model.embedding_model(features)
    # An addition comes with each multiplication.
    return counter.get_total_flops() / 2 / 10 / 1e6


def measure(speaker_model, folder, embed, description):
    """Measures EER and medians of seconds, processor seconds and real-time factor.

    Gives the embeddings too.
    """
    paths = manifest_paths(folder / "save")
    trials = read_trials(paths["test_trials"])
    utterances = read_manifest(paths["test"])
    embeddings, latencies, processor_times, factors = {}, [], [], []
    for name in tqdm(sorted(trials.utterances()), desc=description):
        wav = speaker_model.load_audio(utterances[name]["wav"])
        start, processor_start = time.perf_counter(), time.process_time()
        embeddings[name] = embed(wav)
        processor_times.append(time.process_time() - processor_start)
        latencies.append(time.perf_counter() - start)
        factors.append(latencies[-1] / (len(wav) / speaker_model.sample_rate))
    scores = cosine_scores(embeddings, trials)
    eer, _ = EER(*trials.split_by_label(scores))
    medians = map(statistics.median, (latencies, processor_times, factors))
    return eer, *medians, embeddings


if __name__ == "__main__":
    with one_line_errors():
        main()

"""speechbrain-ext embed."""

import functools
import json
import os
import tempfile
import time
from pathlib import Path

import click

from speechbrain_ext.cli.models import load
from speechbrain_ext.cli.options import (
    Command,
    as_json,
    model_options,
    note,
    output_file,
    precision_option,
    recording_options,
    show,
)
from speechbrain_ext.cli.recordings import (
    embed_many,
    note_doubts,
    note_without_embedding,
    require_whole,
    standard_input_lines,
)
from speechbrain_ext.utils.errors import InputError

EXAMPLES = """
speechbrain-ext embed ltdnn recordings --output embeddings.safetensors
speechbrain-ext embed user/model 'calls/**/*.wav' --output calls.csv --min_speech 0.5
speechbrain-ext embed ltdnn /data/VoxCeleb2 --engine ray --output embeddings.parquet
find . -name '*.flac' | speechbrain-ext embed ltdnn - --output embeddings.scp
"""


@click.command(cls=Command, examples=EXAMPLES)
@model_options
@click.argument("recordings", nargs=-1, required=True)
@click.option(
    "--output",
    help="File to write: .safetensors, .csv, .scp (with .ark) or .parquet, which is "
    "a folder with --engine ray; - prints CSV.",
)
@recording_options
@precision_option
@click.option(
    "--skip_broken",
    is_flag=True,
    help="Leave out files that cannot be read, with a warning, instead of ending.",
)
@click.option(
    "--num_workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Processes that read audio; with --engine ray, of each worker.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="This machine, or the machines of a Ray cluster; needs speechbrain_ext[ray].",
)
@as_json
def command(
    source, device, revision, trust_source, recordings, output, window_length,
    window_overlap, min_speech, precision, skip_broken, num_workers, engine, as_json,
):  # fmt: skip
    """Embed RECORDINGS: files, folders, patterns, or - for a list on standard input.

    What is in a .safetensors file already is not embedded again, and a run that was
    killed goes on where it was. Without --output, --json prints the embeddings.
    --engine ray embeds on all machines of a Ray cluster (RAY_ADDRESS, the one that
    runs here, or a new one of this machine), a worker on each GPU, into a folder of
    Parquet files, where the same holds.
    """
    from speechbrain_ext.dataio.embedding_files import check_can_write
    from speechbrain_ext.dataio.recordings import find_recordings
    from speechbrain_ext.utils.precision import choose_precision

    if output is None and not as_json:
        raise InputError("give --output, or --json to print the embeddings")
    if output == "-" and as_json:
        raise InputError("--json and --output - both print; leave one out")
    if engine == "ray":
        check_for_ray(output, precision)
    elif output not in (None, "-"):
        check_can_write(output)
    utterances, broken = find_recordings(standard_input_lines(recordings))
    if engine == "local" and output not in (None, "-"):
        check_can_write(output, utterances)
    if not skip_broken or not utterances:
        require_whole(broken)
    for path, reason in broken.items():
        note(f"warning: '{path}': {reason}; left out")
    if Path(source).exists():
        source = os.path.abspath(source)
    options = {"revision": revision, "trust_source": trust_source}
    settings = window_length, window_overlap, min_speech, num_workers
    start = time.monotonic()
    if engine == "ray":
        load_model = functools.partial(load, source, precision=precision, **options)
        left_out, embedded = embed_on_ray(
            load_model, utterances, output, *settings, device
        )
        without = set(left_out)
        durations = [
            item["duration"] for name, item in utterances.items() if name not in without
        ]
    else:
        model = load(source, device, **options)
        model.precision = choose_precision(precision, model.device)
        start = time.monotonic()
        store, left_out, embedded = embed_here(model, utterances, output, *settings)
        durations = store.durations
        if output is None:
            print_embeddings(store)
        if output in (None, "-"):
            return
    taken = time.monotonic() - start
    seconds = sum(durations)
    now = f"{embedded:.0f} s in {taken:.1f} s, {embedded / taken:.0f} s a second"
    show(
        f"{output}: {len(durations)} recordings, {seconds:.0f} s of speech; embedded "
        f"now: {now if embedded else 'none, all were there'}",
        {
            "file": output,
            "recordings": len(durations),
            "left_out": [*broken, *(utterances[name]["wav"] for name in left_out)],
            "seconds": seconds,
            "seconds_embedded_now": embedded,
            "seconds_per_second": embedded / taken if embedded else None,
        },
        as_json,
    )


def check_for_ray(output, precision):
    """Says what --engine ray cannot do.

    Arguments
    ---------
    output : str
        Of the command line.
    precision : str
        Of the command line.

    Raises
    ------
    InputError
        If the output is no folder for Parquet, the precision is not the same on all
        machines, or Ray is not installed.
    """
    from speechbrain_ext.inference.ray_extraction import import_ray

    if output is None or not output.lower().endswith(".parquet"):
        raise InputError(
            "--engine ray writes a folder of Parquet files; give --output with a name "
            "that ends with .parquet"
        )
    if precision == "auto":
        raise InputError(
            "--precision auto may differ between the machines of --engine ray; give "
            "fp32, bf16 or fp16"
        )
    import_ray()


def embed_on_ray(
    load_model, utterances, output, window_length, window_overlap, min_speech,
    num_workers, device,
):  # fmt: skip
    """Embeds by a cluster.

    Arguments
    ---------
    load_model : callable
        As of `extract_on_ray`.
    utterances : dict
        As of `find_recordings`.
    output : str
        Folder to write.
    window_length : float
        As of `extract_on_ray`.
    window_overlap : float
        As of `extract_on_ray`.
    min_speech : float
        As of `extract_on_ray`.
    num_workers : int
        As of `extract_on_ray`.
    device : str
        As of `extract_on_ray`.

    Returns
    -------
    left_out : list of str
        Ids of what was left out.
    seconds : float
        Seconds of speech that were embedded now.

    Raises
    ------
    InputError
        If nothing is left.
    """
    from speechbrain_ext.inference.ray_extraction import extract_on_ray

    doubts, without_embedding, seconds = extract_on_ray(
        load_model, utterances, output, window_length, window_overlap, min_speech,
        num_workers, device,
    )  # fmt: skip
    left_out = note_doubts(utterances, doubts, min_speech)
    left_out += note_without_embedding(utterances, without_embedding)
    if len(left_out) == len(utterances):
        raise InputError("no recording has enough speech, or an embedding")
    return left_out, seconds


def embed_here(
    model, utterances, output, window_length, window_overlap, min_speech, num_workers
):
    """Embeds on this machine and writes the file.

    Arguments
    ---------
    model : SpeakerRecognition
        The model.
    utterances : dict
        As of `find_recordings`.
    output : str
        File to write, - for standard output, or None.
    window_length : float
        As of `embed_many`.
    window_overlap : float
        As of `embed_many`.
    min_speech : float
        As of `embed_many`.
    num_workers : int
        As of `embed_many`.

    Returns
    -------
    store : EmbeddingStore
        Of what was embedded.
    left_out : list of str
        Ids of what was not.
    seconds : float
        Seconds of speech that were embedded now.
    """
    from speechbrain_ext.dataio.embedding_files import write_embeddings

    with tempfile.TemporaryDirectory() as folder:
        if output in (None, "-"):
            path = Path(folder) / "embeddings.safetensors"
        elif Path(output).suffix.lower() == ".safetensors":
            path = Path(output)
        else:
            # For a run that is killed
            path = Path(f"{output}.safetensors")
        store, left_out, seconds = embed_many(
            model, utterances, path, window_length, window_overlap, min_speech,
            num_workers,
        )  # fmt: skip
        if output == "-":
            with output_file("-") as file:
                write_embeddings(f"{file}.csv", store)
                Path(f"{file}.csv").replace(file)
        elif output is not None and path != Path(output):
            write_embeddings(output, store)
            path.unlink()
        elif output is not None and left_out:
            write_embeddings(output, store)
    return store, left_out, seconds


def print_embeddings(store):
    """Prints JSON, one object an embedding.

    Arguments
    ---------
    store : EmbeddingStore
        The embeddings.
    """
    for name, row, duration in zip(
        store.ids, store.embeddings.tolist(), store.durations
    ):
        print(json.dumps({"id": name, "duration": duration, "embedding": row}))

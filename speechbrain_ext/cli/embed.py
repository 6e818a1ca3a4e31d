"""speechbrain-ext embed."""

import json
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
    recording_options,
    show,
)
from speechbrain_ext.cli.recordings import (
    embed_many,
    require_whole,
    standard_input_lines,
)
from speechbrain_ext.utils.errors import InputError

EXAMPLES = """
speechbrain-ext embed ltdnn recordings --output embeddings.safetensors
speechbrain-ext embed user/model 'calls/**/*.wav' --output calls.csv --min_speech 0.5
find . -name '*.flac' | speechbrain-ext embed ltdnn - --output embeddings.scp
"""


@click.command(cls=Command, examples=EXAMPLES)
@model_options
@click.argument("recordings", nargs=-1, required=True)
@click.option(
    "--output",
    help="File to write: .safetensors, .csv, .scp (with .ark) or .parquet; "
    "- prints CSV.",
)
@recording_options
@click.option(
    "--skip_broken",
    is_flag=True,
    help="Leave out files that cannot be read, with a warning, instead of ending.",
)
@click.option(
    "--num_workers",
    type=int,
    default=0,
    show_default=True,
    help="Processes that read audio.",
)
@as_json
def command(
    source, device, revision, trust_source, recordings, output, window_length,
    window_overlap, min_speech, skip_broken, num_workers, as_json,
):  # fmt: skip
    """Embed RECORDINGS: files, folders, patterns, or - for a list on standard input.

    What is in a .safetensors file already is not embedded again, and a run that was
    killed goes on where it was. Without --output, --json prints the embeddings.
    """
    from speechbrain_ext.dataio.embedding_files import (
        check_can_write,
        write_embeddings,
    )
    from speechbrain_ext.dataio.recordings import find_recordings

    if output is None and not as_json:
        raise InputError("give --output, or --json to print the embeddings")
    if output == "-" and as_json:
        raise InputError("--json and --output - both print; leave one out")
    if output not in (None, "-"):
        check_can_write(output)
    utterances, broken = find_recordings(standard_input_lines(recordings))
    if not skip_broken or not utterances:
        require_whole(broken)
    for path, reason in broken.items():
        note(f"warning: '{path}': {reason}; left out")
    model = load(source, device, revision, trust_source)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if output in (None, "-"):
            path = Path(folder) / "embeddings.safetensors"
        elif Path(output).suffix.lower() == ".safetensors":
            path = Path(output)
        else:
            # For a run that is killed
            path = Path(f"{output}.safetensors")
        store, left_out = embed_many(
            model, utterances, path, window_length, window_overlap, min_speech,
            num_workers,
        )  # fmt: skip
    taken = time.monotonic() - start
    if output is None:
        for name, row, duration in zip(
            store.ids, store.embeddings.tolist(), store.durations
        ):
            print(json.dumps({"id": name, "duration": duration, "embedding": row}))
        return
    if output == "-":
        with output_file("-") as file:
            write_embeddings(f"{file}.csv", store)
            Path(f"{file}.csv").replace(file)
        return
    if path != Path(output):
        write_embeddings(output, store)
        path.unlink()
    elif len(left_out):
        write_embeddings(output, store)
    seconds = sum(store.durations)
    show(
        f"{output}: {len(store.ids)} recordings, {seconds:.0f} s of speech in "
        f"{taken:.1f} s, {seconds / taken:.0f} s a second",
        {
            "file": output,
            "recordings": len(store.ids),
            "left_out": [*broken, *(utterances[name]["wav"] for name in left_out)],
            "seconds": seconds,
            "seconds_per_second": seconds / taken,
        },
        as_json,
    )

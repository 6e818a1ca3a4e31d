"""Runs all benchmarks and writes one JSON and one table of them.

    python benchmarks/all.py --output results/benchmarks.json
    python benchmarks/all.py --gpu --output results/gpu.json

Each benchmark runs in a process of its own, one after the other; one that fails is
named in the results, the others go on. With --gpu those that need a GPU run (see
`gpu.sh`). Tables go to standard output and, as Markdown, beside the JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import machine, markdown

FOLDER = Path(__file__).resolve().parent
WITH_FOLDER = ("extraction", "data_loading", "frozen_training", "hidden_states")
CPU = (
    ("metrics", []),
    ("scoring", []),
    ("score_norm", []),
    ("plda", []),
    ("ivector", []),
    ("search", []),
    ("data_loading", []),
    ("shards", []),
    ("training_step", []),
    ("hidden_states", []),
    ("flops", []),
    ("scale", []),
    ("frozen_training", ["--steps", "2", "--repeats", "2", "--workers", "0"]),
    ("extraction", []),
    ("onnx_runtime", []),
)
GPU_EXTRACTION = ["--max_batch_duration", "300", "--repeats", "2"]
GPU = (
    ("extraction", ["--bf16", *GPU_EXTRACTION]),
    ("extraction", ["--bf16", "--size", "large", *GPU_EXTRACTION]),
    ("frozen_training", ["--batch_size", "128", "--steps", "8", "--workers", "8"]),
    ("training_step", ["--bf16", "--batch_size", "128"]),
    ("training_step", ["--bf16", "--batch_size", "32", "--size", "large"]),
    ("recompilations", []),
    ("two_processes", ["--batch_size", "32"]),
)


def run(name, arguments):
    """The results of a benchmark, or how it failed."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "results.json"
        command = [sys.executable, str(FOLDER / f"{name}.py"), "--json", str(path)]
        start = time.monotonic()
        done = subprocess.run(
            [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if done.returncode == 0:
            results = json.loads(path.read_text("utf-8"))
            results["seconds"] = round(time.monotonic() - start)
            return results
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return {"benchmark": name, "failed": lines[-1] if lines else done.returncode}


def main():
    """Runs them and reports; the exit status says whether one has failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("--folder", help="audio files; the demo's voices without it")
    parser.add_argument("--only", nargs="+", help="names of benchmarks")
    parser.add_argument("--gpu", action="store_true", help="the benchmarks of a GPU")
    parser.add_argument("--device", default="cuda", help="of the benchmarks of a GPU")
    parser.add_argument("--tiny", action="store_true", help="a test of the benchmarks")
    parser.add_argument("--threads", type=int, help="threads of a processor")
    options = parser.parse_args()
    shared = ["--tiny"] if options.tiny else []
    if options.threads:
        shared += ["--threads", str(options.threads)]
    if options.gpu:
        shared += ["--device", options.device]
    results = []
    for name, arguments in GPU if options.gpu else CPU:
        if options.only and name not in options.only:
            continue
        if options.folder and name in WITH_FOLDER:
            arguments = [*arguments, "--folder", options.folder]
        results.append(run(name, [*arguments, *shared]))
        failed = results[-1].get("failed")
        print(
            f"## {name}\n\nfailed: {failed}\n" if failed else markdown(results[-1]),
            flush=True,
        )
    where = machine(options.device if options.gpu else "cpu")
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": where, "results": results}, indent=2)
    output.write_text(text + "\n", encoding="utf-8")
    tables = [markdown(result) for result in results if "failed" not in result]
    output.with_suffix(".md").write_text("\n".join(tables), encoding="utf-8")
    if any("failed" in result for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

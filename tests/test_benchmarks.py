"""The benchmarks at their smallest sizes: that they run, not how fast anything is."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, write_voice

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    for speaker in "ab":
        (folder / speaker).mkdir()
        for number in range(4):
            n_samples = 16000 * (2 + number) // 2
            soundfile.write(
                folder / speaker / f"{number}.wav",
                0.1 * rng.standard_normal(n_samples),
                16000,
            )
    return folder


def run(name, arguments, tmp_path, monkeypatch):
    path = tmp_path / f"{name}.json"
    argv = [name, "--tiny", "--threads", "1", "--repeats", "1", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", [*argv, *arguments])
    importlib.import_module(name).main()
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize(
    "name",
    [
        "metrics",
        "scoring",
        "score_norm",
        "plda",
        "training_step",
        "search",
        # PyTorch's exporter alone takes 15 s.
        pytest.param("onnx_runtime", marks=pytest.mark.slow),
    ],
)
def test_runs_and_says_where(name, tmp_path, monkeypatch, capsys):
    for package in {"search": ["faiss"], "onnx_runtime": ["onnx"]}.get(name, []):
        pytest.importorskip(package)
    results = run(name, [], tmp_path, monkeypatch)
    assert results["benchmark"] == name and results["rows"]
    assert results["machine"]["torch"] == torch.__version__
    assert results["floors"]["matrix_rate"] > 0 < results["floors"]["copy_rate"]
    assert any("ratio" in key for row in results["rows"] for key in row)
    table = capsys.readouterr().out
    assert table.startswith(f"## {name}\n")


def test_hours_of_an_ivector_training(tmp_path, monkeypatch):
    results = run("ivector", [], tmp_path, monkeypatch)
    stages = {row["stage"]: row for row in results["rows"]}
    assert set(stages) == {
        "MFCCs", "start of the UBM", "UBM", "statistics", "total variability"
    }  # fmt: skip
    ubm = stages["UBM"]
    assert ubm["passes"] == 4 and ubm["of"] == 340 * 3600 * 80
    hours = ubm["passes"] * ubm["of"] / ubm["a second"] / 3600
    assert ubm["hours"] == pytest.approx(hours)


@pytest.mark.parametrize("name", ["extraction", "data_loading", "frozen_training"])
def test_reads_speech(name, speech, tmp_path, monkeypatch):
    arguments = ["--folder", str(speech)]
    results = run(name, arguments, tmp_path, monkeypatch)
    assert results["rows"][0].keys() >= {"ratio"} or name == "data_loading"
    if name == "extraction":
        jobs = {row["job"]: row for row in results["rows"]}
        assert jobs["extract_embeddings"]["greatest difference"] <= 1e-4
    if name != "data_loading":
        parts = [row["of_whole"] for row in results["rows"] if "of_whole" in row]
        assert sum(parts) == pytest.approx(1) and min(parts) > 0


def test_steps_on_stored_hidden_states(tmp_path, monkeypatch):
    for speaker in range(6):
        for utterance in range(2):
            path = tmp_path / f"corpus/s{speaker}/{utterance}.wav"
            write_voice(path, speaker, utterance)
    folder = ["--folder", str(tmp_path / "corpus")]
    results = run("hidden_states", folder, tmp_path, monkeypatch)
    frame_bytes = 7 * 192 * 2
    assert results["hidden_states_bytes"] >= results["seconds_of_speech"] * 45 * (
        frame_bytes
    )
    (row,) = results["rows"]
    assert row["system"] == "ltdnn_wavlm.yaml" and row["ratio"]["low"] > 0


def test_operations_of_encoder_and_back_end(tmp_path, monkeypatch):
    encoder, back_end = run("flops", [], tmp_path, monkeypatch)["rows"]
    measure = importlib.import_module("measure")
    rivals = importlib.import_module("rivals")
    model = rivals.build_encoder("tiny")
    with torch.no_grad():
        wavs, lengths = torch.randn(1, 64000), torch.ones(1)
        counted = measure.count_flop(lambda: model(wavs, lengths))
    assert encoder["GFLOP a second of speech"] == pytest.approx(counted / 4e9)
    assert back_end["job"] == "L-TDNN on WavLM tiny"


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="it takes Linux to say what is held"
)
def test_what_a_large_corpus_takes(tmp_path, monkeypatch):
    results = run("scale", [], tmp_path, monkeypatch)
    jobs = [row["job"] for row in results["rows"]]
    assert jobs[0] == "manifest read" and jobs[-1] == "a further step"
    assert results["embedding_store_bytes"] > results["utterances"] * 192 * 4


def test_reads_shards(tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    rows = run("shards", [], tmp_path, monkeypatch)["rows"]
    assert [row["from"] for row in rows] == ["files", "shards"]
    assert all(row["seconds"] > 0 for row in rows)


def test_one_graph_serves_all_lengths(tmp_path, monkeypatch):
    (row,) = run("recompilations", [], tmp_path, monkeypatch)["rows"]
    assert row["graphs"] < row["lengths"] / 4
    assert row["greatest difference"] <= 1e-5


def test_every_benchmark_is_in_a_list():
    everything = importlib.import_module("all")
    listed = {name for name, _ in (*everything.CPU, *everything.GPU)}
    assert all((BENCHMARKS / f"{name}.py").is_file() for name in listed)
    files = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert files - listed == {"all", "measure", "rivals"}


def test_a_failure_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    everything = importlib.import_module("all")
    monkeypatch.setattr(everything, "CPU", (("absent", []), ("measure", [])))
    output = tmp_path / "all.json"
    monkeypatch.setattr(everything.sys, "executable", "false")
    monkeypatch.setattr(sys, "argv", ["all", "--output", str(output)])
    with pytest.raises(SystemExit):
        everything.main()
    results = json.loads(output.read_text("utf-8"))["results"]
    assert [row["benchmark"] for row in results] == ["absent", "measure"]
    assert all("failed" in row for row in results)
    assert "## absent\n\nfailed" in capsys.readouterr().out


def test_ratios_are_of_neighbouring_runs():
    measure = importlib.import_module("measure")
    slow, fast = (
        measure.Times([2, 9, 4], [2, 9, 4]),
        measure.Times([1, 3, 4], [1, 3, 4]),
    )
    assert measure.ratio(slow, fast) == {"median": 2, "low": 1, "high": 3}
    assert measure.ratio(slow.times(10), fast)["median"] == 20


def test_jobs_take_turns():
    measure = importlib.import_module("measure")
    order = []
    jobs = {name: lambda name=name: order.append(name) for name in "ab"}
    times = measure.alternate(jobs, 2)
    assert order == ["a", "b"] * 3 and len(times["a"].wall) == 2


def test_operations_of_attention_are_counted():
    measure = importlib.import_module("measure")
    x = torch.rand(2, 3, 5, 7)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert measure.count_flop(lambda: attend(x, x, x)) == 2 * 2 * 2 * 3 * 5 * 5 * 7
    assert measure.count_flop(lambda: x[0, 0] @ x[0, 0].T) == 2 * 5 * 7 * 5


def test_bytes_of_operations_are_counted():
    measure = importlib.import_module("measure")
    x = torch.rand(8, 5, requires_grad=True)
    assert measure.count_bytes(lambda: x + x) == 3 * 4 * 40
    assert measure.count_bytes(lambda: x.T.unsqueeze(0)) == 0
    assert measure.count_bytes(lambda: x.detach().mul_(2)) == 2 * 4 * 40
    # Gradient of the sum (4 bytes spread over 160), product forward and backward
    with_backward = measure.count_bytes(lambda: (x * x).sum().backward())
    assert with_backward >= 6 * 4 * 40


def test_peak_of_tensors_has_what_is_alive_at_once():
    measure = importlib.import_module("measure")

    def job():
        first = torch.ones(2**20)
        second = first + 1
        del first
        return second * 2

    assert measure.peak_tensor_bytes(job) == pytest.approx(2 * 4 * 2**20, rel=0.01)


def test_peak_is_beyond_what_was_in_use():
    measure = importlib.import_module("measure")
    peak = measure.peak_bytes(lambda: torch.ones(64 * 2**20, dtype=torch.uint8))
    if peak is None:
        pytest.skip("this system does not say how much memory is in use")
    assert 60 * 2**20 < peak < 80 * 2**20

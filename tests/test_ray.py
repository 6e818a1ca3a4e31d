"""Extraction by a local Ray: the embeddings of one machine, whatever happens."""

import functools
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import write_voice

from speechbrain_ext.cli import main
from speechbrain_ext.cli.models import load
from speechbrain_ext.dataio.embedding_store import row_keys_of
from speechbrain_ext.dataio.embeddings import read_embeddings
from speechbrain_ext.dataio.parquet import read_parquet, write_parquet
from speechbrain_ext.dataio.windows import Windows
from speechbrain_ext.inference import ray_extraction
from speechbrain_ext.inference.extraction import (
    extract_embeddings,
    store_of_embeddings,
)
from speechbrain_ext.inference.ray_extraction import extract_on_ray
from speechbrain_ext.inference.sources import load_model
from speechbrain_ext.utils.errors import InputError


@pytest.fixture(scope="module")
def two_workers():
    """A local Ray of two CPUs."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers are nice, and would wait for all other tests.
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    root = tmp_path_factory.mktemp("recordings")
    items = {}
    for i in range(24):
        duration = 1.0 + 0.1 * (i % 7)
        wav = root / f"spk{i % 4}" / f"{i}.wav"
        write_voice(wav, i % 4, i, duration)
        name = f"spk{i % 4}/{i}.wav"
        items[name] = {"wav": str(wav), "speaker": f"spk{i % 4}", "duration": duration}
    return items


# Over 5 s: Ray starts, and its workers import what this process has imported.
def test_same_embeddings_once_each(
    two_workers, utterances, model_folder, tmp_path, capsys
):
    folder, silent = tmp_path / "e.parquet", tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(32000), 16000)
    root = Path(utterances["spk0/0.wav"]["wav"]).parents[1]
    arguments = ["embed", str(model_folder), str(root), "--engine", "ray"]
    arguments += ["--output", str(folder), "--window_length", "1.25"]
    main([*arguments, str(silent)])
    captured = capsys.readouterr()
    assert "25 recordings" in captured.out
    assert f"warning: '{silent}': it is silent; its embedding says" in captured.err
    found = read_embeddings(folder)
    model = load_model(model_folder, "cpu")
    expected = extract_embeddings(
        model, utterances, tmp_path / "e.safetensors", window_length=1.25
    )
    own = found.by_id()
    assert own.keys() == {*utterances, str(silent)}
    assert found.fingerprint == expected.fingerprint
    for name, row in expected.by_id().items():
        torch.testing.assert_close(own[name], row, atol=1e-6, rtol=1e-6)
    assert {name: found.speaker_of()[name] for name in utterances} == (
        expected.speaker_of()
    )

    # Nothing is embedded again.
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    main(arguments)
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert after == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "e.csv"], "--engine ray writes a folder of Parquet"),
        (["--json"], "--engine ray writes a folder of Parquet"),
        (["--output", "e.parquet", "--device", "cuda:1"], "gives each worker its GPU"),
        (["--output", "e.parquet", "--device", "cuda"], "the cluster has no GPU"),
        (["--output", "e.parquet", "--num_workers", "9"], "a worker needs 10 CPUs"),
        (["--output", "e.parquet", "--precision", "auto"], "may differ between the"),
    ],
)
def test_what_ray_cannot_do(
    options, message, two_workers, utterances, model_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    wav = next(iter(utterances.values()))["wav"]
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(["embed", str(model_folder), wav, "--engine", "ray", *options])


def test_folders_that_are_not_ours(utterances, model_folder, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    model = functools.partial(load_model, model_folder)
    (tmp_path / "file.parquet").write_text("text")
    with pytest.raises(InputError, match="is a file"):
        extract_on_ray(model, utterances, tmp_path / "file.parquet")
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    wav = next(iter(utterances.values()))["wav"]
    other = folder / "other.parquet"
    main(["embed", str(model_folder), wav, "--output", str(other)])
    with pytest.raises(InputError, match="is not of an extraction by Ray"):
        extract_on_ray(model, utterances, folder)
    assert other.is_file()
    with pytest.raises(SystemExit, match="is a folder; give a file"):
        main(["embed", str(model_folder), wav, "--output", str(folder)])


def test_what_of_a_folder_counts(utterances, tmp_path):
    pytest.importorskip("pyarrow")
    folder, settings = tmp_path / "e.parquet", {"min_speech": "None"}
    folder.mkdir()
    fingerprint, wide = "0" * 128, Windows(1.25, 0.0)

    def missing(windows, fingerprint=fingerprint, settings=settings):
        return ray_extraction._missing(
            folder, utterances, windows, fingerprint, settings
        )

    def write(windows):
        for number in range(3):
            some = dict(list(utterances.items())[number::3])
            rows = {name: torch.rand(4) for name in some}
            keys = row_keys_of(some, windows)
            store = store_of_embeddings(rows, some, keys, fingerprint)
            write_parquet(folder / f"{number}.parquet", store, **settings)

    assert missing(None).keys() == utterances.keys()
    write(None)
    # A worker that was killed while it wrote has left this.
    (folder / ".partial-host-1-3.parquet").write_bytes(b"PAR1")
    assert not missing(None) and len(read_embeddings(folder).ids) == 24
    long = {name for name, item in utterances.items() if item["duration"] > 1.25}
    assert missing(wide).keys() == long and 0 < len(long) < 24
    assert set(read_embeddings(folder).ids) == utterances.keys() - long
    write(None)
    assert missing(None, settings={"min_speech": "0.5"}).keys() == utterances.keys()
    write(None)
    assert missing(None, fingerprint="1" * 128).keys() == utterances.keys()
    # As a machine that lost its power may leave it
    write(None)
    (folder / "1.parquet").write_bytes((folder / "1.parquet").read_bytes()[:100])
    with pytest.raises(InputError, match="1.parquet.*delete it, and its recordings"):
        missing(None)
    (folder / "1.parquet").unlink()
    assert missing(None).keys() == set(list(utterances)[1::3])


@pytest.mark.slow  # starts workers four times
def test_other_settings_and_other_models_are_stale(
    two_workers, utterances, model_folder, tmp_path
):
    def other_model(device):
        model = load_model(model_folder, device)
        with torch.no_grad():
            next(model.embedding_model.parameters()).mul_(2)
        return model

    folder = tmp_path / "e.parquet"
    few = dict(list(utterances.items())[:3])
    extract_on_ray(functools.partial(load_model, model_folder), few, folder)
    first = read_embeddings(folder)
    extract_on_ray(other_model, few, folder)
    second = read_embeddings(folder)
    assert set(second.ids) == set(first.ids) == set(few)
    assert second.fingerprint == other_model("cpu").fingerprint != first.fingerprint
    options = {"revision": None, "trust_source": False}
    in_bf16 = functools.partial(load, model_folder, precision="bf16", **options)
    extract_on_ray(in_bf16, few, folder)
    third, expected = read_embeddings(folder), in_bf16("cpu")
    assert third.fingerprint == expected.fingerprint != first.fingerprint
    for name, row in third.by_id().items():
        assert torch.allclose(row, expected.encode_file(few[name]["wav"]), atol=1e-6)
    pytest.importorskip("silero_vad")
    doubts, *_ = extract_on_ray(other_model, few, folder, min_speech=0.5)
    assert doubts.keys() == few.keys()  # tones are no speech
    assert not list(folder.glob("*.parquet"))


def worker_processes():
    """Ray's processes with a model, by the name that they give themselves."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::MapWorker"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow  # starts workers three times
def test_a_worker_is_killed(
    two_workers, utterances, model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray_extraction, "CHUNKS_OF_WORKER", 6)
    load = functools.partial(load_model, model_folder)
    before, killed = set(worker_processes()), []

    def kill_one():
        while not killed:
            time.sleep(0.01)
            own = set(worker_processes()) - before
            if own and list(tmp_path.glob("e.parquet/*.parquet")):
                killed.append(own.pop())
                os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    extract_on_ray(load, utterances, tmp_path / "e.parquet")
    killer.join(timeout=60)
    assert len(killed) == 1
    expected = extract_embeddings(load("cpu"), utterances, tmp_path / "e.safetensors")
    own = read_embeddings(tmp_path / "e.parquet").by_id()
    assert own.keys() == set(utterances)
    for name, row in expected.by_id().items():
        torch.testing.assert_close(own[name], row, atol=1e-6, rtol=1e-6)

    # What a killed run has not embedded, or has changed, is embedded and nothing else.
    parts = sorted((tmp_path / "e.parquet").glob("*.parquet"))
    changed = read_parquet(parts[1])[0].ids[0]
    copy = tmp_path / "changed.wav"
    write_voice(copy, 3, 77, utterances[changed]["duration"])
    now = {**utterances, changed: {**utterances[changed], "wav": str(copy)}}
    parts[0].unlink()
    kept = {path: path.stat().st_mtime_ns for path in parts[2:]}
    extract_on_ray(load, now, tmp_path / "e.parquet")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    again = read_embeddings(tmp_path / "e.parquet").by_id()
    assert again.keys() == own.keys()
    assert not torch.allclose(again.pop(changed), own.pop(changed), atol=1e-3)
    torch.testing.assert_close(again, own, atol=1e-6, rtol=1e-6)

"""Shards: the same audio as that of the files, each utterance once a round."""

import functools
import io
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import tarfile
from collections import Counter

import numpy as np
import pytest
import soundfile
import speechbrain as sb
import torch
import webdataset
from conftest import ECAPA, ROOT, TINY_ECAPA, TRAIN, run, write_corpus
from processes import forked, join_two, run_python
from speechbrain.dataio.dataloader import SaveableDataLoader
from trainings import fit, speaker_training, state_of

from speechbrain_ext.dataio import shards
from speechbrain_ext.dataio.audio import PackedFile, read_crop
from speechbrain_ext.dataio.datasets import (
    StepSampler,
    crop_pair_dataset,
    speaker_classes,
    speaker_encoder,
    training_dataset,
)
from speechbrain_ext.dataio.embedding_store import EmbeddingStore, row_keys_of
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.prepare import prepare_corpus
from speechbrain_ext.dataio.shards import read_shards, write_shards
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.training.distillation import (
    TargetEmbeddings,
    distillation_dataset,
)
from speechbrain_ext.training.ivector import SpeechFrames
from speechbrain_ext.utils.errors import InputError

N_SHARDS = 7


def prepare(corpus, folder, **settings):
    paths = prepare_corpus(
        "folder", corpus, folder, valid_speakers=2, test_speakers=2, **settings
    )
    return paths["train"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A manifest of 24 utterances and a folder of seven shards of them."""
    folder = tmp_path_factory.mktemp("packed")
    manifest = prepare(write_corpus(folder / "corpus"), folder / "save")
    write_shards(manifest, folder / "shards", N_SHARDS)
    return manifest, folder / "shards"


@pytest.fixture
def own(packed, tmp_path):
    """A copy of the manifest and of the shards, to spoil."""
    manifest, _ = packed
    write_shards(manifest, tmp_path / "shards", N_SHARDS)
    return manifest, tmp_path / "shards"


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- What is in the shards


def test_shards_have_all_utterances_as_they_are(packed):
    manifest, folder = packed
    utterances, found = read_manifest(manifest), read_shards(folder, manifest)
    assert len(utterances) == 24 and found.keys() == utterances.keys()
    for name, item in found.items():
        file = item["wav"]
        assert {**item, "wav": file.path} == utterances[name]
        assert file.read() == open(utterances[name]["wav"], "rb").read()
    sizes = Counter(item["wav"].shard for item in found.values())
    assert sorted(sizes.values()) == [3] * 4 + [4] * 3
    # Dealt at random: no shard has the utterances of one speaker
    for shard in sizes:
        speakers = [i["speaker"] for i in found.values() if i["wav"].shard == shard]
        assert len(set(speakers)) > 1


def test_speechbrains_loader_takes_the_tars(packed):
    manifest, folder = packed
    paths = sorted(map(str, folder.glob("*.tar")))
    dataset = webdataset.WebDataset(paths, shardshuffle=False)
    found = {}
    for sample in SaveableDataLoader(dataset, batch_size=None):
        about = json.loads(sample["json"])
        wav, _ = soundfile.read(io.BytesIO(sample["wav"]), dtype="float32")
        found[about.pop("id")] = about, torch.from_numpy(wav)
    utterances = read_manifest(manifest)
    assert found.keys() == utterances.keys()
    for name, item in utterances.items():
        about, wav = found[name]
        assert {**about, "wav": item["wav"]} == item
        assert torch.equal(wav, read_crop(item["wav"], 16000))


FORMATS = {
    "a.wav": {},
    "b.wav": {"subtype": "FLOAT"},
    "c.flac": {},
    "d.ogg": {},
    "e.opus": {"format": "OGG", "subtype": "OPUS"},
    "f.mp3": {},
}


@pytest.mark.parametrize("name", FORMATS)
def test_crops_of_each_format_are_those_of_the_file(name, tmp_path):
    path = tmp_path / name
    noise = 0.1 * np.random.default_rng(0).standard_normal((48000, 2))
    soundfile.write(path, noise, 24000, **FORMATS[name])
    content = path.read_bytes()
    shard = tmp_path / "shard"
    shard.write_bytes(b"before" + content + b"after")
    file = PackedFile(str(path), str(shard), len(b"before"), len(content))
    whole = read_crop(path, 16000)
    assert len(whole) == 32000
    path.unlink()
    assert torch.equal(read_crop(file, 16000), whole)
    crop = read_crop(file, 16000, start=0.5, duration=0.75)
    assert len(crop) == 12000
    path.write_bytes(content)
    assert torch.equal(crop, read_crop(path, 16000, start=0.5, duration=0.75))


def test_m4a_goes_to_ffmpeg_as_a_file(tmp_path, monkeypatch):
    (tmp_path / "shard").write_bytes(b"beforem4aafter")
    given = []

    def ffmpeg(command, **options):
        given.append(open(command[command.index("-i") + 1], "rb").read())
        header = b".snd" + np.array([24, 2**32 - 1, 6, 16000, 1], ">u4").tobytes()
        raw = header + np.ones(800, ">f4").tobytes()
        return subprocess.CompletedProcess(command, 0, raw, b"")

    monkeypatch.setattr("speechbrain_ext.dataio.m4a._pyav", lambda: None)
    monkeypatch.setattr("shutil.which", lambda program: program)
    monkeypatch.setattr("subprocess.run", ffmpeg)
    file = PackedFile("gone.m4a", str(tmp_path / "shard"), 6, 3)
    assert torch.equal(read_crop(file, 16000, 0.1, 0.05), torch.ones(800))
    assert given == [b"m4a"]


def test_broken_audio_in_a_shard_is_named(tmp_path):
    (tmp_path / "shard").write_bytes(b"this is no audio")
    file = PackedFile("/data/a.wav", str(tmp_path / "shard"), 0, 16)
    with pytest.raises(InputError, match="'/data/a.wav in .*shard' cannot be decoded"):
        read_crop(file, 16000)
    file = PackedFile("/data/a.wav", str(tmp_path / "shard"), 8, 16)
    with pytest.raises(InputError, match="its shard is cut short"):
        read_crop(file, 16000)


def test_items_are_those_of_the_files(packed):
    """Crop, speed, label and the pairs of pre-training."""
    manifest, folder = packed
    in_shards = read_shards(folder, manifest)
    of_files = {name: read_manifest(manifest)[name] for name in in_shards}
    speeds = [90, 100, 110]
    labels = sb.dataio.encoder.CategoricalEncoder()
    labels.update_from_iterable(speaker_classes(of_files, speeds))
    assert speaker_classes(in_shards, speeds) == speaker_classes(of_files, speeds)
    for make in (
        functools.partial(
            training_dataset, label_encoder=labels, crop_duration=0.5, speeds=speeds
        ),
        functools.partial(crop_pair_dataset, crop_duration=0.5),
    ):
        packed_items, items = (
            make(utterances, sample_rate=16000) for utterances in (in_shards, of_files)
        )
        assert items.shard_sizes is None
        assert sorted(packed_items.shard_sizes) == [3] * 4 + [4] * 3
        for index in range(len(items)):
            one, other = packed_items[index, 1986, 5], items[index, 1986, 5]
            assert one.keys() == other.keys() and one["id"] == other["id"]
            for key in set(one) - {"id"}:
                assert torch.equal(one[key], other[key])


def test_targets_and_frames_are_those_of_the_files(packed, tmp_path):
    """What distillation and i-vectors take of the utterances of shards."""
    manifest, folder = packed
    in_shards, of_files = read_shards(folder, manifest), read_manifest(manifest)
    store = EmbeddingStore(
        list(of_files),
        torch.randn(len(of_files), 4),
        [item["speaker"] for item in of_files.values()],
        [item["duration"] for item in of_files.values()],
        "f00",
        row_keys_of(of_files),
    )
    store.save(tmp_path / "utterance.safetensors")
    targets = TargetEmbeddings(tmp_path, ["utterance"])
    labels = speaker_encoder(speaker_classes(of_files))
    dataset = distillation_dataset(in_shards, labels, 16000, 0.5, [100], targets)
    for index in range(len(dataset)):
        item = dataset[index, 1986, 5]
        assert torch.equal(item["target"], targets[item["id"]])
    # Batches may be others, since the utterances come in another order.
    ours, theirs = (
        torch.cat(list(SpeechFrames(encoder, utterances, 16000, 10.0).valid("frames")))
        for encoder in [NormalizedFbank(8)]
        for utterances in (in_shards, of_files)
    )
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours.double().sum(0), theirs.double().sum(0))


# --- Writing


def test_shards_are_written_once(own, caplog):
    manifest, folder = own
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_shards(manifest, folder, N_SHARDS)
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("n_written", [0, 5, 20])
def test_killed_writing_goes_on(n_written, packed, tmp_path, monkeypatch):
    manifest, whole = packed
    folder = tmp_path / "shards"
    writes = []

    class Dying(webdataset.TarWriter):
        def write(self, sample):
            if len(writes) >= n_written:
                raise Killed
            writes.append(sample)
            return super().write(sample)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(webdataset, "TarWriter", Dying)
        # One at a time, so that some are whole
        patch.setattr(
            shards.concurrent.futures, "ThreadPoolExecutor",
            functools.partial(shards.concurrent.futures.ThreadPoolExecutor, 1),
        )  # fmt: skip
        write_shards(manifest, folder, N_SHARDS)
    with pytest.raises(InputError, match="are not all written"):
        read_shards(folder, manifest)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert len(kept) == {0: 0, 5: 1, 20: 5}[n_written]
    write_shards(manifest, folder, N_SHARDS)
    assert content_of(folder) == content_of(whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_shards_of_other_settings_are_written_again(own, caplog):
    manifest, folder = own
    before = content_of(folder)
    write_shards(manifest, folder, 3)
    assert "are of other shards (7, not 3)" in caplog.text
    assert len(list(folder.glob("*.tar"))) == len(list(folder.glob("*.csv"))) == 3
    assert len(read_shards(folder, manifest)) == 24
    write_shards(manifest, folder, N_SHARDS)
    assert content_of(folder) == before
    write_shards(manifest, folder, N_SHARDS, seed=1)
    assert list(read_shards(folder, manifest)) != list(before)
    assert content_of(folder) != before


def test_what_cannot_be_written_is_said(packed, tmp_path):
    manifest, _ = packed
    with pytest.raises(InputError, match="shards: 25 are more than the 24 utterances"):
        write_shards(manifest, tmp_path / "shards", 25)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "shard-000000.tar").write_bytes(b"mine")
    with pytest.raises(InputError, match="of no preparation; give another"):
        write_shards(manifest, foreign, 2)
    assert (foreign / "shard-000000.tar").read_bytes() == b"mine"


def test_file_that_is_gone_is_named(corpus, tmp_path):
    manifest = prepare(corpus, tmp_path / "save")
    wav = next(iter(read_manifest(manifest).values()))["wav"]
    os.unlink(wav)
    with pytest.raises(InputError, match=f"'{re.escape(wav)}' cannot be read any more"):
        write_shards(manifest, tmp_path / "shards", 2)


# --- What cannot be read


def test_shards_of_another_preparation_are_refused(own, corpus, tmp_path):
    manifest, folder = own
    other = prepare(corpus, tmp_path / "save")
    with pytest.raises(InputError, match="of another preparation than .*audio files"):
        read_shards(folder, other)
    write_shards(other, folder, 2)
    assert len(read_shards(folder, other)) == 24
    held_out = prepare(corpus, tmp_path / "other", seed=7)
    with pytest.raises(InputError, match="of other training utterances"):
        read_shards(folder, held_out)
    # A recording is replaced by another one of the same name and duration
    wav = next(iter(read_manifest(other).values()))["wav"]
    os.utime(wav, (0, 0))
    assert prepare(corpus, tmp_path / "save") == other
    with pytest.raises(InputError, match="of other audio files"):
        read_shards(folder, other)


def test_same_preparation_elsewhere_has_the_same_shards(own, tmp_path):
    manifest, folder = own
    corpus = next(iter(read_manifest(manifest).values()))["wav"].rpartition("/spk")[0]
    again = prepare(corpus, tmp_path / "again")
    moved = folder.rename(tmp_path / "moved")
    assert len(read_shards(moved, again)) == 24


def test_missing_shards_are_named(own):
    manifest, folder = own
    with pytest.raises(InputError, match="there are no shards in .*--shards"):
        read_shards(folder / "nowhere", manifest)
    last = folder / f"shard-{N_SHARDS - 1:06d}.tar"
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{last.name}' is cut short"):
        read_shards(folder, manifest)
    last.unlink()
    with pytest.raises(InputError, match=f"{last.name}' is missing"):
        read_shards(folder, manifest)
    # As it says: the command that wrote the others writes it.
    write_shards(manifest, folder, N_SHARDS)
    assert last.read_bytes() == content


# --- The order


def batches(sizes, batch_size, n_processes=1, n_steps=8, accumulation=1, seed=3):
    """Batches of each process."""
    return [
        list(
            StepSampler(
                sum(sizes), n_steps, n_steps, batch_size, accumulation, seed,
                rank, n_processes, sizes,
            )
        )
        for rank in range(n_processes)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sizes, batch_size, n_processes, accumulation",
    [
        ([10, 10, 10, 10], 4, 1, 1),
        ([10, 10, 10, 10], 5, 2, 1),
        ([7, 1, 12, 3, 4], 5, 2, 2),
        ([7, 1, 12, 3], 4, 3, 1),
        ([5, 6], 2, 4, 1),  # fewer shards than processes
        ([1], 3, 2, 1),
    ],
)
def test_each_round_has_each_item_once(sizes, batch_size, n_processes, accumulation):
    of_ranks = batches(sizes, batch_size, n_processes, 30, accumulation)
    assert {len(own) for own in of_ranks} == {30 * accumulation}
    keys = [key for step in zip(*of_ranks) for batch in step for key in batch]
    assert [position for *_, position in keys] == list(range(len(keys)))
    rounds = [
        [index for index, *_ in keys[first : first + sum(sizes)]]
        for first in range(0, len(keys) - sum(sizes) + 1, sum(sizes))
    ]
    assert len(rounds) > 2
    assert all(sorted(one) == list(range(sum(sizes))) for one in rounds)
    if len(sizes) > 2:
        assert rounds[0] != rounds[1] != rounds[2]


def test_each_process_reads_shards_of_its_own_one_after_the_other(monkeypatch):
    monkeypatch.setattr("speechbrain_ext.dataio.datasets.SHUFFLED", 5)
    sizes = [10] * 6
    seen = set()
    for seed in range(4):
        of_ranks = batches(sizes, 5, n_processes=2, n_steps=6, seed=seed)
        read = [[key[0] // 10 for batch in own for key in batch] for own in of_ranks]
        for own in read:
            # 30 items: all of three shards, and no shard after the next has begun
            assert Counter(Counter(own).values()) == {10: 3}
            assert sum(a != b for a, b in zip(own, own[1:])) == 2
        assert not set(read[0]) & set(read[1])
        seen.add(tuple(read[0]))
        # Within a shard not in the order of the file
        assert any(
            [key[0] for batch in own for key in batch] != sorted(
                key[0] for batch in own for key in batch
            )
            for own in of_ranks
        )  # fmt: skip
    assert len(seen) > 1


def test_order_goes_on_after_any_step():
    whole = batches([7, 1, 12, 3], 5, 2, n_steps=9)
    for rank in range(2):
        for steps_done in range(9):
            sampler = StepSampler(23, 9, 9, 5, 1, 3, rank, 2, [7, 1, 12, 3])
            sampler.resume(steps_done)
            assert list(sampler) == whole[rank][steps_done:]


# --- Training


def train(rank, manifest, shards_folder, runs, port):
    """One of two processes: trains, and notes what each step has seen."""
    join_two(rank, port)
    multiprocessing.set_start_method("fork", force=True)  # of readers, as in a recipe
    utterances = read_shards(shards_folder, manifest)
    for folder, die_at_step in runs.items():
        # What goes on after a kill reads in a process of its own: nothing changes.
        num_workers = int(folder.name == "killed" and die_at_step is None)
        brain, data = speaker_training(
            None, folder, n_steps=8, per_epoch=4, batch_size=5, utterances=utterances,
            num_workers=num_workers,
        )  # fmt: skip
        brain.distributed_backend = "gloo"
        forward = brain.compute_forward

        def noted(batch, stage):
            step = brain.optimizer_step
            if stage.name == "TRAIN":
                if step == die_at_step and rank == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                with open(folder / f"{rank}.txt", "a") as file:
                    file.write(json.dumps([step, batch.id]) + "\n")
            return forward(batch, stage)

        brain.compute_forward = noted
        fit(brain, data)
        state = {n.replace(".module.", "."): v for n, v in state_of(brain).items()}
        torch.save(state, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def train_two(packed, runs):
    """Trains in folders one after the other, to a step or to the end."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        forked.Process(target=train, args=(rank, *packed, runs, port))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    processes[1].join(300)
    if processes[1].exitcode != 0:
        processes[0].kill()  # as torchrun does where one has died
    processes[0].join(300)
    return processes[1].exitcode


def seen_in(folder):
    """Utterances by step and process, what a killed run has lost left out."""
    seen = {}
    for rank in range(2):
        for line in (folder / f"{rank}.txt").read_text().splitlines():
            step, ids = json.loads(line)
            seen[step, rank] = ids  # a step after a checkpoint is taken again
    return seen


def test_killed_training_of_two_sees_each_utterance_once(packed, tmp_path):
    manifest, _ = packed
    # In the middle of an epoch and of a round, a step after a checkpoint
    runs = {tmp_path / "whole": None, tmp_path / "killed": 3}
    assert train_two(packed, runs) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "0.pt").exists()
    assert train_two(packed, {tmp_path / "killed": None}) == 0
    whole, killed = (seen_in(tmp_path / name) for name in ("whole", "killed"))
    assert killed == whole and len(whole) == 2 * 8
    in_order = [name for key in sorted(killed) for name in killed[key]]
    utterances = set(read_manifest(manifest))
    for first in (0, 24, 48):
        round_ = in_order[first : first + 24]
        assert len(round_) == 24 and set(round_) == utterances
    for rank in range(2):
        states = [
            torch.load(tmp_path / name / f"{rank}.pt") for name in ("whole", "killed")
        ]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_recipe_trains_from_shards(corpus, tmp_path):
    data = {
        "dataset": "folder", "data_folder": corpus, "valid_speakers": 3,
        "test_speakers": 3,
    }  # fmt: skip
    script = ROOT / "recipes" / "VoxCeleb" / "voxceleb_prepare.py"
    given = [f"--{key}={value}" for key, value in data.items()]
    prepared = run_python(
        [script, *given, f"--save_folder={tmp_path / 'data'}", "--shards=3"], tmp_path
    )
    assert prepared.returncode == 0, prepared.stderr[-3000:]
    folder = tmp_path / "data" / "shards"
    assert prepared.stdout.splitlines()[-1] == str(folder)
    with tarfile.open(folder / "shard-000002.tar") as tar:
        assert len(tar.getnames()) == 2 * 5  # of 16 utterances
    options = {
        **TINY_ECAPA, **data, "output_folder": tmp_path / "out", "num_workers": 1,
        "shards_folder": folder,
    }  # fmt: skip
    trained = run(TRAIN, ECAPA, options, tmp_path)
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert (tmp_path / "out" / "test" / "metrics.json").is_file()


def test_folder_without_a_number_has_no_effect(corpus, tmp_path):
    script = ROOT / "recipes" / "VCTK" / "vctk_prepare.py"
    result = run_python(
        [
            script, f"--data_folder={corpus}", f"--save_folder={tmp_path}",
            f"--shards_folder={tmp_path}/shards",
        ],
        tmp_path,
    )  # fmt: skip
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert "shards_folder has no effect with shards: null" in last

"""Odd files among the recordings are named and left out, and nothing stops."""

import csv
import os
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import write_voice

from speechbrain_ext.augment.one_kind import AddedRecordings
from speechbrain_ext.augment.recordings import RecordedNoise
from speechbrain_ext.dataio import audio
from speechbrain_ext.dataio.audio import read_crop, read_header
from speechbrain_ext.dataio.corpora import get_corpus
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.prepare import prepare_corpus
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.utils.errors import InputError


def prepare(root, tmp_path, **changes):
    settings = {"valid_speakers": 2, "test_speakers": 3, "allow_broken": True}
    return prepare_corpus("folder", root, tmp_path / "save", **{**settings, **changes})


def reasons(tmp_path):
    """Reason of each file that was left out, by its path below the corpus."""
    with open(tmp_path / "save" / "broken_files.csv", newline="") as file:
        return {
            os.path.relpath(row["wav"], tmp_path / "corpus"): row["reason"]
            for row in csv.DictReader(file)
        }


def prepared(paths):
    return {n for s in ("train", "valid", "test") for n in read_manifest(paths[s])}


def header_of(sample_rate, n_channels=1):
    """A wav of 16,000 samples whose header claims a sample rate."""
    size = 2 * 16000 * n_channels
    return (
        b"RIFF"
        + struct.pack("<I", size + 36)
        + b"WAVEfmt "
        + struct.pack(
            "<IHHIIHH",
            16,
            1,
            n_channels,
            sample_rate,
            0,
            2 * n_channels,
            16,
        )  # fmt: skip
        + b"data"
        + struct.pack("<I", size)
        + bytes(size)
    )


def dangling(path):
    path.symlink_to("../annex/objects/x.wav")


def link_to_itself(path):
    path.symlink_to(path.name)


def link_to_folder_above(path):
    path.with_suffix("").symlink_to("..")


def hidden(path):
    path.with_name("._0.wav").write_bytes(b"\0\5\x16\7")


def in_hidden_folder(path):
    write_voice(path.parent / ".trash" / "x.wav", 1, 1)


def of_a_file_server(path):
    write_voice(path.parent / "@eaDir" / "x.wav", 1, 1)


def gsm(path):
    soundfile.write(path, np.zeros(16000), 8000, subtype="GSM610")


def short(path):
    soundfile.write(path, np.zeros(399), 16000)


def infinite(path):
    wav = np.zeros(16000)
    wav[5000] = -np.inf
    soundfile.write(path, wav, 16000, subtype="DOUBLE")


def not_utf8(path):
    name = os.fsencode(path.parent) + b"/M\xfcller.wav"
    with open(name, "wb") as file:
        file.write(header_of(16000))


ODD = {
    hidden: ("spk0/._0.wav", "hidden"),
    in_hidden_folder: ("spk0/.trash", "hidden"),
    of_a_file_server: ("spk0/@eaDir", "a folder of the system"),
    dangling: ("spk0/odd.wav", "a link to what is missing"),
    link_to_itself: ("spk0/odd.wav", "a link to itself"),
    link_to_folder_above: ("spk0/odd", "a link to a folder that it is in"),
    lambda path: os.mkfifo(path): ("spk0/odd.wav", "not a regular file"),
    gsm: ("spk0/odd.wav", "GSM 6.10 has no random access"),
    short: ("spk0/odd.wav", "too short: 0.02 s"),
    infinite: ("spk0/odd.wav", "infinite samples"),
    not_utf8: ("spk0/M\\xfcller.wav", "its name is not UTF-8"),
    lambda path: path.write_bytes(header_of(1)): ("spk0/odd.wav", "rate of 1 Hz"),
    lambda path: path.write_bytes(header_of(2 * 10**9)): (
        "spk0/odd.wav", "rate of 2000000000 Hz",
    ),
    lambda path: path.write_bytes(header_of(44101)): (
        "spk0/odd.wav", "44101 Hz has too small a divisor",
    ),
    lambda path: path.write_bytes(b""): ("spk0/odd.wav", "unreadable"),
    lambda path: write_voice(path.parents[1] / "x.wav", 1, 1): (
        "x.wav", "in no speaker's folder",
    ),
    lambda path: (path.parents[1] / "spk11").symlink_to("/nowhere"): (
        "spk11", "a link to what is missing",
    ),
    lambda path: path.symlink_to("1.wav"): ("spk0/odd.wav", "the same recording as"),
    lambda path: path.hardlink_to(path.with_name("1.wav")): (
        "spk0/odd.wav", "the same recording as",
    ),
    lambda path: write_voice(path.with_name("1.FLAC"), 0, 1): (
        "spk0/1.FLAC", "the same recording as",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "make", ODD, ids=[f"{place}-{reason}" for place, reason in ODD.values()]
)
def test_odd_file_is_named_and_left_out(corpus, tmp_path, make, caplog):
    make(corpus / "spk0" / "odd.wav")
    place, reason = ODD[make]
    paths = prepare(corpus, tmp_path, min_duration=0)
    found = reasons(tmp_path)
    assert set(found) == {place} and reason in found[place]
    assert "eft out" in caplog.text and reason in caplog.text
    known = prepared(paths)
    assert {f"spk{s}/{u}.wav" for s in range(10) for u in range(4)} >= known
    for split in ("valid", "test"):
        assert read_trials(paths[f"{split}_trials"]).utterances() <= known


def test_hidden_files_do_not_count_as_broken(corpus, tmp_path):
    for path in list(corpus.rglob("*.wav")):
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    paths = prepare(corpus, tmp_path, allow_broken=False)
    assert len(prepared(paths)) == 40
    assert Counter(reasons(tmp_path).values()) == {"hidden": 40}


def test_dangling_links_count_as_broken(corpus, tmp_path):
    dangling(corpus / "spk0" / "annexed.wav")
    with pytest.raises(InputError, match="1 of 41 .*annexed.wav.*allow_broken"):
        prepare(corpus, tmp_path, allow_broken=False)


def test_links_to_one_another_end(corpus, tmp_path):
    (corpus / "spk0" / "a").symlink_to("../spk1")
    (corpus / "spk1" / "b").symlink_to("../spk0")
    paths = prepare(corpus, tmp_path)
    assert len({Path(name).name for name in prepared(paths)}) == 4
    wavs = {
        os.path.realpath(item["wav"])
        for split in ("train", "valid", "test")
        for item in read_manifest(paths[split]).values()
    }
    assert len(wavs) == len(prepared(paths)) == 40


def test_link_to_another_disk_is_followed(corpus, tmp_path):
    os.rename(corpus / "spk0", tmp_path / "elsewhere")
    (corpus / "spk0").symlink_to(tmp_path / "elsewhere")
    assert len(prepared(prepare(corpus, tmp_path))) == 40
    assert not reasons(tmp_path)


@pytest.mark.parametrize("formats", [("wav", "flac"), ("flac", "ogg", "mp3")])
def test_a_recording_in_several_formats_is_one(tmp_path, formats):
    for speaker in range(8):
        for utterance in range(3):
            for extension in formats:
                path = tmp_path / f"corpus/spk{speaker}/{utterance}.{extension}"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, np.zeros(16000), 16000)
    paths = prepare(tmp_path / "corpus", tmp_path, test_speakers=2)
    assert {Path(name).suffix for name in prepared(paths)} == {f".{formats[0]}"}
    assert len(reasons(tmp_path)) == 24 * (len(formats) - 1)


def test_a_format_that_is_missing_gives_way(corpus, tmp_path):
    write_voice(corpus / "spk0/9.flac", 0, 9)
    dangling(corpus / "spk0/9.wav")
    assert "spk0/9.flac" in prepared(prepare(corpus, tmp_path))


@pytest.mark.parametrize(
    "second", ["001/0.wav", "001/9.wav"], ids=["equal files", "equal speakers"]
)
def test_equal_names_below_two_roots_are_refused(tmp_path, second):
    for speaker in range(3):
        write_voice(tmp_path / f"first/{speaker:03}/0.wav", speaker, 0)
    write_voice(tmp_path / "second" / second, 5, 0)
    roots = [tmp_path / "first", tmp_path / "second"]
    for folders in (roots, roots[::-1]):
        with pytest.raises(InputError, match="speaker '001' is in .*below one root"):
            prepare(folders, tmp_path)


def test_roots_with_other_names_are_taken_together(corpus, tmp_path):
    write_voice(tmp_path / "second/anna/0.wav", 5, 0)
    write_voice(tmp_path / "second/anna/1.wav", 5, 1)
    paths = prepare([corpus, tmp_path / "second"], tmp_path)
    assert len(prepared(paths)) == 42


def test_other_folders_beside_the_speakers_of_voxceleb(tmp_path):
    root = tmp_path / "vox1"
    for name in ("id10001", "id10002", "notes", "@eaDir", "id1"):
        write_voice(root / "wav" / name / "session" / "00001.wav", 1, 1)
    write_voice(root / "wav" / "00001.wav", 1, 1)
    (root / "wav" / "id10003").symlink_to("nowhere")
    utterances, left_out = get_corpus("voxceleb1").list_utterances([root])
    assert [u.speaker for u in utterances] == ["id10001", "id10002"]
    assert {Path(path).name: reason for path, reason in left_out} == {
        "notes": "not the name of a speaker",
        "id1": "not the name of a speaker",
        "@eaDir": "a folder of the system",
        "00001.wav": "in no speaker's folder",
        "id10003": "a link to what is missing",
    }


def test_one_recording_of_voxceleb_below_two_roots(tmp_path):
    for folder in ("dev/wav", "dev/aac"):
        extension = "wav" if folder == "dev/wav" else "flac"
        path = tmp_path / folder / "id00012" / "xyz" / f"00001.{extension}"
        write_voice(path, 1, 1)
    utterances, left_out = get_corpus("voxceleb2").list_utterances([tmp_path] * 2)
    assert [u.id for u in utterances] == ["id00012/xyz/00001.wav"]
    assert len(left_out) == 3


def test_root_that_is_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/M\xfcller"
    os.mkdir(folder)
    with pytest.raises(InputError, match=r"name of .*M\\xfcller' is not UTF-8"):
        prepare(os.fsdecode(folder), tmp_path)


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3", "m4a"])
@pytest.mark.parametrize("read", [read_header, lambda path: read_crop(path, 16000)])
def test_missing_file_is_said_to_be_missing(tmp_path, read, extension):
    with pytest.raises(InputError, match="there is no such file"):
        read(tmp_path / f"a.{extension}")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("read", [read_header, lambda path: read_crop(path, 16000)])
def test_what_is_no_file_is_not_opened(tmp_path, make, read):
    make(tmp_path / "a.wav")
    with pytest.raises(InputError, match="not a regular file"):
        read(tmp_path / "a.wav")


@pytest.mark.parametrize("read", [read_header, lambda path: read_crop(path, 16000)])
def test_raw_samples(tmp_path, read):
    (tmp_path / "a.RAW").write_bytes(bytes(32000))
    with pytest.raises(InputError, match="raw samples have no header"):
        read(tmp_path / "a.RAW")


@pytest.mark.parametrize("augmentation", [AddedRecordings, RecordedNoise])
def test_broken_noise_is_named(tmp_path, augmentation):
    (tmp_path / "hum.wav").write_bytes(b"nothing")
    with pytest.raises(InputError, match="hum.wav': unreadable"):
        augmentation(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path, value):
    wav = np.zeros(16000)
    wav[5000] = value
    soundfile.write(tmp_path / "a.wav", wav, 16000, subtype="FLOAT")
    kind = "NaN" if np.isnan(value) else "infinite"
    with pytest.raises(InputError, match=f"^{kind} samples"):
        read_header(tmp_path / "a.wav")
    with pytest.raises(InputError, match=f"a.wav' cannot be decoded .{kind} samples"):
        read_crop(tmp_path / "a.wav", 16000)
    assert len(read_crop(tmp_path / "a.wav", 16000, 0.5, 0.1)) == 1600


def test_header_is_not_the_whole_file(tmp_path, monkeypatch):
    """However long a file is, few of its samples are read."""
    n_read = []

    class Counting(soundfile.SoundFile):
        def read(self, *arguments, **options):
            samples = super().read(*arguments, **options)
            n_read.append(len(samples))
            return samples

    monkeypatch.setattr(audio.soundfile, "SoundFile", Counting)
    monkeypatch.setattr(audio, "BLOCK", 100)
    monkeypatch.setattr(audio, "MAX_BLOCKS", 10)
    for subtype, expected in (("PCM_16", 1600), ("FLOAT", 1000)):
        soundfile.write(tmp_path / "a.wav", np.zeros(160000), 16000, subtype)
        n_read.clear()
        assert read_header(tmp_path / "a.wav").n_samples == 160000
        assert sum(n_read) == expected
    # A short one is checked as a whole, whatever remains of a block.
    soundfile.write(tmp_path / "a.wav", np.zeros(950), 16000, "FLOAT")
    n_read.clear()
    read_header(tmp_path / "a.wav")
    assert n_read == [100] * 9 + [50]

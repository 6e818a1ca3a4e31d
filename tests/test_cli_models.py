"""Commands that use a model: on files, folders, lists, galleries and trials."""

import json
import os
import shutil
import stat
import subprocess
import sys

import click
import numpy as np
import pytest
import soundfile
import torch
from conftest import SHARED, write_voice
from processes import run_python

from speechbrain_ext.cli import COMMANDS, commands, main, options
from speechbrain_ext.cli import embed as embed_command
from speechbrain_ext.cli import export as export_command
from speechbrain_ext.cli import lay_out_corpus as layout_command
from speechbrain_ext.cli import random_encoder as encoder_command
from speechbrain_ext.dataio import speech
from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.dataio.corpora import layouts
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.embeddings import read_embeddings
from speechbrain_ext.dataio.speech import doubt_about, speech_seconds
from speechbrain_ext.inference.export import ENCODERS, export_model
from speechbrain_ext.inference.sources import load_model
from speechbrain_ext.lobes.encoders.random_encoder import FAMILIES
from speechbrain_ext.processing.backends import AVERAGES
from speechbrain_ext.processing.score_norm import KINDS


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    """A folder of three speakers with three recordings each."""
    root = tmp_path_factory.mktemp("speakers")
    for speaker, name in enumerate(("ann", "bob", "eve")):
        for utterance in range(3):
            write_voice(root / name / f"{utterance}.wav", 4 * speaker, utterance)
    return root


@pytest.fixture
def own_model(training, tmp_path):
    """A model folder that a test may change."""
    return export_model(training, tmp_path / "model")


def output_of(capsys, *arguments):
    """Lines that a command prints, its exit status, and what it says beside."""
    capsys.readouterr()
    status = 0
    try:
        main(list(arguments))
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    return captured.out.splitlines(), status, captured.err


@pytest.mark.parametrize("kind", ["safetensors", "csv", "scp", "parquet", "-", "json"])
def test_embeddings_in_every_format(kind, speakers, model_folder, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    output = ["--output", kind if kind == "-" else str(tmp_path / f"e.{kind}")]
    if kind == "json":
        output = ["--json"]
    lines, status, _ = output_of(
        capsys, "embed", str(model_folder), str(speakers), *output
    )
    assert status == 0
    model = load_model(model_folder)
    expected = model.encode_file(speakers / "bob/1.wav")
    if kind == "json":
        found = {row["id"]: row["embedding"] for row in map(json.loads, lines)}
        own = torch.tensor(found["bob/1.wav"])
    elif kind in ("csv", "-"):
        if kind == "csv":
            lines = (tmp_path / "e.csv").read_text().splitlines()
        assert lines[0].startswith("id,speaker,duration,e0,")
        found = {line.split(",")[0]: line.split(",") for line in lines[1:]}
        assert found["bob/1.wav"][1] == "bob"
        own = torch.tensor([float(number) for number in found["bob/1.wav"][3:]])
        if kind == "csv":
            store = read_embeddings(tmp_path / "e.csv")
            assert store.speaker_of()["bob/1.wav"] == "bob"
            torch.testing.assert_close(store.by_id()["bob/1.wav"], own)
    elif kind == "parquet":
        from pyarrow import parquet

        found = parquet.read_table(tmp_path / "e.parquet").to_pylist()
        own = {row["id"]: torch.tensor(row["embedding"]) for row in found}
        own = own["bob/1.wav"]
    else:
        found = read_embeddings(tmp_path / f"e.{kind}").by_id()
        own = found["bob/1.wav"]
    assert len(found) == 9
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {f"e.{kind}", "e.ark"}


def test_lists_patterns_and_what_is_there_already(
    speakers, model_folder, tmp_path, capsys, monkeypatch
):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{speakers}/ann/0.wav\n\n{speakers}/eve/2.wav\n")
    output = tmp_path / "e.safetensors"
    monkeypatch.setattr("sys.stdin", listed.open())
    embed = ["embed", str(model_folder)]
    lines, status, _ = output_of(capsys, *embed, "-", "--output", str(output), "--json")
    first = json.loads(lines[0])
    assert status == 0 and first["recordings"] == 2
    assert first["seconds_embedded_now"] == first["seconds"] > 0

    # The speed is of what is embedded now, not of what was there.
    three = [str(speakers / name) for name in ("ann/0.wav", "eve/2.wav", "bob/1.wav")]
    lines, _, _ = output_of(capsys, *embed, *three, "--output", str(output), "--json")
    more = json.loads(lines[0])
    own = more["seconds"] - first["seconds"]
    assert more["recordings"] == 3
    assert more["seconds_embedded_now"] == pytest.approx(own) and own > 0

    class NoModel:
        device = torch.device("cpu")

        def __init__(self, model):
            self.sample_rate, self.fingerprint = model.sample_rate, model.fingerprint

        def encode_batch(self, wavs, lengths):
            raise AssertionError("embedded again")

    embedded = load_model(model_folder)
    monkeypatch.setattr(
        "speechbrain_ext.inference.sources.load_model",
        lambda *a, **k: NoModel(embedded),
    )
    pattern = [str(speakers / "ann/0*.wav"), "--output", str(output)]
    lines, status, err = output_of(capsys, *embed, *pattern)
    assert status == 0 and "1 recordings" in lines[0], err
    assert "embedded now: none, all were there" in lines[0]


def test_recordings_that_say_little(speakers, model_folder, tmp_path, capsys):
    short, silent = tmp_path / "short.wav", tmp_path / "silent.wav"
    soundfile.write(short, 0.1 * np.random.default_rng(0).normal(size=4800), 16000)
    soundfile.write(silent, np.zeros(32000), 16000)
    output = tmp_path / "e.safetensors"
    files = [str(short), str(silent), str(speakers / "ann/0.wav")]
    command = ["embed", str(model_folder), *files, "--output", str(output)]
    _, status, err = output_of(capsys, *command)
    assert status == 0
    assert f"warning: '{short}': it has 0.30 s only" in err
    assert f"warning: '{silent}': it is silent" in err
    assert "ann" not in err
    assert EmbeddingStore.load(output).embeddings.isfinite().all()
    pytest.importorskip("silero_vad")
    _, status, err = output_of(capsys, *command, "--min_speech", "0.5")
    assert status == 2
    assert err.count("s of speech, less than 0.5 s; left out") == 3  # tones too
    _, status, err = output_of(
        capsys, "verify", str(model_folder), files[1], files[2], "--min-speech", "0.5"
    )
    assert status == 2 and f"error: '{silent}': it has 0.00 s of speech" in err


def test_speech_of_people_is_found(model_folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("silero_vad")
    corpus = SHARED / "corpus" / "librispeech_sample" / "audio"
    recordings = sorted(corpus.glob("*/*.opus"))[:2]
    if not recordings:
        pytest.skip(f"needs the real speech of {corpus}")
    monkeypatch.setattr(speech, "BLOCK", 8.0)
    rng = np.random.default_rng(0)
    for recording in recordings:
        wav = read_crop(recording, 16000, 0.0, 6.0).numpy()
        alone, late = tmp_path / "alone.wav", tmp_path / "late.wav"
        soundfile.write(alone, wav, 16000)
        # After more than a block of nothing but faint noise
        noise = 1e-4 * rng.normal(size=10 * 16000)
        soundfile.write(late, np.concatenate([noise, wav]), 16000)
        seconds = speech_seconds(alone)
        assert 2.0 < seconds <= 6.0
        assert speech_seconds(late) == pytest.approx(seconds, abs=0.5)
        assert doubt_about(late, 1.5) is None
        assert "of speech, less than 6.5 s" in doubt_about(late, 6.5)
    command = ["embed", str(model_folder), *map(str, recordings)]
    command += ["--output", str(tmp_path / "e.safetensors"), "--min_speech", "2"]
    _, status, err = output_of(capsys, *command)
    assert (status, err) == (0, "")
    assert len(EmbeddingStore.load(tmp_path / "e.safetensors").ids) == 2


def test_no_more_speech_is_sought_than_is_needed(tmp_path, monkeypatch):
    blocks, path = [], tmp_path / "long.wav"
    soundfile.write(path, np.zeros(150 * 16000), 16000)

    def find(block, model, sampling_rate):
        blocks.append(len(block) / sampling_rate)
        return [{"start": 0, "end": sampling_rate}]

    monkeypatch.setattr(speech, "_silero", lambda: (find, None))
    assert speech_seconds(path) == 3.0 and blocks == [60.0, 60.0, 30.0]
    assert doubt_about(path, 1.5) is None and len(blocks) == 3 + 2


def test_broken_files_are_named_before_the_work(
    speakers, model_folder, tmp_path, capsys
):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    inputs = [str(broken), str(speakers), "--output", str(tmp_path / "e.csv")]
    _, status, err = output_of(capsys, "embed", "no model is looked at", *inputs)
    assert status == 2 and f"error: '{broken}': unreadable" in err
    command = ["embed", str(model_folder), *inputs, "--skip_broken", "--json"]
    lines, status, err = output_of(capsys, *command)
    assert status == 0 and "broken.wav" in err
    record = json.loads(lines[0])
    assert record["recordings"] == 9 and record["left_out"] == [str(broken)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["a.wav"], "give --output, or --json"),
        (["a.wav", "--output", "x.npy"], "embeddings are written as"),
        (["a.wav", "--output", "-", "--json"], "both print"),
        (["nothing.wav", "--output", "x.csv"], "'nothing.wav': there is no such file"),
        (["no*.wav", "--output", "x.csv"], "no file has a name like 'no\\*.wav'"),
        ([".", "--output", "x.csv"], "'.' has no recordings"),
    ],
)
def test_what_cannot_be_embedded(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as error:
        main(["embed", "model", *arguments])
    assert error.value.code == 2


@pytest.mark.parametrize("kind", ["training", "model_folder"])
def test_verify(kind, speakers, request, capsys):
    source = str(request.getfixturevalue(kind))
    files = [str(speakers / "ann/0.wav"), str(speakers / "bob/1.wav")]
    score = load_model(source).verify_files(*files).score.item()
    for threshold, same in ((score - 0.1, True), (score + 0.1, False)):
        command = ["verify", source, *files, "--threshold", str(threshold)]
        lines, status, _ = output_of(capsys, *command, "--json", "--exit-code")
        (line,) = lines
        record = json.loads(line)
        assert record["score"] == pytest.approx(score, abs=1e-5)
        assert record["same_speaker"] is same and status == (0 if same else 1)
        lines, status, _ = output_of(capsys, *command)
        assert status == 0
        assert lines[0].startswith("same speaker" if same else "different speakers")
    lines, _, err = output_of(capsys, "verify", source, *files)
    assert "threshold 0.4321, from EER of the validation trials of folder" in lines[0]
    assert err == ""  # quiet when piped


def test_programs_that_are_piped_print_the_result_alone(
    training, model_folder, speakers, tmp_path
):
    voices = [speakers / "ann/0.wav", speakers / "eve/0.wav"]
    for arguments, result in (
        (["verify", model_folder, *voices, "--json"], '{"first": '),
        (["export", training, tmp_path / "model"], str(tmp_path / "model")),
        (["info", training], "encoder: SSLEncoder"),
    ):
        done = run_python(["-m", "speechbrain_ext", *arguments])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(result)


def test_gallery(speakers, model_folder, tmp_path, capsys):
    source, gallery = str(model_folder), tmp_path / "gallery"
    where = ["--gallery", str(gallery)]
    for name in ("ann", "bob", "eve"):
        files = [str(speakers / name / f"{i}.wav") for i in range(2)]
        _, status, _ = output_of(capsys, "enrol", source, name, *files, *where)
        assert status == 0
    assert stat.S_IMODE(os.stat(gallery).st_mode) == 0o700
    for file in gallery.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    test = speakers / "bob/2.wav"
    command = ["identify", source, str(test), *where, "--top", "2", "--json"]
    lines, status, _ = output_of(capsys, *command)
    assert status == 0
    record = json.loads(lines[0])
    model = load_model(source)
    for name in ("ann", "bob", "eve"):
        model.enrol(name, [speakers / name / f"{i}.wav" for i in range(2)])
    expected = model.identify(test)
    assert [one["name"] for one in record["candidates"]] == [
        one.name for one in expected[:2]
    ]
    for one, other in zip(record["candidates"], expected):
        assert one["score"] == pytest.approx(other.score, abs=1e-5)
    lines, _, _ = output_of(capsys, *command[:-1], "--threshold", "2")
    assert lines[0].startswith(f"{test}: nobody enrolled")

    # One more recording, and the same one again
    for _ in range(2):
        main(["enrol", source, "ann", str(speakers / "ann/2.wav"), *where])
    main(["gallery", "rename", str(gallery), "ann", "anna"])
    main(["gallery", "delete", str(gallery), "eve"])
    lines, _, _ = output_of(capsys, "gallery", "list", str(gallery), "--json")
    listed = {row["name"]: len(row["recordings"]) for row in map(json.loads, lines)}
    assert listed == {"bob": 2, "anna": 3}
    for arguments, message in (
        (["delete", str(gallery), "eve"], "'eve' is not enrolled"),
        (["rename", str(gallery), "bob", "anna"], "'anna' is enrolled already"),
        (["list", str(tmp_path)], "is no gallery and not empty"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["gallery", *arguments])


def test_a_recording_that_is_given_twice_is_enrolled_once(
    speakers, model_folder, tmp_path, capsys
):
    gallery, recording = str(tmp_path / "gallery"), str(speakers / "ann/0.wav")
    lines, _, _ = output_of(
        capsys, "enrol", str(model_folder), "ann", recording, recording,
        "--gallery", gallery, "--json",
    )  # fmt: skip
    assert json.loads(lines[0])["recordings"] == [recording]
    with pytest.raises(SystemExit, match="there is no gallery '.*other'"):
        main(["gallery", "list", str(tmp_path / "other")])


def test_hidden_files_are_not_embedded(speakers, model_folder, tmp_path, capsys):
    shutil.copytree(speakers, tmp_path / "copy")
    (tmp_path / "copy/ann/._0.wav").write_bytes(b"Mac OS X")
    output = tmp_path / "e.csv"
    _, status, _ = output_of(
        capsys, "embed", str(model_folder), str(tmp_path / "copy"),
        "--output", str(output),
    )  # fmt: skip
    assert status == 0 and len(read_embeddings(output).ids) == 9


def test_places_and_names_are_tried_before_the_work(
    speakers, model_folder, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    (tmp_path / "a b.wav").write_bytes((speakers / "ann/0.wav").read_bytes())
    monkeypatch.setattr(embed_command, "load", None)  # nothing is loaded
    embed = ["embed", str(model_folder), str(tmp_path / "a b.wav"), "--output"]
    for output, message in (
        ("file/e.csv", "file' is a file; .* needs a folder in its place"),
        ("e.scp", "a b.wav': names in Kaldi's files have no space"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([*embed, str(tmp_path / output)])


@pytest.mark.parametrize("source", ["training", "model_folder"])
@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there(source, device, speakers, request):
    source, recording = request.getfixturevalue(source), str(speakers / "ann/0.wav")
    with pytest.raises(SystemExit, match=f"PyTorch has no {device} here"):
        main(["verify", str(source), recording, recording, "--device", device])


def test_a_source_that_is_a_file(training, speakers):
    recording = str(speakers / "ann/0.wav")
    with pytest.raises(SystemExit, match="is a file; give the folder of a training"):
        main(["verify", str(training / "hyperparams.yaml"), recording, recording])


def test_names_with_line_breaks_are_one_line(model_folder, capsys):
    with pytest.raises(SystemExit, match=r"^error: 'a\\nb\\xa0.wav': there is no such"):
        main(["verify", str(model_folder), "a\nb\u00a0.wav", "c.wav"])


def test_gallery_of_another_model(speakers, model_folder, tmp_path):
    from speechbrain_ext.inference.gallery import Gallery

    model, gallery = load_model(model_folder), Gallery(tmp_path / "gallery")
    embedding = model.embed_files([speakers / "ann/0.wav"])
    gallery.enrol("ann", ["0.wav"], embedding, [1.2], model.fingerprint)
    with torch.no_grad():
        next(model.embedding_model.parameters()).mul_(2)
    with pytest.raises(ValueError, match="enrolled with another model"):
        gallery.identify(model, embedding, [1.2])
    with pytest.raises(ValueError, match="enrolled with another model"):
        gallery.enrol("bob", ["1.wav"], embedding, [1.2], model.fingerprint)


def test_index_of_a_gallery(own_model, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    from speechbrain_ext.inference.gallery import INDEX, Gallery
    from speechbrain_ext.processing.search import EmbeddingSearch

    built = []
    build = EmbeddingSearch.build_index
    monkeypatch.setattr(
        EmbeddingSearch, "build_index", lambda self: built.append(build(self))
    )
    monkeypatch.setattr(EmbeddingSearch, "searches_worth_an_index", 3)
    model, folder = load_model(own_model), tmp_path / "gallery"
    torch.manual_seed(0)
    voices, gallery = torch.randn(30, 12), Gallery(folder)
    for i, voice in enumerate(voices):
        name = f"speaker {i // 2}"
        gallery.enrol(name, [f"{i}.wav"], voice[None], [2.0], model.fingerprint)

    def names(gallery, n_recordings):
        found = gallery.identify(model, voices[:n_recordings], [2.0] * n_recordings)
        return [candidates[0].name for candidates in found]

    # Few searches are not worth an index; all that one program makes may be.
    assert names(gallery, 1) == names(gallery, 1) == ["speaker 0"]
    assert not built and not (folder / INDEX).exists()
    assert names(gallery, 2) == ["speaker 0"] * 2
    assert names(gallery, 4) == ["speaker 0"] * 2 + ["speaker 1"] * 2
    assert len(built) == 1 and stat.S_IMODE(os.stat(folder / INDEX).st_mode) == 0o600
    # The next program finds it from its first search.
    assert names(Gallery(folder), 1) == ["speaker 0"]
    assert len(built) == 1
    # Nobody who was deleted, here or by another program, is left in it.
    Gallery(folder).delete("speaker 0")
    assert not (folder / INDEX).exists()
    assert "speaker 0" not in names(gallery, 4) and len(built) == 2
    # An index that is of another gallery counts for nothing.
    kept = (folder / INDEX).read_bytes()
    gallery.rename("speaker 1", "anna")
    gallery.delete("speaker 2")
    (folder / INDEX).write_bytes(kept)
    assert names(Gallery(folder), 4)[2:] == ["anna", "anna"]
    assert len(built) == 3


@pytest.mark.parametrize(
    "given, point",
    [
        ([], "EER of 36 trials of trials.txt (95 % interval "),
        (["--far", "0"], "FAR 0 % of 36 trials"),
        (["--p_target", "0.5", "--c-miss", "2"], "minDCF at p_target=0.5, c_miss=2"),
    ],
)
def test_tune(given, point, speakers, own_model, tmp_path, capsys):
    names = [f"{s}/{i}.wav" for s in ("ann", "bob", "eve") for i in range(3)]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]]
    trials = tmp_path / "trials.txt"
    trials.write_text("".join(f"{int(a[:3] == b[:3])} {a} {b}\n" for a, b in pairs))
    command = ["tune", str(own_model), str(trials), "--data_folder", str(speakers)]
    names_of_files = ("calibration.json", "README.md")
    before = [(own_model / name).read_text() for name in names_of_files]
    lines, status, err = output_of(capsys, *command, *given, "--json", "--dry_run")
    assert status == 0, err
    assert [(own_model / name).read_text() for name in names_of_files] == before
    _, status, _ = output_of(capsys, *command, *given)
    assert status == 0
    model = load_model(own_model)
    record = json.loads(lines[0])
    assert model.threshold == pytest.approx(record["threshold"])
    assert point in model.scoring.threshold_from
    # The model card says so too, and is otherwise as it was.
    card = (own_model / "README.md").read_text()
    written = f"one speaker above {model.threshold:.4f}, which is from: "
    assert written + point in " ".join(card.split()) and "0.4321" not in card
    kept = [text.partition("## Decisions") for text in (card, before[1])]
    assert kept[0][0] == kept[1][0]
    assert kept[0][2].partition("\n## ")[2] == kept[1][2].partition("\n## ")[2]
    scores = {
        pair: model.verify_files(*(speakers / name for name in pair)).score.item()
        for pair in pairs
    }
    # The threshold is one of the scores, which single recordings round otherwise.
    threshold = model.threshold + 1e-6
    accepted = {
        same: [scores[a, b] > threshold for a, b in pairs if (a[:3] == b[:3]) == same]
        for same in (True, False)
    }
    assert record["far"] == pytest.approx(sum(accepted[False]) / len(accepted[False]))
    assert record["frr"] == pytest.approx(1 - sum(accepted[True]) / len(accepted[True]))
    assert record["far"] == 0 or "--far" not in given
    low, high = record["interval"]
    assert low <= high and min(scores.values()) <= low and high <= max(scores.values())
    lines, _, _ = output_of(
        capsys, "verify", str(own_model), *(str(speakers / n) for n in names[:2])
    )
    assert point.split(" of ")[0] in lines[0]


def test_a_threshold_that_cannot_be_kept(training, tmp_path):
    with pytest.raises(SystemExit, match="the threshold cannot be kept"):
        main(["tune", str(training), str(tmp_path / "trials.txt")])
    with pytest.raises(SystemExit, match="--far goes with none of"):
        main(["tune", str(training), "t.txt", "--far", "0.1", "--c_miss", "2"])


@pytest.mark.parametrize("kind", ["training", "model_folder"])
def test_info(kind, request, capsys):
    lines, status, _ = output_of(
        capsys, "info", str(request.getfixturevalue(kind)), "--json"
    )
    record = json.loads(lines[0])
    assert status == 0
    assert record["scoring"]["threshold"] == 0.4321
    assert record["parameters"]["embedding_model"] > 1000
    assert record["sample_rate"] == 16000


def test_doctor(capsys):
    lines, status, _ = output_of(capsys, "doctor", "--json")
    found = {row["subject"]: row for row in map(json.loads, lines)}
    assert status == 0
    assert torch.__version__.startswith(found["torch"]["text"])
    assert {".wav", ".flac", ".m4a", "bfloat16", "cuda"} <= set(found)
    assert found[".flac"]["works"] is True
    assert all(row["remedy"] for row in found.values() if row["works"] is False)


def test_choices_are_those_of_the_library():
    assert options.SCORE_NORMS == tuple(KINDS)
    assert options.AVERAGES == tuple(AVERAGES)
    assert export_command.ENCODERS == tuple(ENCODERS)
    assert encoder_command.FAMILIES == tuple(FAMILIES)
    assert layout_command.LAYOUTS == tuple(sorted(layouts()))


def test_every_option_has_a_help():
    context = commands.make_context("speechbrain-ext", ["doctor"])
    for name in COMMANDS:
        command = commands.get_command(context, name)
        parts = getattr(command, "commands", {name: command}).values()
        for part in parts:
            assert part.get_short_help_str(200)
            for option in part.params:
                if isinstance(option, click.Option):
                    assert option.help, f"{name} {option.name}"


def test_help_version_and_completion_load_no_torch():
    code = (
        "import sys; from speechbrain_ext.cli import COMMANDS, main\n"
        "for arguments in (['--help'], ['--version'], ['completion', 'bash'],\n"
        "                  *([name, '--help'] for name in COMMANDS)):\n"
        "    main(arguments)\n"
        "print([m for m in ('torch', 'numpy', 'speechbrain') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "speechbrain-ext, version " in done.stdout
    assert "complete" in done.stdout
    assert "speechbrain-ext verify ltdnn a.wav b.wav" in done.stdout


def test_module_reads_standard_input_and_exits_with_2(tmp_path):
    command = [sys.executable, "-m", "speechbrain_ext"]
    done = subprocess.run(
        [*command, "eval", "-", "--json"], input="a b 1 0.9\na c 0 0.1\n",
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["EER"] == 0 and done.stderr == ""
    done = subprocess.run(
        [*command, "evil"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: No such command 'evil'.")


def test_scores_to_standard_output_and_debug(tmp_path, capsys):
    store = EmbeddingStore(
        ["a", "b", "c"], torch.eye(3) + 0.1, ["a", "b", "c"], [1.0] * 3, "f"
    )
    store.save(tmp_path / "e.safetensors")
    (tmp_path / "s.txt").write_text("a b 1 0.5\nb c 0 0.4\n")
    embeddings = str(tmp_path / "e.safetensors")
    command = ["norm", str(tmp_path / "s.txt"), "--embeddings", embeddings]
    command += ["--cohort", embeddings, "--output"]
    lines, status, err = output_of(capsys, *command, "-")
    assert status == 0 and "EER" in err
    main([*command, str(tmp_path / "n.txt")])
    assert lines == (tmp_path / "n.txt").read_text().splitlines()
    _, status, err = output_of(capsys, "eval", "nothing.txt", "--debug")
    assert status == 2 and "Traceback" in err


def test_several_values_of_an_option(tmp_path, capsys):
    (tmp_path / "s.txt").write_text("a b 1 3\na c 1 -1\na d 0 1\na e 0 -2\n")
    texts = [
        output_of(capsys, "eval", *arguments)[0]
        for arguments in (
            [str(tmp_path / "s.txt"), "--frr", "0.5", "0"],
            [str(tmp_path / "s.txt"), "--frr", "0.5", "--frr", "0"],
        )
    ]
    assert texts[0] == texts[1]
    assert "FAR 50.00 % at FRR 0 %" in texts[0]

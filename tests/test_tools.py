"""Tools: corpora in other layouts through their recipes, the table of results."""

import csv
import json
from pathlib import Path

import pytest
import soundfile
import torch
from conftest import DATA, ECAPA, ROOT, TINY_ECAPA, run, write_voice
from processes import run_python

from speechbrain_ext.config import read_configuration
from speechbrain_ext.dataio.corpora.base import Utterance
from speechbrain_ext.dataio.layouts import lay_out_corpus, read_speakers
from speechbrain_ext.dataio.manifests import read_manifest, write_manifest
from speechbrain_ext.dataio.prepare import resolve_test_trials
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.training import results_table
from speechbrain_ext.training.grids import read_grid
from speechbrain_ext.training.results_table import (
    find_trainings,
    gains_rows,
    published_figures,
    read_published,
    relative_gains,
    table_rows,
)
from speechbrain_ext.utils.errors import InputError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Twenty speakers with three utterances each."""
    root = tmp_path_factory.mktemp("source")
    with open(root / "utterances.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "speaker", "gender", "age"])
        for speaker in range(20):
            for utterance in range(3):
                path = f"audio/{speaker:02}/{utterance}.wav"
                write_voice(root / path, speaker, utterance)
                writer.writerow([path, f"{speaker:02}", "fm"[speaker // 10], 30])
    return root / "utterances.csv"


RECIPES = {
    "voxceleb": (
        "VoxCeleb",
        {
            "dataset": "voxceleb1",
            "data_folder": "[{0}/VoxCeleb1, {0}/VoxCeleb2]",
            "verification_file": "{0}/VoxCeleb1/veri_test2.txt",
        },
    ),
    "librispeech": ("LibriSpeech", {"data_folder": "{0}"}),
    "vctk": (
        "VCTK",
        {
            "data_folder": "{0}",
            "verification_file": "{0}/trials-test.csv",
            "valid_verification_file": "{0}/trials-valid.csv",
        },
    ),
    "cnceleb": ("CNCeleb", {"data_folder": "{0}"}),
}
# Each of four models against each of four test utterances, which are files of
# their own beside those of the speakers
N_CNCELEB = {"files": 68, "n_target": 4, "n_nontarget": 12}
N_OTHERS = {"files": 60, "n_target": 12, "n_nontarget": 12}


@pytest.mark.parametrize("layout", RECIPES)
def test_layouts_run_through_their_recipes(table, tmp_path, layout):
    root = tmp_path / "corpus"
    lay_out_corpus(table, layout, root)
    files = sorted(p for p in root.rglob("*") if p.suffix in (".wav", ".flac"))
    expected = N_CNCELEB if layout == "cnceleb" else N_OTHERS
    assert len(files) == expected["files"]
    rate = 48000 if layout == "vctk" else 16000
    assert {soundfile.info(path).samplerate for path in files} == {rate}

    recipe, given = RECIPES[layout]
    given = {key: value.format(root) for key, value in given.items()}
    tiny = {
        key: value
        for key, value in TINY_ECAPA.items()
        if key not in ("dataset", "valid_speakers", "test_speakers")
    }
    options = {**tiny, **given, "output_folder": tmp_path / "out"}
    done = run(ROOT / "recipes" / recipe / "train.py", ECAPA, options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "out/test/metrics.json").read_text())
    for key in ("n_target", "n_nontarget"):
        assert metrics[key] == expected[key]
    assert metrics["system"] == "ecapa_fbank"
    assert metrics["dataset"] == given.get("dataset", layout)
    save = tmp_path / "out" / "save"
    for split, n_speakers in (("train", 14), ("valid", 2), ("test", 4)):
        manifest = read_manifest(save / f"{split}.csv")
        assert len({item["speaker"] for item in manifest.values()}) == n_speakers

    # The same without training
    script = next((ROOT / "recipes" / recipe).glob("*_prepare.py"))
    given["save_folder"] = tmp_path / "prepared"
    done = run_python([script, *(f"--{k}={v}" for k, v in given.items())])
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{tmp_path}/prepared/train.csv" in done.stdout.splitlines()
    for name in ("test_trials.txt", "valid_trials.txt", "train.csv"):
        text = (tmp_path / "prepared" / name).read_text()
        assert text == (save / name).read_text()
    del given["save_folder"]
    done = run_python([script, *(f"--{k}={v}" for k, v in given.items())])
    assert done.stderr.strip().splitlines()[-1] == "error: give --save_folder"


def test_trials_of_vctk_are_balanced_over_gender(table, tmp_path):
    lay_out_corpus(table, "vctk", tmp_path)
    trials = read_trials(tmp_path / "trials-test.csv")
    lines = (tmp_path / "speaker-info.txt").read_text().splitlines()[1:]
    gender_of = {line.split()[0]: line.split()[2] for line in lines}
    same = [
        gender_of[enrol.split("/")[0]] == gender_of[test.split("/")[0]]
        for label, enrol, test in zip(trials.labels, trials.enrol, trials.test)
        if not label
    ]
    assert len(same) == 12 and len(gender_of) == 20
    assert sum(same) == 6


def test_tables_that_are_something_else(tmp_path):
    with pytest.raises(InputError, match="no table"):
        read_speakers(tmp_path / "nowhere.csv")
    (tmp_path / "t.csv").write_text("path,speaker\na.wav,a\n")
    with pytest.raises(InputError, match="lacks gender, age"):
        read_speakers(tmp_path / "t.csv")


def test_results_table(corpus, tmp_path):
    results = tmp_path / "results"
    options = {**TINY_ECAPA, "data_folder": corpus, "number_of_steps": 3}
    for name, seed in (("wide", 1), ("wide", 2), ("narrow", 1)):
        given = {**options, "seed": seed, "output_folder": results / name / str(seed)}
        if name == "narrow":
            given["emb_dim"] = 8
        done = run(ROOT / "recipes/VoxCeleb/train.py", ECAPA, given, tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    command = ["-m", "speechbrain_ext.tools.results_table", results]
    done = run_python(command)
    assert done.returncode == 0, done.stderr[-3000:]
    with open(results / "results_table.csv", encoding="utf-8") as file:
        narrow, wide = csv.DictReader(file)
    metrics = [
        json.loads((results / f"wide/{seed}/test/metrics.json").read_text())
        for seed in (1, 2)
    ]
    assert (narrow["name"], wide["name"]) == ("narrow", "wide")
    assert (narrow["seeds"], wide["seeds"]) == ("1", "2")
    mean = 50 * sum(run["EER"] for run in metrics)
    assert wide["EER %"].startswith(f"{mean:.2f} (")
    assert int(wide["number of trials"]) == metrics[0]["n_target"] * 2
    for row in (narrow, wide):
        assert all(row[f"paper {m}"] == "" for m in results_table.METRICS)
        assert row["trials"] == "drawn"
        assert all(float(row[f"ms for {d} s"]) >= 0 for d in (2, 4, 8, 16, 32))
        assert f"--emb_dim={8}" in row["command"] or row is wide
    assert int(narrow["back-end parameters"]) < int(wide["back-end parameters"])
    assert (results / "costs.png").stat().st_size > 3000

    # What is measured is kept
    file = results / "wide/1/test/latency.json"
    kept = json.loads(file.read_text())
    assert kept["milliseconds"]["back_end"]["32"] > 0
    kept["milliseconds"]["back_end"]["2"] += 1e6
    file.write_text(json.dumps(kept))
    assert run_python(command).returncode == 0
    with open(results / "results_table.csv", encoding="utf-8") as file:
        assert float(list(csv.DictReader(file))[1]["ms for 2 s"]) > 1e6


def test_latency_is_of_this_model(tmp_path, monkeypatch, caplog):
    measured = []
    monkeypatch.setattr(
        results_table.SpeakerRecognition, "from_training", lambda run, *given: run
    )
    monkeypatch.setattr(
        results_table, "measure_latency", lambda run: measured.append(run) or {"2": 1.0}
    )
    hparams = tmp_path / "hyperparams.yaml"
    for content, n_measured in (("a: 1", 1), ("a: 1", 1), ("a: 2", 2)):
        hparams.write_text(content, encoding="utf-8")
        assert results_table.latency_of(tmp_path, "cpu") == {"2": 1.0}
        assert len(measured) == n_measured
    assert "latency.json' is of other hyperparams" in caplog.text


def test_latency_over_the_test_trials(voices, tmp_path, monkeypatch):
    manifest = tmp_path / "save" / "test.csv"
    manifest.parent.mkdir()
    write_manifest(
        manifest,
        [Utterance(path.stem, str(path), path.stem[:4], ()) for path in voices],
    )
    (tmp_path / "hyperparams.yaml").write_text("a: 1\n", "utf-8")
    (tmp_path / "test").mkdir()
    seconds = iter([9.0, 0.001, 0.005, 0.002])
    heard = []

    def time_parts(model, wav):
        heard.append(wav.shape)
        return 0.01, next(seconds)

    model = SpeakerRecognition(NormalizedFbank(20), torch.nn.Identity(), 16000, 0.5)
    monkeypatch.setattr(
        results_table.SpeakerRecognition, "from_training", lambda run, *given: model
    )
    monkeypatch.setattr(results_table, "time_parts", time_parts)
    for _ in range(2):  # the second time it is read
        latency = results_table.latency_over_trials(tmp_path, "cpu")
        assert latency == pytest.approx(12)
    assert heard == [(1, soundfile.info(path).frames) for path in voices]


def test_seeds_of_a_stage_belong_together(tmp_path):
    for seed in (2, 1):
        for stage in ("frozen", "joint"):
            folder = tmp_path / "lap" / str(seed) / stage / "test"
            folder.mkdir(parents=True)
            metrics = {"system": "lap_wavlm", "seed": seed}
            (folder / "metrics.json").write_text(json.dumps(metrics))
    verification = tmp_path / "lap" / "1" / "verification" / "test"
    verification.mkdir(parents=True)
    (verification / "metrics.json").write_text('{"EER": 0.1}')
    assert find_trainings(tmp_path) == {
        f"lap/{stage}": [tmp_path / "lap" / seed / stage for seed in "12"]
        for stage in ("frozen", "joint")
    }


def test_results_table_of_nothing(tmp_path):
    with pytest.raises(InputError, match="no test results"):
        find_trainings(tmp_path)


CELL = ["w2v_bert_mfa", "joint", "facebook/w2v-bert-2.0", "voxceleb2", "vox1-h"]


def test_published_figures_are_of_the_same_cell():
    assert published_figures(*CELL)["EER %"] == "1.15"
    assert "github.com" in published_figures(*CELL)["source"]
    for place, other in (
        (0, "lap_wavlm"), (1, "frozen"), (2, "microsoft/wavlm-large"),
        (3, "voxceleb1"), (4, "vox2-test"),
    ):  # fmt: skip
        changed = [*CELL[:place], other, *CELL[place + 1 :]]
        assert published_figures(*changed)["EER %"] != "1.15"


def test_all_cells_of_the_tables_are_there(tmp_path):
    """Against the list of cells, where it is at hand."""
    cells = [row for row in read_published() if "2409.07770" in row["source"]]
    assert len(cells) == 64
    keys = [(r["system"], r["encoder"], r["dataset"], r["trials"]) for r in cells]
    assert len(set(keys)) == 64
    vctk = published_figures("ltdnn_wavlm", None, "microsoft/wavlm-base", "vctk", None)
    assert list(vctk.values())[:3] == ["3.43", "3.55", "0.555"]
    hubert = "facebook/hubert-base-ls960"
    mfcc = published_figures("ecapa_mfcc", None, None, "librispeech", "trials-test.csv")
    assert list(mfcc.values())[:3] == ["2.45", "1.91", "0.117"]
    # The authors' lists, not the cleaned one
    cell = ["superb_ecapa", None, hubert, "voxceleb1"]
    assert published_figures(*cell, "vox1-o-original")["EER* %"] == "3.18"
    assert published_figures(*cell, "vox1-o")["EER* %"] == ""
    with open(DATA / "ltdnn_tables.csv", encoding="utf-8") as file:
        listed = [row for row in csv.DictReader(file) if row["table"] in ("I", "II")]
    assert len(listed) == 70
    metrics = {(row["eer_star"], row["eer"], row["mindcf"]) for row in listed}
    assert metrics == {tuple(row[m] for m in results_table.METRICS) for row in cells}


SYSTEMS = {
    "x-vector": "xvector_mfcc", "ECAPA-TDNN": "ecapa_mfcc",
    "Temporal mean": "ssl_mean_wavlm", "[CLS] insertion": "ssl_cls_wavlm",
    "L-TDNN": "ltdnn_wavlm", "SUPERB + x-vector": "superb_xvector",
    "SUPERB + ECAPA-TDNN": "superb_ecapa",
}  # fmt: skip
ENCODERS = {
    "MFCC": None, "wav2vec 2.0 base": "facebook/wav2vec2-base",
    "HuBERT base": "facebook/hubert-base-ls960", "WavLM base": "microsoft/wavlm-base",
    "WavLM base+": "microsoft/wavlm-base-plus", "WavLM large": "microsoft/wavlm-large",
}  # fmt: skip
# As docs/ltdnn_tables.md runs the grid
CORPORA = {
    "VCTK": ["--data_folder=x"],
    "LibriSpeech": ["--data_folder=x"],
    "VoxCeleb1": ["--dataset=voxceleb1", "--verification_file=vox1-o-original"],
    "VoxCeleb2": ["--dataset=voxceleb2", "--verification_file=vox2-test-original"],
}


@pytest.fixture(scope="module")
def cells_of_the_grid():
    """The figures of each cell that the grid trains: (yaml, encoder, corpus)."""
    trained_on = {}
    for corpus, options in CORPORA.items():
        path = ROOT / "hparams" / "corpora" / f"{corpus.lower()}.yaml"
        values = read_configuration(
            [str(ROOT / "hparams" / "ltdnn_wavlm.yaml"), *options],
            path if path.is_file() else None,
            demo=False,
        ).values()
        lists = values["verification_file"], values["valid_verification_file"]
        trials = resolve_test_trials(values["dataset"], *lists)
        trained_on[corpus] = values["dataset"], trials
    cells = {}
    for entry in read_grid(ROOT / "hparams" / "grids" / "ltdnn_tables.yaml").values():
        system, encoder = Path(entry.hparams).stem, entry.overrides.get("ssl_hub")
        for corpus, (dataset, trials) in trained_on.items():
            cells[system, encoder, corpus] = {
                "system": system, "ssl_hub": encoder, "dataset": dataset,
                "trials": trials, "stage": None,
            }  # fmt: skip
    return cells


def listed_cells():
    with open(DATA / "ltdnn_tables.csv", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["table"] in ("I", "II")]


def test_each_cell_of_the_paper_is_one_command_of_the_grid(cells_of_the_grid):
    listed = listed_cells()
    assert len(listed) == 70
    for row in listed:
        encoder = ENCODERS[row["input_or_encoder"]]
        cell = cells_of_the_grid[SYSTEMS[row["system"]], encoder, row["corpus"]]
        where = [cell[key] for key in ("stage", "ssl_hub", "dataset", "trials")]
        figures = published_figures(cell["system"], *where)
        ours = [figures[metric] for metric in results_table.METRICS]
        assert ours == [row["eer_star"], row["eer"], row["mindcf"]], row


def test_all_cells_stand_beside_the_papers(cells_of_the_grid, tmp_path, monkeypatch):
    listed = {
        (SYSTEMS[row["system"]], ENCODERS[row["input_or_encoder"]], row["corpus"]): row
        for row in listed_cells()
    }
    compared = {
        cell: training
        for cell, training in cells_of_the_grid.items()
        if cell[0] in (results_table.LTDNN, *results_table.RIVALS)
    }
    for i, (cell, training) in enumerate(compared.items()):
        write_metrics(
            tmp_path / str(i) / "1" / "test",
            **training,
            command=" ".join(map(str, cell)),
            parameters={"embedding_model": 1, "encoder": 2},
        )
    latency = {part: {"2": 1.0, "8": 3.0} for part in ("encoder", "back_end")}
    monkeypatch.setattr(results_table, "latency_of", lambda run, *given: latency)
    files = results_table.results_table(tmp_path)
    assert all(file.is_file() for file in files)
    with open(tmp_path / "results_table.csv", encoding="utf-8") as file:
        rows = {row["command"].strip("`"): row for row in csv.DictReader(file)}
    assert len(rows) == len(compared) == 5 * 3 * 4
    for cell in compared:
        row = rows[" ".join(map(str, cell))]
        paper = [row[f"paper {metric}"] for metric in results_table.METRICS]
        if cell in listed:
            figures = listed[cell]
            assert paper == [figures[m] for m in ("eer_star", "eer", "mindcf")]
            assert "2409.07770" in row["source"]
        elif "2409.07770" in row["source"]:
            raise AssertionError(f"{cell} is in none of the paper's tables")
    with open(tmp_path / "relative_gains.csv", encoding="utf-8") as file:
        gains = list(csv.DictReader(file))
    # All of ours are the same here, so that none is lower
    assert {row["EER* lower by %"] for row in gains} == {"0.0"}
    assert {row["encoder"] for row in gains} >= {"base encoders", "all encoders"}


def test_relative_gains_of_the_papers_cells():
    """What its text says (45, 14, 9 and 15 %) is what its cells say, rounded."""
    gains = {
        (row["L-TDNN against"], row["encoder"]): row for row in gains_rows([])
    }  # fmt: skip
    star, plain = (f"paper's cells: {m} lower by %" for m in ("EER*", "EER"))
    for key, expected in {
        ("superb_xvector", "base encoders"): "44.7",
        ("superb_ecapa", "base encoders"): "14.0",
        ("superb_ecapa", "all encoders"): "13.1",
        ("superb_ecapa", "microsoft/wavlm-base-plus"): "8.8",
        ("superb_ecapa", "microsoft/wavlm-large"): "14.7",
    }.items():
        assert gains[key][star] == expected, key
        assert gains[key]["EER* lower by %"] == ""
    assert gains["superb_ecapa", "microsoft/wavlm-base-plus"][plain] == "8.6"
    assert gains["superb_ecapa", "microsoft/wavlm-large"][plain] == "10.8"
    assert not relative_gains({("superb_ecapa", "hub", "voxceleb1"): (1, 1)})


def write_metrics(folder, **metrics):
    folder.mkdir(parents=True)
    metrics = {
        "seed": 1, "EER": 0.02, "EER_star": 0.021, "minDCF_0.01": 0.2, "n_target": 5,
        "n_nontarget": 7, **metrics,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_rows_of_lists_and_steps_stand_beside_the_papers(tmp_path):
    training = {
        "system": "lap_wavlm", "stage": "large_margin", "stages": ["large_margin"],
        "ssl_hub": "microsoft/wavlm-large", "dataset": "voxceleb2", "trials": "vox1-o",
        "parameters": {"embedding_model": 3, "encoder": 4}, "command": "python x",
    }  # fmt: skip
    # The folder's name says nothing of the stage
    run = tmp_path / "renamed"
    write_metrics(run / "test", **training)
    chain = run / "scoring_chain"
    write_metrics(chain / "vox1-h" / "AS-norm", trials="vox1-h", scores="AS-norm")
    write_metrics(chain / "trials" / "cosine", trials=None, scores="cosine")
    # Scores that are no cosines have no threshold of the training's.
    metrics = json.loads((chain / "vox1-h" / "AS-norm" / "metrics.json").read_text())
    del metrics["EER_star"]
    (chain / "vox1-h" / "AS-norm" / "metrics.json").write_text(json.dumps(metrics))
    latency = {"encoder": {"2": 1.0}, "back_end": {"2": 2.0}}
    rows = table_rows("lap", [run], latency, over_trials=12.34)
    found = [(row["trials"], row["scores"], row["paper EER %"]) for row in rows]
    assert found == [
        ("vox1-o", "cosine", "0.37"),
        ("vox1-o", "cosine", "0.37"),
        ("vox1-h", "AS-norm", "1.01"),
    ]
    assert rows[2]["EER* %"] == ""
    assert rows[0]["EER* %"] == "2.10" and rows[0]["ms for 2 s"] == "3"
    assert rows[0]["ms, median over the test"] == "12.3"


def test_gains_of_ours_are_of_the_papers_cells(tmp_path):
    hub = "microsoft/wavlm-base"
    rows = []
    for system, trials, error in (
        ("ltdnn_wavlm", "vox1-o-original", 0.02), ("superb_ecapa", "vox1-o", 0.5),
        ("superb_ecapa", "vox1-o-original", 0.025),
    ):  # fmt: skip
        run = tmp_path / system / trials
        write_metrics(
            run / "test", system=system, ssl_hub=hub, dataset="voxceleb1", EER=error,
            EER_star=error, trials=trials, stage=None, command="",
            parameters={"embedding_model": 1, "encoder": 1},
        )  # fmt: skip
        rows += table_rows(system, [run], {"encoder": {}, "back_end": {}})
    (row,) = (
        row for row in gains_rows(rows)
        if (row["L-TDNN against"], row["encoder"]) == ("superb_ecapa", hub)
    )  # fmt: skip
    assert row["EER* lower by %"] == "20.0"
    assert row["paper's cells: EER* lower by %"] == "11.0"

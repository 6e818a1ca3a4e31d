"""The command speechbrain-ext on stores, Kaldi files and score files."""

import json
from unicodedata import normalize

import kaldiio
import numpy as np
import pytest
import torch

from speechbrain_ext.cli import main
from speechbrain_ext.dataio.embedding_files import write_embeddings
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.enrolments import write_enrolments
from speechbrain_ext.dataio.scores import read_scores
from speechbrain_ext.dataio.trials import Trials, draw_trials, read_trials, write_trials
from speechbrain_ext.metrics.detection import EER
from speechbrain_ext.utils.errors import InputError


def make_store(n_speakers, prefix, seed):
    rng = np.random.default_rng(seed)
    speakers = [f"{prefix}{i}" for i in range(n_speakers) for _ in range(5)]
    ids = [f"{s}/{i}" for i, s in enumerate(speakers)]
    centers = np.repeat(rng.normal(size=(n_speakers, 12)), 5, axis=0)
    matrix = centers + 0.7 * rng.normal(size=(len(ids), 12)) + 0.4
    return EmbeddingStore(
        ids, torch.tensor(matrix).float(), speakers, [1.0] * len(ids), "f"
    )


@pytest.fixture
def files(tmp_path):
    """Test embeddings and a cohort, as stores and as Kaldi's files."""
    test, cohort = make_store(8, "t", 0), make_store(20, "c", 1)
    for name, store in (("test", test), ("cohort", cohort)):
        store.save(tmp_path / f"{name}.safetensors")
        kaldiio.save_ark(
            str(tmp_path / f"{name}.ark"),
            {i: e.numpy() for i, e in store.by_id().items()},
            scp=str(tmp_path / f"{name}.scp"),
        )
        np.savez(
            tmp_path / f"{name}.npz",
            **{i: e.numpy() for i, e in store.by_id().items()},
        )
    (tmp_path / "utt2spk").write_text(
        "".join(f"{i} {s}\n" for i, s in cohort.speaker_of().items())
    )
    write_trials(tmp_path / "trials.txt", draw_trials(test.speaker_of(), 100, 0))
    return tmp_path


def run(files, *arguments):
    main([a if a.startswith("-") or a in WORDS else str(files / a) for a in arguments])


WORDS = {"score", "norm", "eval", "calibrate", "det", "s-norm", "10", "6", "0.5",
         "0.01", "file", "embeddings", "scores"}  # fmt: skip


def test_kaldi_and_store_give_the_same_scores(files):
    for kind in ("safetensors", "scp", "ark", "npz"):
        run(files, "score", f"test.{kind}", "--trials", "trials.txt",
            "--output", kind)  # fmt: skip
    _, expected = read_scores(files / "safetensors" / "scores.txt")
    for kind in ("scp", "ark", "npz"):
        _, scores = read_scores(files / kind / "scores.txt")
        assert torch.equal(scores, expected)
    metrics = json.loads((files / "scp" / "metrics.json").read_text())
    assert 0 < metrics["EER"] < 0.4
    assert (files / "scp" / "det.pdf").is_file()


def test_norm_of_a_score_file_is_scoring_with_norm(files):
    cohort = ["--cohort", "cohort.scp", "--utt2spk", "utt2spk", "--cohort_size", "10"]
    run(files, "score", "test.scp", "--trials", "trials.txt", "--output", "as",
        "--score_norm", "s-norm", *cohort)  # fmt: skip
    run(files, "score", "test.scp", "--trials", "trials.txt", "--output", "plain")
    run(files, "norm", "plain/scores.txt", "--embeddings", "test.scp",
        "--output", "normalized.txt", *cohort)  # fmt: skip
    _, first = read_scores(files / "as" / "scores.txt")
    _, second = read_scores(files / "normalized.txt")
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    metrics = json.loads((files / "as" / "metrics.json").read_text())
    assert metrics["cohort_size"] == 10


@pytest.mark.parametrize("average", ["embeddings", "scores"])
def test_enrolment_from_several_utterances(files, average):
    embeddings = make_store(8, "t", 0).by_id()
    models = {"m0": ["t0/0", "t0/1", "t0/2"], "m1": ["t1/5"]}
    (files / "enrol.txt").write_text(
        "".join(f"{m} {' '.join(u)}\n" for m, u in models.items())
    )
    (files / "trials.txt").write_text("1 m0 t0/3\n0 m1 t0/3\n")
    main(["score", str(files / "test.scp"), "--trials", str(files / "trials.txt"),
          "--enrolments", str(files / "enrol.txt"), "--average", average,
          "--output", str(files / "out")])  # fmt: skip
    trials, scores = read_scores(files / "out" / "scores.txt")
    assert trials.enrol == ["m0", "m1"]
    enrol = torch.stack([embeddings[name] for name in models["m0"]])
    test = embeddings["t0/3"].unsqueeze(0)
    each = torch.cosine_similarity(enrol, test)
    directions = torch.nn.functional.normalize(enrol, dim=1)
    mean = torch.cosine_similarity(directions.mean(0, keepdim=True), test)
    expected = each.mean() if average == "scores" else mean[0]
    assert scores[0].item() == pytest.approx(expected.item(), abs=1e-5)
    alone = torch.cosine_similarity(embeddings["t1/5"].unsqueeze(0), test)
    assert scores[1].item() == pytest.approx(alone.item(), abs=1e-5)
    (files / "enrol.txt").write_text("m0 t0/0\n")
    with pytest.raises(SystemExit, match="1 models .* not enrolled: m1"):
        run(files, "score", "test.scp", "--trials", "trials.txt", "--output", "x",
            "--enrolments", "enrol.txt")  # fmt: skip


def test_plda_and_det(files, capsys):
    run(files, "score", "test.safetensors", "--trials", "trials.txt",
        "--cohort", "cohort.safetensors", "--plda", "--lda_dim", "6",
        "--output", "plda")  # fmt: skip
    run(files, "score", "test.safetensors", "--trials", "trials.txt",
        "--output", "cosine")  # fmt: skip
    run(files, "det", "plda/scores.txt", "cosine/scores.txt", "--output", "both")
    assert (files / "both.png").is_file() and (files / "both.pdf").is_file()
    for name, start in (("one.PNG", b"\x89PNG"), ("one.svg", b"<?xml"), ("v.2", None)):
        run(files, "det", "plda/scores.txt", "--output", f"figures/{name}")
        if start is not None:
            (written,) = (files / "figures").iterdir()
            assert written.read_bytes().startswith(start)
            assert written.name == name.lower()
            written.unlink()
    assert {p.name for p in (files / "figures").iterdir()} == {"v.2.png", "v.2.pdf"}
    with pytest.raises(SystemExit, match="two systems are called 'scores'"):
        run(files, "det", "plda/scores.txt", "cosine/scores.txt",
            "--by", "file", "--output", "both")  # fmt: skip


def test_eval_reads_wespeaker_and_csv(files, capsys):
    torch.manual_seed(0)
    scores = torch.cat([torch.randn(50) + 2, torch.randn(80)]).tolist()
    labels = ["target"] * 50 + ["nontarget"] * 80
    wespeaker, table = files / "w.score", files / "t.csv"
    wespeaker.write_text(
        "".join(f"e{i} t{i} {s} {k}\n" for i, (s, k) in enumerate(zip(scores, labels)))
    )
    table.write_text(
        "score,label,test,enrol\n"
        + "".join(
            f"{s},{int(k == 'target')},t{i},e{i}\n"
            for i, (s, k) in enumerate(zip(scores, labels))
        )
    )
    run(files, "eval", "w.score", "--threshold", "0.5", "--output", "w.json")
    run(files, "eval", "t.csv", "--threshold", "0.5", "--output", "t.json")
    first, second = (json.loads((files / n).read_text()) for n in ("w.json", "t.json"))
    assert first == second
    expected, _ = EER(torch.tensor(scores[:50]), torch.tensor(scores[50:]))
    assert first["EER"] == expected
    assert {"EER_star", "Cllr", "minCllr", "FAR_at_FRR_0.01"} <= set(first)


def test_calibrate(files, capsys):
    for name, seed in (("train.txt", 0), ("test.txt", 1)):
        torch.manual_seed(seed)
        target, nontarget = 0.1 * torch.randn(400) + 0.6, 0.1 * torch.randn(400) + 0.3
        (files / name).write_text(
            "".join(f"a b 1 {s}\n" for s in target.tolist())
            + "".join(f"a c 0 {s}\n" for s in nontarget.tolist())
        )
    run(files, "calibrate", "test.txt", "--train", "train.txt", "--output", "c")
    metrics = json.loads((files / "c" / "metrics.json").read_text())
    before, after = metrics["uncalibrated"], metrics["calibrated"]
    assert after["Cllr"] < 0.5 * before["Cllr"]
    assert after["Cllr"] < after["minCllr"] + 0.05
    assert after["actDCF_0.05"] < before["actDCF_0.05"]
    assert (files / "c" / "calibration.png").is_file()


@pytest.mark.parametrize(
    "text, message",
    [
        ("a b 1\n", "line 1: no label"),
        ("a b 2 0.5\n", "line 1: label '2'"),
        ("a b 1 x\n", "line 1: score 'x' is no number"),
        ("a b 1 nan\n", "line 1: score 'nan' is no number"),
        ("a b 1 0.5\n", "no non-target trials"),
        ("", "no target trials"),
    ],
)
def test_bad_score_files(tmp_path, text, message):
    path = tmp_path / "scores.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=f"scores.txt.*{message}"):
        read_scores(path)


def test_bad_input_is_one_line(files):
    with pytest.raises(SystemExit, match="error: .* need --cohort"):
        run(files, "score", "test.scp", "--trials", "trials.txt",
            "--output", "x", "--plda")  # fmt: skip
    with pytest.raises(SystemExit, match="error: there is no embedding file"):
        run(files, "score", "none.scp", "--trials", "trials.txt", "--output", "x")
    (files / "trials.txt").write_text("1 t0/0 t0/9\n0 t0/0 zz/1\n")
    with pytest.raises(SystemExit, match="error: 2 utterances .* no embedding"):
        run(files, "score", "test.scp", "--trials", "trials.txt", "--output", "x")
    (files / "utt2spk").write_text("c0/0 c0\n")
    with pytest.raises(SystemExit, match="lacks 99 utterances"):
        run(files, "score", "test.scp", "--trials", "trials.txt", "--output", "x",
            "--cohort", "cohort.scp", "--utt2spk", "utt2spk", "--plda")  # fmt: skip


@pytest.mark.parametrize("command", ["score", "calibrate"])
@pytest.mark.parametrize("output", ["trials.txt", "trials.txt/below"])
def test_output_folder_that_cannot_be(files, command, output):
    others = ["missing.scp", "--trials", "trials.txt"]
    if command == "calibrate":
        others = ["missing.txt", "--train", "missing.txt"]
    with pytest.raises(SystemExit, match="trials.txt' is a file; .* needs a folder"):
        run(files, command, *others, "--output", output)


def test_output_file_that_is_a_folder(files):
    (files / "scores.txt").write_text("a b 1 0.5\nc d 0 0.1\n")
    with pytest.raises(SystemExit, match="' is a folder; give a file"):
        main(["eval", str(files / "scores.txt"), "--output", str(files)])


@pytest.mark.parametrize("kind", ["safetensors", "csv"])
def test_two_embeddings_of_one_utterance(files, kind):
    store = EmbeddingStore(["a", "b", "a"], torch.eye(3), ["a"] * 3, [1.0] * 3, "")
    write_embeddings(files / f"twice.{kind}", store)
    with pytest.raises(SystemExit, match="has two embeddings of 'a'; keep one"):
        run(files, "score", f"twice.{kind}", "--trials", "trials.txt", "--output", "x")


def test_one_utterance_of_two_speakers(files):
    with open(files / "utt2spk", "a") as file:
        file.write("c0/0 c1\n")
    with pytest.raises(SystemExit, match="line 101: 'c0/0' is of 'c1', and of 'c0'"):
        run(files, "score", "test.scp", "--trials", "trials.txt", "--output", "x",
            "--cohort", "cohort.scp", "--utt2spk", "utt2spk", "--plda")  # fmt: skip


def test_scores_that_are_no_cosines_are_not_normalised(files):
    (files / "plda.txt").write_text("t0/0 t0/1 1 90\nt0/0 t1/0 0 -30\n")
    with pytest.raises(SystemExit, match="a score of 90 beyond those of cosines"):
        run(files, "norm", "plda.txt", "--embeddings", "test.scp", "--cohort",
            "cohort.safetensors", "--output", "out.txt")  # fmt: skip


def test_calibration_needs_scores_that_differ(files):
    (files / "same.txt").write_text("a b 1 0.5\nc d 0 0.5\n")
    with pytest.raises(SystemExit, match="one and the same score, 0.5"):
        run(files, "calibrate", "same.txt", "--train", "same.txt", "--output", "x")


NORM = ["--cohort", "cohort.safetensors", "--score_norm", "s-norm"]
PLDA = ["--cohort", "cohort.safetensors", "--plda"]


@pytest.mark.parametrize(
    "options, message",
    [
        ([*PLDA, "--score_norm", "s-norm"], "--score_norm cannot go with --plda"),
        ([*PLDA, "--subtract_mean"], "--subtract_mean cannot go with --plda"),
        ([*PLDA, "--cohort_size", "5"], "--cohort_size cannot go with --plda"),
        ([*PLDA, "--population_std"], "--population_std cannot go with --plda"),
        ([*PLDA, "--lda_dim", "0"], "lda_dim '0': give a whole number from 1"),
        ([*PLDA, "--backend", "b.yaml"], "--backend describes the back end whole"),
        ([*NORM, "--lda_dim", "3"], "--lda_dim has no effect without --plda"),
        ([*NORM, "--adapt"], "--adapt has no effect without --plda"),
        ([*NORM, "--cohort_size", "0"], "cohort_size '0': give a whole number from 2"),
        ([*NORM, "--utt2spk", "none"], "has its own speakers"),
        ([*NORM, "--average", "scores"], "--average has no effect without"),
        (["--cohort_size", "5"], "cohort_size has no effect without score_norm"),
        (["--raw_cohort"], "unit_length_cohort has no effect without score_norm"),
        (["--cohort", "cohort.safetensors"], "--cohort has no effect"),
        (["--utt2spk", "utt2spk"], "--utt2spk has no effect without --cohort"),
    ],
)
def test_options_without_effect(files, monkeypatch, options, message):
    monkeypatch.chdir(files)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(["score", "test.safetensors", "--trials", "trials.txt", "--output", "x",
              *options])  # fmt: skip
    assert not (files / "x").exists()


@pytest.mark.parametrize(
    "options",
    [
        *(["--frr", value] for value in ("-1", "5", "nan", "x")),
        *(["--p_target", value] for value in ("0", "1", "nan")),
        *(["--c_miss", value] for value in ("0", "-1", "inf")),
        *(["--threshold", value] for value in ("nan", "inf")),
    ],
)
def test_eval_refuses_numbers_out_of_range(tmp_path, capsys, options):
    (tmp_path / "s.txt").write_text("a b 1 0.5\nc d 0 0.1\n")
    with pytest.raises(SystemExit):
        main(["eval", str(tmp_path / "s.txt"), *options])
    message = f"Invalid value for '{options[0]}': '{options[1]}': give a"
    assert message in capsys.readouterr().err


def test_eval_at_an_operating_point(tmp_path, capsys):
    path = tmp_path / "s.txt"
    path.write_text("a b 1 3\na c 1 -1\na d 0 1\na e 0 -2\n")
    main(["eval", str(path), "--p_target", "0.5", "--c_miss", "3", "--frr", "0.5"])
    printed = capsys.readouterr().out
    # At a threshold of 2 a miss of 0.5; at -log 3 it is 1 false alarm of 2.
    assert "FAR 0.00 % at FRR 50 %" in printed
    assert "minDCF 0.500, actDCF 0.500 (p_target=0.5, c_miss=3, c_fa=1)" in printed
    main(["eval", str(path), "--output", "-"])
    assert json.loads(capsys.readouterr().out)["n_target"] == 2


def test_scores_that_differ_by_little_keep_apart(tmp_path, capsys):
    for scores in (("100000000.9", "100000000.1"), ("3e-07", "1e-07")):
        (tmp_path / "s.txt").write_text(f"a b 1 {scores[0]}\nc d 0 {scores[1]}\n")
        main(["eval", str(tmp_path / "s.txt")])
        assert capsys.readouterr().out.startswith("EER 0.00 %")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a b 1 inf\nc d 0 0\n", "line 1: score 'inf' is infinite"),
        (b"a b 1 0.5\na b 0 0.5\n", "1 pairs as target and as non-target"),
        ("a b 1 0.5\n".encode("utf-16"), "is UTF-16"),
        (bytes(range(128, 256)), "is a binary file"),
    ],
)
def test_score_files_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "s.txt").write_bytes(content)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(["eval", str(tmp_path / "s.txt")])


def test_any_back_end_of_a_yaml(files):
    (files / "b.yaml").write_text(
        "lda_dim: 6\nbackend: !new:speechbrain_ext.processing.backends.PLDABackend\n"
        "    lda_dim: !ref <lda_dim>\n"
    )
    cohort = ["--trials", "trials.txt", "--cohort", "cohort.safetensors"]
    run(files, "score", "test.safetensors", *cohort, "--backend", "b.yaml",
        "--output", "yaml")  # fmt: skip
    run(files, "score", "test.safetensors", *cohort, "--plda", "--lda_dim", "6",
        "--output", "plda")  # fmt: skip
    first, second = (read_scores(files / n / "scores.txt")[1] for n in ("yaml", "plda"))
    assert torch.equal(first, second)
    (files / "b.yaml").write_text("backend: 3\n")
    with pytest.raises(SystemExit, match="error: .*back"):
        run(files, "score", "test.safetensors", *cohort, "--backend", "b.yaml",
            "--output", "x")  # fmt: skip


def test_norm_subtracts_the_mean(files):
    cohort = ["--cohort", "cohort.safetensors", "--subtract_mean"]
    convention = ["--cohort_size", "10", "--population_std", "--raw_cohort"]
    test = ["test.safetensors", "--trials", "trials.txt"]
    run(files, "score", *test, "--output", "as", "--score_norm", "s-norm", *cohort,
        *convention)  # fmt: skip
    run(files, "score", *test, "--output", "mean", *cohort)
    run(files, "norm", "mean/scores.txt", "--embeddings", "test.safetensors",
        "--output", "normalized.txt", *cohort, *convention)  # fmt: skip
    _, first = read_scores(files / "as" / "scores.txt")
    _, second = read_scores(files / "normalized.txt")
    assert torch.equal(first, second)


def test_norm_of_scores_of_models(files):
    trials = read_trials(files / "trials.txt")
    model_of = dict.fromkeys(trials.enrol)
    enrolled = {f"model {n}": [n, sorted(set(trials.test))[i]]
                for i, n in enumerate(model_of)}  # fmt: skip
    write_enrolments(files / "models.txt", enrolled)
    models = [f"model {name}" for name in trials.enrol]
    write_trials(files / "of_models.txt", Trials(trials.labels, models, trials.test))
    cohort = ["--cohort", "cohort.safetensors", "--cohort_size", "10"]
    test = ["test.safetensors", "--trials", "of_models.txt", "--enrolments",
            "models.txt"]  # fmt: skip
    run(files, "score", *test, "--output", "as", "--score_norm", "s-norm", *cohort)
    run(files, "score", *test, "--output", "plain")
    norm = ["norm", "plain/scores.txt", "--embeddings", "test.safetensors", *cohort,
            "--output", "normalized.txt"]  # fmt: skip
    run(files, *norm, "--enrolments", "models.txt")
    _, first = read_scores(files / "as" / "scores.txt")
    _, second = read_scores(files / "normalized.txt")
    assert torch.equal(first, second)
    with pytest.raises(SystemExit, match="have no embedding: model"):
        run(files, *norm)
    write_enrolments(files / "few.txt", dict(list(enrolled.items())[:1]))
    with pytest.raises(SystemExit, match="models of the trials are not enrolled"):
        run(files, *norm, "--enrolments", "few.txt")


def test_trials_without_labels(files, capsys):
    run(files, "score", "test.scp", "--trials", "trials.txt", "--output", "with")
    trials, expected = read_scores(files / "with" / "scores.txt")
    pairs = list(zip(trials.enrol, trials.test))
    (files / "pairs.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs))
    capsys.readouterr()
    cohort = ["--cohort", "cohort.scp", "--utt2spk", "utt2spk"]
    run(files, "score", "test.scp", "--trials", "pairs.txt", "--output", "without")
    assert "100 trials without labels" in capsys.readouterr().out
    unlabelled, scores = read_scores(files / "without/scores.txt", need_labels=False)
    assert unlabelled.labels is None and torch.equal(scores, expected)
    for name in ("with", "without"):
        run(files, "norm", f"{name}/scores.txt", "--embeddings", "test.scp",
            "--output", f"{name}/norm.csv", *cohort)  # fmt: skip
        run(files, "calibrate", f"{name}/scores.txt", "--train", "with/scores.txt",
            "--output", f"{name}/calibrated")  # fmt: skip
    for file in ("norm.csv", "calibrated/scores.txt"):
        _, expected = read_scores(files / "with" / file)
        unlabelled, scores = read_scores(files / "without" / file, need_labels=False)
        assert unlabelled.labels is None and torch.equal(scores, expected)
    with pytest.raises(SystemExit, match="line 1: no label"):
        run(files, "eval", "without/scores.txt")


@pytest.mark.parametrize("average", ["embeddings", "scores"])
def test_enrolments_of_trials_without_labels(files, average):
    (files / "enrol.txt").write_text("Jos\u00e9 t0/0 t0/1\notto t1/5\n", "utf-8")
    scores = []
    for labels in ("1 {}0 {}", "{}{}"):
        (files / "trials.txt").write_text(
            labels.format("Jose\u0301 t0/2\n", "otto t0/2\n"), "utf-8"
        )
        run(files, "score", "test.npz", "--trials", "trials.txt", "--output", "out",
            "--enrolments", "enrol.txt", "--average", average)  # fmt: skip
        trials, values = read_scores(files / "out/scores.txt", need_labels=False)
        # Scores have the names of the trials.
        assert trials.enrol == ["Jose\u0301", "otto"]
        scores.append(values)
    assert torch.equal(*scores)


def test_names_of_embeddings_in_another_normal_form(files):
    names = {"a/\u00e9 1": 1.0, "a/\u00e9\t2": 0.5, "b/\u00f6": -1.0}
    ids = list(names)
    matrix = torch.tensor([[x, 1.0] for x in names.values()])
    EmbeddingStore(ids, matrix, ["a", "a", "b"], [1.0] * 3, "").save(
        files / "odd.safetensors"
    )
    trials = Trials([1, 0], [ids[0]] * 2, ids[1:])
    scores = []
    for form in ("NFC", "NFD"):
        sides = [[normalize(form, n) for n in s] for s in (trials.enrol, trials.test)]
        write_trials(files / "odd.txt", Trials([1, 0], *sides))
        run(files, "score", "odd.safetensors", "--trials", "odd.txt", "--output", "o")
        read, values = read_scores(files / "o/scores.txt")
        assert [read.enrol, read.test] == sides
        scores.append(values)
    assert torch.equal(*scores)
    run(files, "eval", "o/scores.txt")

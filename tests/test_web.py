"""The page: what it answers, what it refuses, and what it does not give away."""

import http.client
import json
import re
import runpy
import signal
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import soundfile
from conftest import write_voice
from huggingface_hub import HfApi
from ruamel.yaml import YAML

import speechbrain_ext
from speechbrain_ext.cli import main
from speechbrain_ext.cli.demo import command
from speechbrain_ext.inference import space
from speechbrain_ext.inference.export import export_model
from speechbrain_ext.inference.gallery import Gallery
from speechbrain_ext.inference.push import push_model
from speechbrain_ext.inference.sources import load_model
from speechbrain_ext.processing.calibration import Calibration
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.web import page as web_page
from speechbrain_ext.web.answers import Answers
from speechbrain_ext.web.page import SharedGallery, VisitorGalleries, build_page, launch

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder, "cpu")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Files that the page must refuse, by what is wrong."""
    folder = tmp_path_factory.mktemp("odd")
    files = {name: folder / f"{name}.wav" for name in ("text", "silent", "short")}
    files["text"].write_text("not a recording")
    soundfile.write(files["silent"], np.zeros(16000), 16000)
    soundfile.write(files["short"], np.full(1600, 0.1), 16000)
    files["long"] = folder / "long.wav"
    write_voice(files["long"], 0, 0, duration=2.5)
    files["missing"] = folder / "missing.wav"
    return {name: str(path) for name, path in files.items()}


def test_verifies_as_the_model_does(model, voices):
    first, second = map(str, voices[:2])
    text, *figures = Answers(model).verify(first, second)
    result = model.verify_files(first, second)
    assert f"Score {result.score.item():.4f} " in text
    verdict = "Same speaker" if result.decision else "Different speakers"
    assert text.startswith(f"### {verdict}\n") and "robability" not in text
    for figure, path in zip(figures, (first, second)):
        waveform, layers, _ = figure.axes
        assert len(waveform.lines[0].get_xdata()) == soundfile.info(path).frames
        expected = model.layer_weights(model.load_audio(path)).mean(dim=0).T
        np.testing.assert_allclose(layers.images[0].get_array(), expected)


def test_probability_where_calibrated(model_folder, voices):
    model = load_model(model_folder, "cpu")
    model.scoring.calibration = Calibration(["score"], [2.0], 0.5)
    model.scoring.threshold = None
    text, *_ = Answers(model).verify(*map(str, voices[:2]))
    expected = model.verify_files(*voices[:2]).probability.item()
    assert f"Probability of one speaker: {expected:.4f}" in text
    assert "log-likelihood ratio above 0" in text


def test_long_recordings_in_windows(model, odd, monkeypatch):
    monkeypatch.setattr("speechbrain_ext.web.answers.WINDOW", 1.0)
    layers = Answers(model).figure(odd["long"]).axes[1].images[0].get_array()
    wav = model.load_audio(odd["long"])
    first = model.layer_weights(wav.tensor_split(3)[0]).mean(dim=0).T
    np.testing.assert_allclose(layers[:, : first.shape[1]], first)
    assert layers.shape[1] == 3 * first.shape[1]


@pytest.mark.parametrize(
    "name, reason",
    [
        ("text", "text.wav: unreadable"),
        ("silent", "silent.wav: it is silent"),
        ("short", "short.wav: it has 0.10 s only"),
        ("long", "long.wav: it has 2.5 s; at most 2 s are taken"),
        ("missing", "missing.wav: there is no such file"),
        (None, "Record or drop the second recording first"),
    ],
)
def test_refusals_are_one_line_without_folders(model, odd, voices, name, reason):
    path = None if name is None else odd[name]
    with pytest.raises(InputError, match=re.escape(reason)) as refusal:
        Answers(model, max_duration=2).verify(str(voices[0]), path)
    assert "\n" not in str(refusal.value) and "/" not in str(refusal.value)


def test_enrol_and_identify(model, voices, tmp_path):
    answers, gallery = Answers(model), Gallery(tmp_path / "gallery")
    with pytest.raises(InputError, match="Nobody is enrolled"):
        answers.identify(gallery, str(voices[0]))
    with pytest.raises(InputError, match="name"):
        answers.enrol(gallery, "  ", str(voices[0]))
    for name, path in (("ann", voices[0]), ("ann", voices[1]), ("bob", voices[2])):
        answers.enrol(gallery, name, str(path))
    # What microphones record is called alike; the same recording counts once.
    answers.enrol(gallery, " ann ", str(voices[0]))
    assert {n: len(own) for n, own in gallery.speakers().items()} == {
        "ann": 2,
        "bob": 1,
    }
    text, rows = answers.identify(gallery, str(voices[2]))
    assert rows[0][:2] == ["bob", "1.0000"] and rows[0][2] == "same speaker"
    assert text.startswith("### `bob`\nScore 1.0000 (threshold 0.4321")
    model.threshold = 1.1
    try:
        text, rows = answers.identify(gallery, str(voices[2]))
    finally:
        model.threshold = 0.4321
    assert text.startswith("### Nobody enrolled\n") and rows[0][2] == "another speaker"


def test_without_gradio(model_folder, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["demo", str(model_folder)])
    assert "pip install 'speechbrain_ext[web]'" in capsys.readouterr().err


def test_galleries_of_visitors_and_of_all(tmp_path):
    (tmp_path / "else.txt").write_text("something else")
    with pytest.raises(InputError, match="no gallery"):
        SharedGallery(tmp_path)
    shared = SharedGallery(tmp_path / "gallery")
    assert shared.open() is shared.open()
    own = VisitorGalleries(tmp_path)
    assert own.open().folder.stat().st_mode & 0o077 == 0
    own.forget(None)


def test_command(model, model_folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("gradio")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(["demo"])
    assert exit.value.code == 2
    assert "recipes/VoxCeleb/train.py hparams/ltdnn_wavlm.yaml" in (
        capsys.readouterr().err
    )
    served = {}
    monkeypatch.setattr(
        "speechbrain_ext.inference.sources.load_model",
        lambda source, *a, **k: served.update(source=source) or model,
    )
    monkeypatch.setattr(
        web_page, "launch", lambda page, *settings: served.update(settings=settings)
    )
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    handlers = {}
    monkeypatch.setattr("signal.signal", handlers.__setitem__)
    arguments = ["--port", "7999", "--max_size", "3", "--device", "cpu"]
    main(["demo", str(model_folder), *arguments])
    assert served["settings"] == ("127.0.0.1", 7999, 3.0)
    assert served["source"] == str(model_folder)
    assert handlers == {signal.SIGTERM: signal.default_int_handler}
    (tmp_path / "results/demo").mkdir(parents=True)
    (tmp_path / "results/demo/1986").symlink_to(model_folder)
    main(["demo", "--device", "cpu"])
    defaults = {option.name: option.default for option in command.params}
    assert served["settings"] == ("127.0.0.1", None, defaults["max_size"])
    assert served["source"] == "results/demo/1986"
    assert defaults["max_size"] == web_page.MAX_SIZE
    assert defaults["max_duration"] == web_page.MAX_DURATION


def test_space(training, tmp_path, monkeypatch):
    gradio = pytest.importorskip("gradio")
    folder = export_model(training, tmp_path / "page", space=True)
    header = next(YAML().load_all((folder / "README.md").read_text()))
    assert header["sdk"] == "gradio" and header["sdk_version"] == gradio.__version__
    assert header["title"] == "page" and header["license"] == "unknown"
    assert (folder / "requirements.txt").read_text().startswith("speechbrain_ext[web]")
    served = {}
    monkeypatch.setattr(
        web_page,
        "serve",
        lambda model, **settings: served.update(settings, model=model),
    )
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(folder / header["app_file"]))
    # The environment of the Space says where to listen.
    assert served["server_name"] is None
    assert served["model"].threshold == load_model(folder, "cpu").threshold
    # Uploaded as what it is
    asked = {}
    for name in ("create_repo", "upload_folder"):
        monkeypatch.setattr(
            HfApi, name, lambda api, *a, _n=name, **k: asked.update({_n: k}) or "there"
        )
    push_model(folder, "user/page")
    assert asked["create_repo"]["repo_type"] == "space"
    assert asked["create_repo"]["space_sdk"] == "gradio"
    assert asked["upload_folder"]["repo_type"] == "space"
    assert {"app.py", "requirements.txt"} <= set(
        asked["upload_folder"]["allow_patterns"]
    )
    # A later export without the page leaves none of it.
    export_model(training, folder)
    assert not (folder / "app.py").exists()
    assert not (folder / "requirements.txt").exists()
    assert "sdk" not in next(YAML().load_all((folder / "README.md").read_text()))


@pytest.mark.parametrize(
    "origin, expected",
    [
        (None, f"speechbrain_ext[web]=={speechbrain_ext.__version__}\n"),
        ({"url": "file:///here", "dir_info": {"editable": True}},
         f"speechbrain_ext[web]=={speechbrain_ext.__version__}\n"),
        ({"url": "https://x.org/r", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
         "speechbrain_ext[web] @ git+https://x.org/r@abc\n"),
    ],
)  # fmt: skip
def test_requirements_of_a_space(origin, expected, monkeypatch):
    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Distribution())
    assert space.space_requirements() == expected


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """The page's address, with uploads of at most 0.2 MB and 2 s."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        # The environment must not open the page to others.
        patch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
        page = build_page(model, VisitorGalleries(folder), max_duration=2)
        _, address, _ = launch(page, max_size=0.2, prevent_thread_lock=True, quiet=True)
        yield address
        page.close()


def test_a_port_that_is_taken(served, model, tmp_path):
    page = build_page(model, VisitorGalleries(tmp_path))
    port = int(served.strip("/").rpartition(":")[2])
    with pytest.raises(InputError, match=f"port {port} is taken; give another one"):
        launch(page, port=port, quiet=True)


def request(address, method, path, body=None, headers=None):
    host = address.removeprefix("http://").strip("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


def test_listens_to_this_machine_only(served):
    assert served.startswith("http://127.0.0.1:")
    status, text = request(served, "GET", "/")
    assert status == 200 and "Who speaks?" in text
    config = json.loads(request(served, "GET", "/config")[1])
    assert config["analytics_enabled"] is False
    # What a browser may ask for: no function is offered to other programs.
    assert {f["api_visibility"] for f in config["dependencies"]} == {"private"}


def test_no_file_of_the_server_is_read(served, tmp_path, model_folder, monkeypatch):
    secret = tmp_path / "secret.wav"
    write_voice(secret, 0, 0)
    tree = Path(web_page.__file__)
    for path in (secret, Path("/etc/passwd"), tree, Path("pyproject.toml"),
                 model_folder / "hyperparams.yaml"):  # fmt: skip
        for route in ("/gradio_api/file=", "/file=", "/gradio_api/file/",
                      "/static/../", "/gradio_api/stream/"):  # fmt: skip
            for name in (str(path), quote(str(path), safe=""), f"..{path}"):
                status, text = request(served, "GET", quote(route + name, safe="/=%"))
                assert status in (403, 404, 405, 400), (status, route, name)
    # Neither as if it had been uploaded, where one that was is
    own = json.loads(upload(served, secret.read_bytes())[1])[0]
    for path, taken in ((own, True), (str(secret), False)):
        events = verify_over_http(served, path)
        assert len(events) == 1 and events[0]["success"] is taken
        assert ("peaker" in json.dumps(events)) is taken


def verify_over_http(address, path):
    """How the page's first tab finishes for one file on both sides."""
    payload = {"path": path, "meta": {"_type": "gradio.FileData"}}
    session = f"visitor{len(path)}"
    body = {"data": [payload, payload], "fn_index": 1, "session_hash": session}
    kind = {"Content-Type": "application/json"}
    join = "/gradio_api/queue/join"
    assert request(address, "POST", join, json.dumps(body), kind)[0] == 200
    _, events = request(
        address, "GET", f"/gradio_api/queue/data?session_hash={session}"
    )
    events = [
        json.loads(line.removeprefix("data: "))
        for line in events.splitlines()
        if line.startswith("data: ")
    ]
    return [event for event in events if event["msg"] == "process_completed"]


def upload(address, content):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"'
        b"\r\n\r\n" + content + b"\r\n--x--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return request(address, "POST", "/gradio_api/upload", body, kind)


def test_too_large_an_upload_is_refused(served):
    assert upload(served, b"0" * 1000)[0] == 200
    status, text = upload(served, b"0" * 300_000)
    assert status == 413, text


@pytest.mark.slow
def test_in_a_browser(served, odd, voices, tmp_path):
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs pip install playwright"
    )
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.set_default_timeout(20_000)
        elsewhere = []
        page.on(
            "request",
            lambda sent: (
                sent.url.startswith(("http", "ws"))
                and "127.0.0.1" not in sent.url
                and elsewhere.append(sent.url)
            ),
        )
        page.goto(served)

        def drop(label, path):
            block = page.locator(".block", has_text=label).last
            clear = block.get_by_label("Clear")
            if clear.count():
                clear.click()
            block.get_by_test_id("file-upload").set_input_files(str(path))
            clear.wait_for()

        def press(name):
            page.get_by_role("button", name=name, exact=True).click()

        def refused(text):
            page.get_by_test_id("toast-text").get_by_text(text).wait_for()
            page.get_by_test_id("toast-close").click()
            page.get_by_test_id("toast-body").wait_for(state="detached")

        press("Compare")
        refused("Record or drop the first recording first.")
        drop("First recording", voices[0])
        drop("Second recording", odd["text"])
        press("Compare")
        refused("text.wav: unreadable")
        drop("Second recording", odd["long"])
        press("Compare")
        refused("long.wav: it has 2.5 s; at most 2 s are taken")
        drop("Second recording", voices[1])
        press("Compare")
        page.get_by_text(re.compile(r"^(Same speaker|Different speakers)$")).wait_for()
        page.get_by_text(re.compile(r"^Score -?\d\.\d{4} \(threshold")).wait_for()
        page.locator("img[src^=data]").nth(1).wait_for()
        page.screenshot(path=tmp_path / "verify.png", full_page=True)

        page.get_by_role("tab", name="Enrol and identify").click()
        drop("Recording to identify", voices[2])
        press("Identify")
        refused("Nobody is enrolled")
        for name, path in (("ann", voices[0]), ("bob", voices[2])):
            page.get_by_label("Name of the speaker").fill(name)
            drop("Recording to enrol", path)
            press("Enrol")
            page.get_by_role("gridcell", name=name).wait_for()
        press("Identify")
        page.get_by_role("heading", name="bob").wait_for()
        page.screenshot(path=tmp_path / "identify.png", full_page=True)
        block = page.locator(".block", has_text="Recording to identify").last
        block.get_by_label("Clear").click()
        block.get_by_label("Record audio").click()
        block.get_by_role("button", name="Record", exact=True).click()
        page.wait_for_timeout(1200)  # of the browser's stand-in for a microphone
        block.get_by_role("button", name="Stop", exact=True).first.click()
        block.get_by_label("Clear").wait_for()
        with page.expect_response(re.compile("/queue/join")):
            press("Identify")
        page.get_by_role("gridcell", name="1.0000").wait_for(state="detached")
        assert page.get_by_test_id("toast-text").count() == 0
        # Another visitor sees none of it.
        other = browser.new_page()
        other.goto(served)
        other.get_by_role("tab", name="Enrol and identify").click()
        other.get_by_role("button", name="Identify", exact=True).wait_for()
        assert other.get_by_role("gridcell", name="ann").count() == 0
        assert elsewhere == []
        browser.close()

"""Downloads of trial lists: what is kept is a trial list, and the right one."""

import hashlib
import http.server
import threading

import pytest

from speechbrain_ext.dataio import downloads
from speechbrain_ext.dataio.corpora import published_trials, voxceleb
from speechbrain_ext.dataio.corpora.base import PublishedTrials
from speechbrain_ext.dataio.prepare import local_trial_list
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.utils.errors import InputError

LIST = b"1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n"


@pytest.fixture
def server():
    """A web server of `pages`, which counts what it is asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            self.server.asked.append(self.path)
            status, content, length = self.server.pages[self.path]
            self.send_response(status)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def page(content, status=200, length=0):
    """Status, content and, where 0 stands for the right one, its length."""
    return status, content, len(content) if length == 0 else length


def test_two_addresses_with_one_file_name_are_two_lists(server, tmp_path):
    other = LIST.replace(b"a/", b"c/")
    server.pages = {
        "/test/list.txt": page(LIST),
        "/valid/list.txt": page(other),
        "/list.txt?of=test": page(LIST),
        "/list.txt?of=valid": page(other),
    }
    for first, second in (
        ("/test/list.txt", "/valid/list.txt"),
        ("/list.txt?of=test", "/list.txt?of=valid"),
    ):
        lists = [
            read_trials(local_trial_list(server.url + path, tmp_path))
            for path in (first, second)
        ]
        assert [trials.enrol[0] for trials in lists] == ["a/1.wav", "c/1.wav"]


def test_what_is_there_is_not_asked_for_again(server, tmp_path):
    server.pages = {"/list.txt": page(LIST)}
    paths = {local_trial_list(f"{server.url}/list.txt", tmp_path) for _ in range(2)}
    assert len(paths) == len(server.asked) == 1


@pytest.mark.parametrize(
    "answer, message",
    [
        (page(b"<html>Sorry</html>\n"), "something else: '.*-list.txt', line 1"),
        (page(b"\xff\xfe1\x00"), "something else"),
        (page(b""), "has no trials"),
        (page(LIST, status=404), "404"),
        (page(LIST, status=503), "503"),
        (page(LIST[:20], length=len(LIST)), "ended after 20 of 36 bytes"),
    ],
)
def test_an_error_is_not_kept(server, tmp_path, answer, message):
    server.pages = {"/list.txt": answer}
    with pytest.raises(InputError, match=f"{message}.*verification_file"):
        local_trial_list(f"{server.url}/list.txt", tmp_path)
    assert not list(tmp_path.iterdir())
    server.pages = {"/list.txt": page(LIST)}
    assert len(read_trials(local_trial_list(f"{server.url}/list.txt", tmp_path))) == 2


def test_size_limit(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 100)
    server.pages = {"/list.txt": page(LIST * 10)}
    with pytest.raises(InputError, match="larger than"):
        local_trial_list(f"{server.url}/list.txt", tmp_path)
    assert not list(tmp_path.iterdir())


def test_server_that_does_not_answer(tmp_path, monkeypatch):
    asked = {}

    def urlopen(url, timeout):
        asked["timeout"] = timeout
        raise TimeoutError("timed out")

    monkeypatch.setattr(downloads.urllib.request, "urlopen", urlopen)
    with pytest.raises(InputError, match="timed out"):
        local_trial_list("https://example.org/list.txt", tmp_path)
    assert 0 < asked["timeout"] <= 60


@pytest.mark.parametrize("url", ["http://", "http://[", "https://exa mple.org/\n"])
def test_address_that_is_none(tmp_path, url):
    with pytest.raises(InputError, match="verification_file"):
        local_trial_list(url, tmp_path)


def test_checksum_of_published_lists(server, tmp_path, monkeypatch):
    md5 = hashlib.md5(LIST).hexdigest()
    published = PublishedTrials(f"{server.url}/veri_test2.txt", md5)
    monkeypatch.setitem(voxceleb.PUBLISHED_TRIALS, "vox1-o", published)
    server.pages = {"/veri_test2.txt": page(LIST.replace(b"0 a", b"1 a"))}
    with pytest.raises(InputError, match="checksum"):
        local_trial_list("vox1-o", tmp_path)
    # A page that was saved in its place earlier is replaced.
    (tmp_path / "veri_test2.txt").write_text("<html>Sorry</html>")
    server.pages = {"/veri_test2.txt": page(LIST)}
    path = local_trial_list("vox1-o", tmp_path)
    assert path == str(tmp_path / "veri_test2.txt")
    assert (tmp_path / "veri_test2.txt").read_bytes() == LIST
    # What the user put there is taken without the web.
    server.pages = {}
    assert local_trial_list("vox1-o", tmp_path) == path


def test_all_published_lists_have_a_checksum():
    lists = published_trials()
    assert {"vox1-o", "vox1-o-original", "vox1-e", "vox1-h"} <= set(lists)
    for trials in lists.values():
        assert len(bytes.fromhex(trials.md5)) == 16
    assert len({trials.url for trials in lists.values()}) == len(lists)

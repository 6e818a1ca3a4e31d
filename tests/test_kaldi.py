"""Embeddings of Kaldi and NumPy are read, and nothing in them is run."""

import os
import pickle
import struct

import kaldiio
import numpy as np
import pytest
import torch

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.embeddings import read_embeddings
from speechbrain_ext.utils.errors import InputError

VECTORS = {f"a-{i}": np.arange(3, dtype="float32") + i / 3 for i in range(4)}


def assert_read(path):
    store = read_embeddings(path)
    assert store.ids == list(VECTORS)
    expected = torch.tensor(np.stack(list(VECTORS.values())))
    torch.testing.assert_close(store.embeddings, expected)


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_ark_and_scp_of_kaldiio(tmp_path, monkeypatch, text, dtype, shape):
    vectors = {n: v.astype(dtype).reshape(shape) for n, v in VECTORS.items()}
    monkeypatch.chdir(tmp_path)
    os.mkdir("sub folder")
    kaldiio.save_ark(
        "sub folder/x.ark", vectors, scp="sub folder/x.scp", text=text
    )  # fmt: skip
    assert_read("sub folder/x.ark")
    # Paths relative to the working directory, as Kaldi has them
    assert_read("sub folder/x.scp")


@pytest.mark.parametrize("end", ["\n", "\r\n\r\n"])
def test_scp_beside_its_ark(tmp_path, end):
    kaldiio.save_ark(
        str(tmp_path / "x.ark"), VECTORS, scp=str(tmp_path / "absolute.scp")
    )
    lines = (tmp_path / "absolute.scp").read_text().replace(f"{tmp_path}/", "")
    (tmp_path / "x.scp").write_bytes(
        lines.replace("\n", end).encode("utf-8-sig")
    )  # fmt: skip
    assert_read(tmp_path / "x.scp")


def test_one_file_for_each_vector(tmp_path):
    lines = []
    for name, vector in VECTORS.items():
        kaldiio.save_mat(str(tmp_path / f"{name}.vec"), vector)
        lines.append(f"{name} {tmp_path / name}.vec\n")
    (tmp_path / "x.scp").write_text("".join(lines))
    assert_read(tmp_path / "x.scp")


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "command", ["mkdir {} |", "| mkdir {}", "mkdir {}; cat x.ark|"]
)
def test_pipes_are_not_run(tmp_path, command):
    ran = tmp_path / "ran"
    (tmp_path / "x.scp").write_text(f"a {command.format(ran)}\n")
    with pytest.raises(InputError, match="line 1: .* is a command, which is not run"):
        read_embeddings(tmp_path / "x.scp")
    assert not ran.exists()


def test_nothing_is_unpickled(tmp_path):
    ran = tmp_path / "ran"
    kaldiio.save_ark(
        str(tmp_path / "x.ark"), {"a": _Touch(ran)}, write_function="pickle"
    )
    np.savez(tmp_path / "x.npz", a=np.array([_Touch(ran)], dtype=object))
    (tmp_path / "y.npz").write_bytes(pickle.dumps(_Touch(ran)))
    kaldiio.save_ark(str(tmp_path / "y.ark"), {"a": np.ones(3)}, write_function="numpy")
    for name in ("x.ark", "x.npz", "y.npz", "y.ark"):
        with pytest.raises(InputError, match=f"{name}'"):
            read_embeddings(tmp_path / name)
    assert not ran.exists()


def binary(kind, *sizes, n_bytes=12):
    sizes = b"".join(b"\4" + struct.pack("<i", size) for size in sizes)
    return b"a \0B" + kind + sizes + bytes(n_bytes)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "no embeddings"),
        (b"a", "no ark of Kaldi's, or cut off"),
        (b"a b c\n", "no vector of Kaldi's, binary or text"),
        (b"a [ 1 2", "no vector of Kaldi's, binary or text"),
        (b"a [ 1 x ]\n", "what is no number"),
        (b"a [ 1 2\n 3 4 ]\n", "2 rows"),
        (b"a [ ]\n", "0 rows"),
        (b"a [ 1 2 ]\nb [ 1 ]\n", "different dimensions: 2 and 1 .'b'"),
        (b"a [ 1 2 ]\na [ 1 3 ]\n", "two embeddings of 'a'"),
        (b"\x89PNG\r\n\x1a\n \0\0", "a name in it is not UTF-8"),
        (binary(b"FV ", 4), "'a' is cut off"),
        (binary(b"FV ", 3)[:9], "no vector of Kaldi's, or cut off"),
        (binary(b"FV ", -1), "has the shape .-1,."),
        (binary(b"FV ", 2**31 - 1), "has the shape"),
        (binary(b"FM ", 3, 1), "has the shape .3, 1."),
        (binary(b"CM ", 1, 3), "has the type b'CM '"),
    ],
)
def test_bad_arks(tmp_path, content, message):
    (tmp_path / "x.ark").write_bytes(content)
    with pytest.raises(InputError, match=f"x.ark'.*{message}"):
        read_embeddings(tmp_path / "x.ark")


@pytest.mark.parametrize(
    "line, message",
    [
        ("a", "line 2: a line of an scp"),
        ("a none.ark:5", "line 2: there is no file 'none.ark'"),
        ("a x.ark:5[0:1]", "line 2: .* ranges are not read"),
        ("a x.ark:99999", "line 2: 'x.ark' is no vector"),
        ("a x.ark:0", "line 2: 'x.ark' is no vector"),
    ],
)
def test_bad_scps(tmp_path, line, message):
    kaldiio.save_ark(str(tmp_path / "x.ark"), {"b": VECTORS["a-0"]})
    (tmp_path / "x.scp").write_text(f"b x.ark:2\n{line}\n")
    with pytest.raises(InputError, match=f"x.scp', {message}"):
        read_embeddings(tmp_path / "x.scp")


def test_npz(tmp_path):
    np.savez(tmp_path / "x.npz", **{n: v.reshape(1, 3) for n, v in VECTORS.items()})
    assert_read(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", a=np.ones((2, 3)))
    with pytest.raises(InputError, match=r"'a' has the shape \(2, 3\)"):
        read_embeddings(tmp_path / "y.npz")
    np.savez(tmp_path / "z.npz", a=np.array(["text"]))
    with pytest.raises(InputError, match="'a' has no numbers"):
        read_embeddings(tmp_path / "z.npz")


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3), (4, 1, 1, 3)])
def test_store_of_embeddings_as_speechbrain_has_them(tmp_path, shape):
    matrix = torch.tensor(np.stack(list(VECTORS.values()))).reshape(shape)
    store = EmbeddingStore(list(VECTORS), matrix, ["a"] * 4, [1.0] * 4, "")
    store.save(tmp_path / "x.safetensors")
    assert_read(tmp_path / "x.safetensors")


def test_store_of_several_vectors_for_each_utterance(tmp_path):
    EmbeddingStore(["a"], torch.ones(1, 2, 3), ["a"], [1.0], "").save(
        tmp_path / "x.safetensors"
    )
    with pytest.raises(InputError, match=r"1 utterances .* shape \(1, 2, 3\)"):
        read_embeddings(tmp_path / "x.safetensors")

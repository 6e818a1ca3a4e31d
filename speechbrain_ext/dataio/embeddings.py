"""Embeddings of any toolkit as an embedding store."""

from pathlib import Path

import torch

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import open_text


def read_embeddings(path, utt2spk=None):
    """Reads an embedding store or Kaldi's scp or ark.

    Arguments
    ---------
    path : str or Path
        A .safetensors file of `EmbeddingStore`, or Kaldi's .scp or .ark,
        which takes the package kaldiio.
    utt2spk : str or Path
        Kaldi's `utterance speaker` lines, for .scp and .ark; without it each
        utterance counts as a speaker.

    Returns
    -------
    EmbeddingStore
        Durations of Kaldi embeddings are NaN: unknown.

    Raises
    ------
    InputError
        If the file is missing or of another format, or speakers are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no embedding file '{path}'")
    if path.suffix == ".safetensors":
        if utt2spk is not None:
            raise InputError(
                f"'{path}' has its own speakers; utt2spk goes with .scp and .ark"
            )
        return EmbeddingStore.load(path)
    if path.suffix not in (".scp", ".ark"):
        raise InputError(
            f"'{path}': embeddings are read from .safetensors, .scp or .ark"
        )
    try:
        import kaldiio
    except ImportError:
        raise InputError(
            "Kaldi's files need a package: pip install kaldiio"
        ) from None
    try:
        if path.suffix == ".scp":
            pairs = kaldiio.load_scp(str(path)).items()
        else:
            pairs = kaldiio.load_ark(str(path))
        rows = {name: torch.tensor(vector).float() for name, vector in pairs}
    except OSError:
        raise
    except Exception as error:  # kaldiio raises many kinds
        raise InputError(f"'{path}' is no file of Kaldi's ({error})") from None
    if not rows:
        raise InputError(f"'{path}' has no embeddings")
    shapes = {tuple(vector.shape) for vector in rows.values()}
    if len(shapes) > 1:
        raise InputError(
            f"'{path}' has embeddings of different shapes: "
            + ", ".join(map(str, sorted(shapes)))
        )
    speaker_of = _read_utt2spk(utt2spk) if utt2spk else {n: n for n in rows}
    missing = sorted(set(rows) - set(speaker_of))
    if missing:
        raise InputError(
            f"'{utt2spk}' lacks {len(missing)} utterances: "
            f"{', '.join(missing[:5])}"
        )
    return EmbeddingStore(
        list(rows),
        torch.stack(list(rows.values())),
        [speaker_of[name] for name in rows],
        [float("nan")] * len(rows),
        "",
    )


def _read_utt2spk(path):
    if not Path(path).is_file():
        raise InputError(f"there is no utt2spk file '{path}'")
    speaker_of = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 2:
                raise InputError(
                    f"'{path}', line {number}: a line is 'utterance speaker'"
                )
            speaker_of[fields[0]] = fields[1]
    return speaker_of

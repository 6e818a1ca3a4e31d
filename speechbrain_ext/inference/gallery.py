"""Enrolled speakers, kept in a folder that only its owner can read.

Embeddings of voices are biometric data: in many countries, under the GDPR for one,
they may be kept for a stated purpose and with consent only, and must be deleted on
request. `Gallery.delete` takes a speaker's embeddings out of the file.
"""

import contextlib
import fcntl
import os
import stat
from pathlib import Path

import torch
from speechbrain.utils.logger import get_logger

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.inference.speaker import rank_speakers
from speechbrain_ext.processing.search import EmbeddingSearch, has_faiss
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fingerprints import fingerprint_differences

logger = get_logger(__name__)

FILE = "gallery.safetensors"
INDEX = "index.safetensors"
# Speakers that are scored as the model scores, the highest cosines
SHORTLIST = 200


class Gallery:
    """Speakers of one model, each with one recording or several.

    Arguments
    ---------
    folder : str or Path
        Where the gallery is kept; made by the first `enrol`.

    Raises
    ------
    InputError
        If the folder has files, but no gallery.

    Example
    -------
    >>> gallery = Gallery(getfixture("tmpdir") / "gallery")
    >>> gallery.enrol("anna", ["1.wav", "2.wav"], torch.eye(2), [3.0, 4.0], "f00")
    >>> gallery.rename("anna", "Anna")
    >>> gallery.speakers()
    {'Anna': ['1.wav', '2.wav']}
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.file = self.folder / FILE
        self._store, self._store_state = None, None
        self._voices = None
        self._n_searches = 0
        if not self.file.is_file() and self.folder.exists():
            if not self.folder.is_dir() or any(
                path.name != ".lock" for path in self.folder.iterdir()
            ):
                raise InputError(
                    f"'{folder}' is no gallery and not empty; give another folder"
                )

    def _read(self):
        """The enrolled speakers; read once, until the file is another one."""
        state = self._state()
        if state != self._store_state:
            self._store = None if state is None else self._load()
            self._store_state, self._voices = state, None
        return self._store

    def _state(self):
        """What tells whether the file is still the same; None if there is none."""
        try:
            status = self.file.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _load(self):
        if stat.S_IMODE(self.file.stat().st_mode) & 0o077:
            logger.warning(
                f"others can read '{self.file}', which has biometric data; "
                f"chmod 600 '{self.file}'"
            )
        return EmbeddingStore.load(self.file)

    def _require(self):
        store = self._read()
        if store is None or not store.ids:
            raise InputError(f"nobody is enrolled in '{self.folder}'")
        return store

    @contextlib.contextmanager
    def _locked(self):
        """One process at a time changes the gallery."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, rows, fingerprint):
        # It has codes of those who may just have been taken out.
        (self.folder / INDEX).unlink(missing_ok=True)
        if not rows:
            self.file.unlink(missing_ok=True)
            return
        ids, embeddings, speakers, durations = zip(*rows)
        store = EmbeddingStore(
            list(ids),
            torch.stack(embeddings),
            list(speakers),
            list(durations),
            fingerprint,
        )
        # Nobody else may read it, not even while it is being written.
        before = os.umask(0o077)
        try:
            store.save(self.file)
        finally:
            os.umask(before)

    def enrol(self, name, recordings, embeddings, durations, fingerprint):
        """Adds recordings of a speaker; one that is there is replaced.

        Arguments
        ---------
        name : str
            Name of the speaker.
        recordings : list of str
            What the recordings are called.
        embeddings : torch.Tensor
            Embeddings, of shape (n_recording, dim).
        durations : list of float
            Durations in seconds.
        fingerprint : str
            Fingerprint of the model.

        Raises
        ------
        InputError
            If the name is empty, embeddings are not finite, or the gallery is
            another model's.
        """
        if not name.strip():
            raise InputError("a speaker needs a name")
        if not embeddings.isfinite().all():
            raise InputError(f"'{name}' cannot be enrolled: its embeddings are NaN")
        with self._locked():
            store = self._read()
            if store is not None:
                self._check_model(store, fingerprint)
            new = {_id(name, recording) for recording in recordings}
            kept = [row for row in _rows(store) if row[0] not in new]
            added = [
                (_id(name, recording), embedding, name, duration)
                for recording, embedding, duration in zip(
                    recordings, embeddings.float().cpu(), durations
                )
            ]
            self._write([*kept, *added], fingerprint)

    def delete(self, name):
        """Takes a speaker out of the gallery, with all recordings.

        Arguments
        ---------
        name : str
            Name of the speaker.

        Raises
        ------
        InputError
            If the speaker is not enrolled.
        """
        with self._locked():
            store = self._of_speaker(name)
            rows = [row for row in _rows(store) if row[2] != name]
            self._write(rows, store.fingerprint)

    def rename(self, name, new_name):
        """Gives a speaker another name.

        Arguments
        ---------
        name : str
            Name of the speaker.
        new_name : str
            That nobody has.

        Raises
        ------
        InputError
            If the speaker is not enrolled, or the new name is somebody's.
        """
        with self._locked():
            store = self._of_speaker(name)
            if new_name in store.speakers:
                raise InputError(f"'{new_name}' is enrolled already; give another name")
            if not new_name.strip():
                raise InputError("a speaker needs a name")
            rows = [
                row
                if row[2] != name
                else (_id(new_name, _recording(row[0])), row[1], new_name, row[3])
                for row in _rows(store)
            ]
            self._write(rows, store.fingerprint)

    def _of_speaker(self, name):
        store = self._require()
        if name not in store.speakers:
            raise InputError(f"'{name}' is not enrolled in '{self.folder}'")
        return store

    def speakers(self):
        """Lists who is enrolled.

        Returns
        -------
        dict
            What the recordings of each speaker are called.
        """
        store = self._read()
        found = {}
        for name, *_, speaker, _ in _rows(store):
            found.setdefault(speaker, []).append(_recording(name))
        return found

    def identify(self, model, embeddings, durations, top=5, threshold=None):
        """Finds the enrolled speakers that recordings resemble most.

        Arguments
        ---------
        model : SpeakerRecognition
            That the speakers are enrolled with; scores and decides.
        embeddings : torch.Tensor
            Embeddings of the recordings, of shape (n_recording, dim).
        durations : list of float
            Durations in seconds.
        top : int
            Candidates of each recording.
        threshold : float
            Threshold in place of the model's own.

        Returns
        -------
        list of list of Candidate
            Candidates of each recording, the highest score first. Score normalisation
            orders the 200 speakers with the highest cosines.

        Raises
        ------
        InputError
            If nobody is enrolled, or with another model.
        """
        store = self._require()
        self._check_model(store, model.fingerprint)
        shift = torch.zeros(store.embeddings.shape[1])
        if model.scoring.backend.get("subtract_mean"):
            shift = model.scoring.cohort.mean.cpu()
        if self._voices is None or not torch.equal(self._voices.shift, shift):
            self._voices = _Voices(store, shift)
        voices = self._voices
        self._n_searches += len(embeddings)
        self._prepare_index(voices.search)
        _, nearest = voices.search.nearest(embeddings - shift, max(top, SHORTLIST))
        return [
            rank_speakers(
                model.scoring,
                embedding,
                duration,
                dict(map(voices.enrolled, rows)),
                threshold,
            )[:top]
            for embedding, duration, rows in zip(
                embeddings, durations, nearest.tolist()
            )
        ]

    def _prepare_index(self, search):
        """Loads the index of the gallery, or builds it once it makes up for that.

        The file belongs to these voices alone, and goes with the first change of
        the gallery.
        """
        if search.has_index or not has_faiss():
            return
        if search.load_index(self.folder / INDEX):
            return
        if self._n_searches < search.searches_worth_an_index:
            return
        state = self._store_state
        search.build_index()
        with self._locked():
            # Nobody who was deleted meanwhile is in a file.
            if self._state() == state:
                search.save_index(self.folder / INDEX)

    def _check_model(self, store, fingerprint):
        different = fingerprint_differences(store.fingerprint, fingerprint)
        if different:
            raise InputError(
                f"'{self.folder}' was enrolled with another model "
                f"({', '.join(different)}); give that model, or enrol in another folder"
            )


class _Voices:
    """What is searched: the mean of each speaker's recordings, at unit length.

    Arguments
    ---------
    store : EmbeddingStore
        The recordings of a gallery.
    shift : torch.Tensor
        Subtracted from each embedding, of shape (dim,).
    """

    def __init__(self, store, shift):
        self._store, self.shift = store, shift
        number_of = {name: i for i, name in enumerate(dict.fromkeys(store.speakers))}
        self._names = list(number_of)
        numbers = torch.tensor([number_of[name] for name in store.speakers])
        counts = numbers.bincount()
        self._rows_of = numbers.argsort(stable=True).split(counts.tolist())
        unit = torch.nn.functional.normalize(store.embeddings - shift, dim=1)
        sums = torch.zeros(len(counts), unit.shape[1]).index_add_(0, numbers, unit)
        self.search = EmbeddingSearch(sums / counts.unsqueeze(1))

    def enrolled(self, number):
        """Name of a speaker, with the recordings' embeddings and their seconds."""
        rows = self._rows_of[number].tolist()
        durations = [self._store.durations[row] for row in rows]
        return self._names[number], (self._store.embeddings[rows], durations)


def _rows(store):
    if store is None:
        return []
    return list(zip(store.ids, store.embeddings, store.speakers, store.durations))


def _id(name, recording):
    return f"{name}\n{recording}"


def _recording(identity):
    return identity.partition("\n")[2]

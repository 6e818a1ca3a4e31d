"""Hidden states of whole utterances that are kept on disk, to train on."""

import functools
import random
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_ext.dataio.datasets import DrawnDataset, loader_by_duration
from speechbrain_ext.dataio.embedding_store import row_keys_of
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path


class HiddenStates:
    """Hidden states of utterances in files that are mapped into memory.

    Each file has the frames of some utterances, one after the other, in float16 and of
    shape (time, layer, channel): a crop is one stretch of it.

    Arguments
    ---------
    folder : str or Path
        Folder of the files, which are of one encoder.
    utterances : dict
        Utterances as `read_manifest` gives them. Those count as there that were made
        from the same audio file, size and time of change, start and duration.

    Attributes
    ----------
    missing : list of str
        Ids of the utterances that are not there.

    Raises
    ------
    InputError
        If a file is of another kind.

    Example
    -------
    >>> folder = Path(getfixture("tmpdir"))
    >>> item = {"wav": "a.wav", "speaker": "a", "duration": 0.1}
    >>> frames = torch.rand(4, 7, 192).half()  # of seven layers
    >>> HiddenStates.write(folder / "0.safetensors", [frames], row_keys_of({"a": item}))
    >>> states = HiddenStates(folder, {"a": item})
    >>> states.missing, states.n_frames("a")
    ([], 4)
    >>> torch.equal(states.read("a", 1, 3), frames[1:4])
    True
    """

    def __init__(self, folder, utterances):
        at = {}
        for file in sorted(Path(folder).glob("[!.]*.safetensors")):
            start = 0
            with _open(file) as part:
                counts, keys = (part.get_tensor(n).tolist() for n in ("counts", "keys"))
            for count, key in zip(counts, keys):
                at[tuple(key)] = str(file), start, count
                start += count
        wanted = map(tuple, row_keys_of(utterances).tolist())
        places = {name: at.get(key) for name, key in zip(utterances, wanted)}
        self.missing = [name for name, place in places.items() if place is None]
        self._places = places
        self._slices = {}

    def __getstate__(self):
        # A process of its own opens the files anew.
        return {**vars(self), "_slices": {}}

    def n_frames(self, name):
        """Frames of an utterance.

        Arguments
        ---------
        name : str
            Its id.

        Returns
        -------
        int
            How many.
        """
        return self._places[name][2]

    def read(self, name, start, count):
        """Reads some frames of an utterance.

        Arguments
        ---------
        name : str
            Its id.
        start : int
            First frame.
        count : int
            How many.

        Returns
        -------
        torch.Tensor
            In float16, of shape (count, layer, channel).
        """
        file, first, _ = self._places[name]
        if file not in self._slices:
            self._slices[file] = _open(file).get_slice("frames")
        return self._slices[file][first + start : first + start + count]

    @staticmethod
    def write(path, frames, keys):
        """Writes a file, atomically.

        Arguments
        ---------
        path : str or Path
            The file, in the folder.
        frames : list of torch.Tensor
            Of each utterance, in float16 and of shape (time, layer, channel).
        keys : torch.Tensor
            What `row_keys_of` gives for these utterances.
        """
        tensors = {
            "frames": torch.cat(frames),
            "counts": torch.tensor([len(of_one) for of_one in frames]),
            "keys": keys.contiguous(),
        }
        with atomic_path(path) as partial:
            save_file(tensors, partial)


def hidden_state_crops(states, utterances, label_encoder, n_frames):
    """Random crops of hidden states with speaker labels.

    The frames are those of the whole utterance: unlike those of a crop that an encoder
    is given alone, they have seen what comes before and after it. An utterance that is
    shorter than the crop is repeated to fill it.

    Arguments
    ---------
    states : HiddenStates
        The hidden states.
    utterances : dict
        Utterances as `read_manifest` gives them.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Encoder of the speakers.
    n_frames : int
        Frames of a crop.

    Returns
    -------
    DrawnDataset
        Data set with the keys id, sig, of shape (time, layer, channel), and
        spk_id_encoded.
    """
    dataset = DrawnDataset(utterances)
    draw = functools.partial(
        _draw_crop, states=states, label_encoder=label_encoder, n_frames=n_frames
    )
    dataset.add_dynamic_item(draw, ["id", "speaker"], ["sig", "spk_id_encoded"])
    dataset.set_output_keys(["id", "sig", "spk_id_encoded"])
    return dataset


def _draw_crop(name, speaker, states, label_encoder, n_frames):
    total = states.n_frames(name)
    start = random.randint(0, max(0, total - n_frames))
    crop = states.read(name, start, min(n_frames, total))
    yield crop.repeat(-(-n_frames // total), 1, 1)[:n_frames]
    yield label_encoder.encode_sequence_torch([speaker])


def hidden_state_loader(states, utterances, max_batch_duration, num_workers=0):
    """Hidden states of whole utterances in batches of similar duration.

    Arguments
    ---------
    states : HiddenStates
        The hidden states.
    utterances : dict
        Utterances as `read_manifest` gives them.
    max_batch_duration : float
        As of `embedding_loader`.
    num_workers : int
        Processes that read them.

    Returns
    -------
    SaveableDataLoader
        Gives batches with the keys id and sig, which is of shape (batch, time, layer,
        channel).
    """
    dataset = DynamicItemDataset(utterances)
    read = functools.partial(_read_utterance, states=states)
    dataset.add_dynamic_item(read, "id", "sig")
    dataset.set_output_keys(["id", "sig"])
    return loader_by_duration(dataset, max_batch_duration, num_workers)


def _read_utterance(name, states):
    return states.read(name, 0, states.n_frames(name))


def _open(file):
    try:
        part = safe_open(file, framework="pt")
        if set(part.keys()) != {"frames", "counts", "keys"}:
            raise SafetensorError(f"it has {', '.join(part.keys())}")
    except SafetensorError as error:
        raise InputError(
            f"'{file}' has no hidden states ({error}); delete it, and they are "
            "computed again"
        ) from None
    return part

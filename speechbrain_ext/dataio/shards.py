"""Shards: the audio of a training in a few large files, which are read in order.

`write_shards` puts the audio files of a manifest, byte by byte, into tars of
WebDataset's format (https://github.com/webdataset/webdataset), and `read_shards`
lets the data sets of a training read from there. A folder of shards has

- shard-000000.tar and so on: of each utterance the audio file and a JSON file with
  id, speaker and duration (seconds);
- shard-000000.csv and so on: where in the tar each audio file starts, and its size;
- shards.json: what the shards were made from, and whether all of them are written.
"""

import concurrent.futures
import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_ext.dataio.audio import PackedFile
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.prepare import prepared_key
from speechbrain_ext.utils.cache_keys import differences
from speechbrain_ext.utils.distributed import rank_and_processes
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import read_csv, write_csv
from speechbrain_ext.utils.files import atomic_path, read_json, write_json
from speechbrain_ext.utils.packages import optional_package

logger = get_logger(__name__)

# To be raised when the same files and settings give other shards
VERSION = 1
INDEX_FIELDS = ("id", "start", "size")
REMEDY = "write them by the recipe's *_prepare.py with --shards, or leave shards_folder"


def write_shards(manifest, folder, n_shards, seed=0):
    """Packs the audio files of a manifest into shards, unless they are up to date.

    The utterances are dealt to the shards at random, so that a few shards are a
    sample of the whole. After a kill the shards that are missing are written.

    Arguments
    ---------
    manifest : str or Path
        Manifest of `prepare_corpus`, beside the other files of that.
    folder : str or Path
        Where to write.
    n_shards : int
        Number of shards, whose numbers of utterances differ by one at most.
    seed : int
        Seed of the deal.

    Raises
    ------
    InputError
        If there are more shards than utterances, an audio file is gone, or the
        folder has shards of another origin.
    """
    webdataset = optional_package("webdataset", "shards need", "shards")
    folder, utterances = Path(folder), read_manifest(manifest)
    if n_shards > len(utterances):
        raise InputError(
            f"shards: {n_shards} are more than the {len(utterances)} utterances of "
            f"'{manifest}'; give a smaller number"
        )
    key = {"shards": n_shards, "seed": seed, **_origin(manifest)}
    _clear_stale(folder, key)
    names = list(utterances)
    order = np.random.default_rng(seed).permutation(len(names))
    numbers = dict(zip(_shards(folder, n_shards), np.array_split(order, n_shards)))
    missing = [path for path in numbers if not path.is_file()]
    if not missing and _read_state(folder)["complete"]:
        logger.info(f"The shards in '{folder}' are up to date.")
        return
    _write_state(folder, key, complete=False)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        tasks = [
            pool.submit(
                _write_shard,
                webdataset.TarWriter,
                path,
                {int(number): names[number] for number in numbers[path]},
                utterances,
            )
            for path in missing
        ]
        try:
            done = concurrent.futures.as_completed(tasks)
            for task in tqdm(
                done, total=len(tasks), desc="Writing shards", dynamic_ncols=True
            ):
                task.result()
        finally:
            pool.shutdown(cancel_futures=True)
    _write_state(folder, key, complete=True)
    logger.info(f"Packed {len(names)} utterances into {n_shards} shards in '{folder}'.")


def check_written(folder):
    """Refuses a folder without shards, or whose shards are not all written.

    Arguments
    ---------
    folder : str or Path
        Folder that `write_shards` has written.

    Returns
    -------
    dict
        What the shards were made from.

    Raises
    ------
    InputError
        If there are none, or some are to come.
    """
    state = _read_state(Path(folder))
    if state is None:
        raise InputError(f"there are no shards in '{folder}'; {REMEDY} out")
    if not state["complete"]:
        raise InputError(
            f"the shards in '{folder}' are not all written; give the command that "
            "writes them again"
        )
    return state["key"]


def read_shards(folder, manifest):
    """The utterances of a manifest, to be read from shards.

    Arguments
    ---------
    folder : str or Path
        Folder that `write_shards` has written.
    manifest : str or Path
        Manifest of `prepare_corpus`.

    Returns
    -------
    dict
        Utterances as of `read_manifest`, in the order of the shards, each with a
        `PackedFile` as wav.

    Raises
    ------
    InputError
        If a shard is missing or cut short, or the shards are of another
        preparation.
    """
    key = check_written(folder)
    other = differences(key, {**key, **_origin(manifest)})
    if other:
        raise InputError(
            f"the shards in '{folder}' are of another preparation than '{manifest}', "
            f"of other {', '.join(other)}; {REMEDY} out"
        )
    _, n_processes = rank_and_processes()
    if key["shards"] < n_processes:
        logger.warning(
            f"{n_processes} processes share {key['shards']} shards; with more of them "
            "each would read files of its own."
        )
    utterances, packed = read_manifest(manifest), {}
    for path in _shards(folder, key["shards"]):
        end = 0
        index = path.with_suffix(".csv")
        for _, (name, start, size) in read_csv(index, "index of a shard", INDEX_FIELDS):
            start, size = int(start), int(size)
            file = PackedFile(utterances[name]["wav"], str(path), start, size)
            packed[name] = {**utterances[name], "wav": file}
            end = max(end, start + size)
        if not path.is_file() or path.stat().st_size < end:
            reason = "cut short" if path.is_file() else "missing"
            raise InputError(
                f"shard '{path}' is {reason}; copy the folder again, or delete the "
                "shard and write it by the command that wrote the others"
            )
    return packed


def _shards(folder, n_shards):
    return [Path(folder) / f"shard-{number:06d}.tar" for number in range(n_shards)]


def _origin(manifest):
    """All that the contents of the shards depend on, as plain data."""
    return {
        "version of the shards": VERSION,
        "training utterances": hashlib.sha256(Path(manifest).read_bytes()).hexdigest(),
        "audio files": prepared_key(Path(manifest).parent)["audio files"],
    }


def _read_state(folder):
    path = Path(folder) / "shards.json"
    return read_json(path) if path.is_file() else None


def _write_state(folder, key, complete):
    write_json(folder / "shards.json", {"key": key, "complete": complete})


def _clear_stale(folder, key):
    """Deletes shards of other settings; what others wrote is left alone."""
    state = _read_state(folder)
    found = [path for kind in ("tar", "csv") for path in folder.glob(f"shard-*.{kind}")]
    if state is None and found:
        raise InputError(
            f"'{folder}' has files such as {found[0].name} that are of no preparation; "
            "give another shards_folder"
        )
    other = [] if state is None else differences(state["key"], key)
    if other:
        logger.warning(f"The shards in '{folder}' are of other {', '.join(other)}.")
        for path in found:
            path.unlink()


def _write_shard(tar_writer, path, names, utterances):
    """Writes a shard and, before the shard is complete, its index."""
    with atomic_path(path) as partial:
        with (
            open(partial, "wb") as file,
            tar_writer(file, encoder=False, mtime=0) as tar,
        ):
            for number, name in names.items():
                wav = Path(utterances[name]["wav"])
                about = {"id": name, **utterances[name]}
                del about["wav"]
                tar.write(
                    {
                        "__key__": f"{number:08d}",
                        wav.suffix[1:].lower(): _content(wav),
                        "json": json.dumps(about).encode("ascii"),
                    }
                )
        with tarfile.open(partial) as tar:
            files = [member for member in tar if not member.name.endswith(".json")]
        write_csv(
            path.with_suffix(".csv"),
            INDEX_FIELDS,
            [
                (name, member.offset_data, member.size)
                for name, member in zip(names.values(), files, strict=True)
            ],
        )


def _content(wav):
    try:
        return wav.read_bytes()
    except OSError as error:
        raise InputError(
            f"'{wav}' cannot be read any more ({error.strerror}); mend it, or prepare "
            "the data again"
        ) from None

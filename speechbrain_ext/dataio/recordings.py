"""Recordings that a user names: files, folders, patterns, or a list of them."""

import glob
from pathlib import Path

from speechbrain_ext.dataio.audio import AUDIO_EXTENSIONS, read_header
from speechbrain_ext.dataio.corpora.base import audio_files
from speechbrain_ext.utils.errors import InputError


def find_recordings(inputs):
    """Finds recordings and reads their headers.

    Arguments
    ---------
    inputs : iterable of str
        Audio files, folders with them at any depth, or patterns such as
        "calls/**/*.wav".

    Returns
    -------
    utterances : dict
        Utterances as `read_manifest` gives them. The id of a file is its path as it was
        given; of one in a folder its path below that folder, whose first part is the
        speaker.
    broken : dict
        Reason for each file that cannot be used.

    Raises
    ------
    InputError
        If there is nothing, or two recordings have the same id.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = Path(getfixture("tmpdir"))
    >>> (folder / "anna").mkdir()
    >>> soundfile.write(folder / "anna" / "1.wav", numpy.zeros(8000), 16000)
    >>> utterances, broken = find_recordings([str(folder)])
    >>> [(name, item["speaker"]) for name, item in utterances.items()]
    [('anna/1.wav', 'anna')]
    """
    found = {}
    for given in inputs:
        for name, path, speaker in _named_files(given):
            if name in found and found[name][0].resolve() != path.resolve():
                raise InputError(
                    f"'{found[name][0]}' and '{path}' would both be called '{name}'; "
                    "give the folder above them"
                )
            found[name] = path, speaker
    if not found:
        raise InputError("there are no recordings to read")
    utterances, broken = {}, {}
    for name, (path, speaker) in found.items():
        try:
            duration = read_header(path).duration
        except InputError as error:
            broken[str(path)] = str(error)
            continue
        utterances[name] = {"wav": str(path), "speaker": speaker, "duration": duration}
    return utterances, broken


def _named_files(given):
    """Id, path and speaker of each recording that one input stands for."""
    path = Path(given)
    if path.is_dir():
        files = sorted(file.path for file in audio_files(path, []))
        if not files:
            raise InputError(
                f"'{given}' has no recordings ({', '.join(AUDIO_EXTENSIONS)})"
            )
        for file in files:
            name = file.relative_to(path).as_posix()
            yield name, file, name.split("/")[0]
        return
    files = [path]
    if not path.exists() and glob.has_magic(given):
        files = sorted(Path(file) for file in glob.glob(given, recursive=True))
        if not files:
            raise InputError(f"no file has a name like '{given}'")
    for file in files:
        yield str(file), file, str(file)

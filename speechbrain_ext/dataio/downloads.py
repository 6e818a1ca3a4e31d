"""Downloads of lists: with a time-out, a size limit and a check of the content."""

import hashlib
import http.client
import re
import urllib.request
from pathlib import Path

from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path

TIMEOUT = 30  # seconds without an answer
MAX_BYTES = 2**28
CHUNK = 2**20


def download(url, folder, check, md5=None):
    """Downloads a file, unless it is there.

    What fails the check is not kept, so that neither a page that tells of an
    error nor half a file is taken for the file later.

    Arguments
    ---------
    url : str
        Address.
    folder : str or Path
        Where to save it. A file with a checksum keeps its name; other names
        begin with a hash of the address, since names of files come twice.
    check : callable
        Takes the path and raises `InputError` if the content is something
        else.
    md5 : str
        Checksum, in hexadecimal digits.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If the download fails or gives something else.
    """
    path = Path(folder) / _file_name(url, md5)
    if path.is_file() and (md5 is None or _md5(path) == md5):
        return path
    try:
        with atomic_path(path) as partial:
            _fetch(url, partial)
            if md5 is not None and _md5(partial) != md5:
                raise InputError("its checksum is another one than published")
            try:
                check(partial)
            except (InputError, UnicodeDecodeError) as error:
                reason = str(error).replace(str(partial), path.name)
                raise InputError(f"it is something else: {reason}") from None
    # HTTP errors are OSErrors, and an address that is none is a ValueError.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"{url} could not be downloaded ({error})") from None
    return path


def _file_name(url, md5):
    name = re.sub(r"[^\w.-]", "_", re.sub(r"[?#].*", "", url).rpartition("/")[2])
    if md5 is not None:
        return name
    return f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name[-100:]}"


def _fetch(url, path):
    with (
        urllib.request.urlopen(url, timeout=TIMEOUT) as response,
        open(path, "wb") as file,
    ):
        expected = response.headers.get("Content-Length")
        n_bytes = 0
        while chunk := response.read(CHUNK):
            n_bytes += len(chunk)
            if n_bytes > MAX_BYTES:
                raise InputError(f"it is larger than {MAX_BYTES // 2**20} MiB")
            file.write(chunk)
    if expected is not None and n_bytes != int(expected):
        raise InputError(f"it ended after {n_bytes} of {expected} bytes")


def _md5(path):
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

"""Files that cannot be used: found by their headers, named, counted, left out."""

import concurrent.futures
import csv
from collections import Counter
from pathlib import Path

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_ext.dataio.audio import read_header, why_not_resampled
from speechbrain_ext.dataio.corpora.base import printable
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path

logger = get_logger(__name__)

# Shorter files (seconds) have no frame of an encoder or of a filter bank.
FRAME = 0.025


def drop_broken(
    utterances, sample_rate, min_duration, allow_broken, save_folder, left_out=()
):
    """Reads all headers in parallel and leaves out what cannot be used.

    Arguments
    ---------
    utterances : list of Utterance
        Gets the durations.
    sample_rate : int
        Sample rate of the model, in Hz.
    min_duration : float
        Shortest duration in seconds.
    allow_broken : bool
        Whether to go on when more than 1 % of the files are broken.
    save_folder : Path
        Folder to write broken_files.csv to.
    left_out : list of tuple
        Path and reason of what was left out before and is not broken.

    Returns
    -------
    list of Utterance
        The usable ones.

    Raises
    ------
    InputError
        If more than 1 % are broken.
    """
    usable, broken = [], []
    n_resampled = n_mixed_down = 0
    shortest = max(min_duration, FRAME)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        headers = pool.map(_header_or_fault, utterances)
        for utterance, header in tqdm(
            zip(utterances, headers),
            total=len(utterances),
            desc="Reading headers",
            dynamic_ncols=True,
        ):
            if isinstance(header, str):
                broken.append((utterance.wav, header))
            elif header.duration < shortest:
                reason = f"too short: {header.duration:.2f} s"
                broken.append((utterance.wav, reason))
            elif reason := why_not_resampled(header.sample_rate, sample_rate):
                broken.append((utterance.wav, reason))
            else:
                utterance.duration = header.duration
                usable.append(utterance)
                n_resampled += header.sample_rate != sample_rate
                n_mixed_down += header.n_channels > 1
    if n_resampled:
        logger.warning(
            f"{n_resampled} files are not at {sample_rate} Hz and are "
            "resampled when read."
        )
    if n_mixed_down:
        logger.warning(
            f"{n_mixed_down} files are not mono and are mixed down when read."
        )
    report = Path(save_folder) / "broken_files.csv"
    broken, left_out = (
        [(printable(path), printable(reason)) for path, reason in rows]
        for rows in (broken, left_out)
    )
    with atomic_path(report) as partial:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            rows = [("wav", "reason"), *broken, *left_out]
            csv.writer(file).writerows(rows)
    if left_out:
        logger.warning(f"Left out: {_summary(left_out)}. All of them: {report}")
    if broken:
        named = "; ".join(f"{wav} ({reason})" for wav, reason in broken[:5])
        summary = (
            f"{len(broken)} of {len(utterances)} audio files are broken and "
            f"left out: {named}{' ...' if len(broken) > 5 else ''}. "
            f"All of them: {report}"
        )
        if len(broken) > 0.01 * len(utterances) and not allow_broken:
            raise InputError(
                f"{summary}. That is more than 1 %: mend them, or go on with "
                "allow_broken: True"
            )
        logger.warning(summary)
    return usable


def _header_or_fault(utterance):
    try:
        return utterance.fault or read_header(utterance.wav)
    except InputError as error:
        return str(error)


def _summary(left_out):
    """Counts what was left out by reason, with an example of each."""
    # A reason that names another file is one kind with all that do.
    kinds = [reason.partition("/")[0].strip() for _, reason in left_out]
    first = {}
    for kind, (path, _) in zip(kinds, left_out):
        first.setdefault(kind, path)
    return "; ".join(
        f"{count} {kind}, such as {first[kind]}"
        for kind, count in Counter(kinds).items()
    )

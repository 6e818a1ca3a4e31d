"""From the recordings of a command line to embeddings."""

from speechbrain_ext.cli.options import note
from speechbrain_ext.utils.errors import InputError

SHOWN = 5  # broken files that an error names


def standard_input_lines(names):
    """Replaces - by the lines of standard input.

    Arguments
    ---------
    names : iterable of str
        Recordings of a command line.

    Returns
    -------
    list of str
        The recordings.
    """
    import sys

    found = []
    for name in names:
        if name != "-":
            found.append(name)
            continue
        found += [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    return found


def require_whole(broken):
    """Ends with an error where recordings cannot be used.

    Arguments
    ---------
    broken : dict
        See `find_recordings`.

    Raises
    ------
    InputError
        If there are any; the message names the first ones.
    """
    if broken:
        shown = "; ".join(
            f"'{path}': {reason}" for path, reason in list(broken.items())[:SHOWN]
        )
        more = len(broken) - SHOWN
        raise InputError(shown + (f"; and {more} more" if more > 0 else ""))


def embed_speech(model, files, window_length, window_overlap, min_speech):
    """Embeds some recordings that all are needed.

    Arguments
    ---------
    model : SpeakerRecognition
        The model.
    files : list of str
        Audio files.
    window_length : float
        See `SpeakerRecognition.encode_file`.
    window_overlap : float
        See `SpeakerRecognition.encode_file`.
    min_speech : float
        See `doubt_about`; where it is given, less speech is an error, else a warning.

    Returns
    -------
    embeddings : torch.Tensor
        Embeddings, of shape (n_file, dim).
    durations : list of float
        In seconds.

    Raises
    ------
    InputError
        If a recording cannot be used.
    """
    from speechbrain_ext.dataio.recordings import find_recordings
    from speechbrain_ext.dataio.speech import doubt_about

    utterances, broken = find_recordings(files)
    require_whole(broken)
    durations = []
    for file in files:
        if file not in utterances:
            raise InputError(f"'{file}': give a recording, not a folder or a pattern")
        doubt = doubt_about(file, min_speech)
        if doubt is not None:
            if min_speech is not None:
                raise InputError(f"'{file}': {doubt}")
            note(f"warning: '{file}': {doubt}; its embedding says little")
        durations.append(utterances[file]["duration"])
    embeddings = model.embed_files(files, window_length, window_overlap)
    for file, embedding in zip(files, embeddings):
        if not embedding.isfinite().all():
            raise InputError(f"'{file}': the model gives no embedding (NaN)")
    return embeddings, durations


def embed_many(
    model, utterances, path, window_length, window_overlap, min_speech, num_workers=0
):
    """Embeds recordings into a store that a killed run goes on with.

    Arguments
    ---------
    model : SpeakerRecognition
        The model.
    utterances : dict
        See `find_recordings`.
    path : str or Path
        File of the store.
    window_length : float
        See `extract_embeddings`.
    window_overlap : float
        See `extract_embeddings`.
    min_speech : float
        See `doubt_about`; what has less speech is left out with a warning.
    num_workers : int
        See `extract_embeddings`.

    Returns
    -------
    store : EmbeddingStore
        Embeddings of the recordings that are kept.
    left_out : list of str
        Ids of what was not.
    seconds : float
        Seconds of speech that were embedded now, and not in an earlier run.

    Raises
    ------
    InputError
        If nothing is left.
    """
    from speechbrain_ext.dataio.speech import doubts_about
    from speechbrain_ext.inference.extraction import extract_missing

    doubts = doubts_about(utterances, min_speech)
    left_out = note_doubts(utterances, doubts, min_speech)
    without = set(left_out)
    wanted = {name: item for name, item in utterances.items() if name not in without}
    if not wanted:
        raise InputError("no recording has enough speech")
    store, embedded = extract_missing(
        model,
        wanted,
        path,
        num_workers=num_workers,
        window_length=window_length,
        window_overlap=window_overlap,
    )
    finite = store.embeddings.isfinite().all(dim=1)
    not_finite = [store.ids[row] for row in (~finite).nonzero().flatten().tolist()]
    left_out += note_without_embedding(wanted, not_finite)
    rows = finite.nonzero().flatten()
    if len(rows) == 0:
        raise InputError("the model gives no embedding of any recording (NaN)")
    seconds = sum(wanted[name]["duration"] for name in embedded)
    return store.rows(rows.tolist()), left_out, seconds


def note_doubts(utterances, doubts, min_speech):
    """Warns of recordings that say little.

    Arguments
    ---------
    utterances : dict
        As of `find_recordings`.
    doubts : dict
        As of `doubts_about`.
    min_speech : float
        What has less speech is left out; if None, nothing is.

    Returns
    -------
    list of str
        Ids of what is left out.
    """
    leave = min_speech is not None
    for name, doubt in doubts.items():
        outcome = "left out" if leave else "its embedding says little"
        note(f"warning: '{utterances[name]['wav']}': {doubt}; {outcome}")
    return list(doubts) if leave else []


def note_without_embedding(utterances, names):
    """Warns of recordings that are left out because their embeddings are not finite.

    Arguments
    ---------
    utterances : dict
        As of `find_recordings`.
    names : list of str
        Their ids.

    Returns
    -------
    list of str
        The same ids.
    """
    for name in names:
        note(
            f"warning: '{utterances[name]['wav']}': the model gives no embedding; "
            "left out"
        )
    return names

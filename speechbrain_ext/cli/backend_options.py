"""From the options of score and norm to a back end and its cohort."""

from speechbrain_ext.utils.errors import InputError

# Option for each argument of the back ends
OPTION_OF = {
    "subtract_mean": "--subtract_mean",
    "score_norm": "--score_norm",
    "cohort_size": "--cohort_size",
    "unbiased_std": "--population_std",
    "unit_length_cohort": "--raw_cohort",
    "lda_dim": "--lda_dim",
    "adapt": "--adapt",
}


def make_backend(
    subtract_mean, score_norm, cohort_size, population_std, raw_cohort, plda=False,
    lda_dim=None, adapt=False, backend=None,
):  # fmt: skip
    """Makes the back end that the options of `score` describe.

    Arguments
    ---------
    subtract_mean : bool
        See `CosineBackend`.
    score_norm : str
        See `CosineBackend`.
    cohort_size : int
        See `CosineBackend`.
    population_std : bool
        Whether `unbiased_std` of `CosineBackend` is off.
    raw_cohort : bool
        Whether `unit_length_cohort` of `CosineBackend` is off.
    plda : bool
        Whether PLDA, not cosine.
    lda_dim : int or str
        See `PLDABackend`.
    adapt : bool
        See `PLDABackend`.
    backend : str
        YAML of another back end, in place of all other options.

    Returns
    -------
    Backend
        Not trained yet.

    Raises
    ------
    InputError
        If options do not go together.
    """
    from speechbrain_ext.processing.backends import CosineBackend, PLDABackend

    cosine = {
        "subtract_mean": subtract_mean or None,
        "score_norm": score_norm,
        "cohort_size": cohort_size,
        "unbiased_std": False if population_std else None,
        "unit_length_cohort": False if raw_cohort else None,
    }
    of_plda = {"lda_dim": lda_dim, "adapt": adapt or None}
    cosine = {name: value for name, value in cosine.items() if value is not None}
    of_plda = {name: value for name, value in of_plda.items() if value is not None}
    if backend is not None and (plda or cosine or of_plda):
        raise InputError(
            "--backend describes the back end whole; leave out "
            + ", ".join(OPTION_OF[name] for name in [*cosine, *of_plda])
            + ("--plda" if plda else "")
        )
    if plda and cosine:
        raise InputError(
            f"{', '.join(OPTION_OF[name] for name in cosine)} cannot go with --plda: "
            "they change cosine scores"
        )
    if of_plda and not plda:
        raise InputError(
            f"{', '.join(OPTION_OF[name] for name in of_plda)} has no effect without "
            "--plda"
        )
    if backend is not None:
        return read_backend(backend)
    return PLDABackend(**of_plda) if plda else CosineBackend(**cosine)


def read_backend(path):
    """Reads the back end of a YAML.

    Arguments
    ---------
    path : str or Path
        YAML with the key `backend`, and those that it refers to.

    Returns
    -------
    Backend
        Not trained yet.

    Raises
    ------
    InputError
        If there is none.

    Example
    -------
    >>> path = getfixture("tmpdir") / "backend.yaml"
    >>> path.write_text(
    ...     "backend: !new:speechbrain_ext.processing.backends.PLDABackend\\n"
    ...     "    lda_dim: 100\\n", "utf-8"
    ... )
    >>> read_backend(path).lda_dim
    100
    """
    from speechbrain_ext.config import read_configuration
    from speechbrain_ext.processing.backends import Backend

    configuration = read_configuration([str(path)], demo=False)
    backend = configuration.build(["backend"])["backend"]
    if not isinstance(backend, Backend):
        raise InputError(
            f"'{path}' has no back end; write backend: !new:package.module.Class, a "
            "subclass of speechbrain_ext.processing.backends.Backend"
        )
    return backend


def read_cohort(cohort, utt2spk, backend):
    """Reads the cohort, which must be there exactly where it is needed.

    Arguments
    ---------
    cohort : str
        Embeddings of the training set, or None.
    utt2spk : str
        Their speakers, or None.
    backend : Backend
        The back end.

    Returns
    -------
    EmbeddingStore or None
        The cohort.

    Raises
    ------
    InputError
        If the cohort is missing, or has no effect.
    """
    from speechbrain_ext.dataio.embeddings import read_embeddings

    if cohort is None:
        if utt2spk is not None:
            raise InputError("--utt2spk has no effect without --cohort")
        if backend.needs_cohort:
            raise InputError(
                "--plda, --score_norm and --subtract_mean need --cohort, the "
                "embeddings of the training set"
            )
        return None
    if not backend.needs_cohort:
        raise InputError(
            "--cohort has no effect on plain cosine scores; give --plda, "
            "--score_norm or --subtract_mean, or leave it out"
        )
    return read_embeddings(cohort, utt2spk)

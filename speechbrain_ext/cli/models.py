"""The model of a command line."""


def load(source, device, revision, trust_source):
    """Loads SOURCE; imports what that takes only now.

    Arguments
    ---------
    source : str
        See `load_model`.
    device : str
        See `load_model`.
    revision : str
        See `load_model`.
    trust_source : bool
        See `load_model`.

    Returns
    -------
    SpeakerRecognition
        The model.
    """
    from speechbrain_ext.inference import sources

    return sources.load_model(source, device, revision, trust_source=trust_source)


def load_in(precision, source, device, revision, trust_source):
    """Loads SOURCE to compute in a precision.

    Arguments
    ---------
    precision : str
        As of `SpeakerRecognition.precision`.
    source : str
        See `load_model`.
    device : str
        See `load_model`.
    revision : str
        See `load_model`.
    trust_source : bool
        See `load_model`.

    Returns
    -------
    SpeakerRecognition
        The model.
    """
    model = load(source, device, revision, trust_source)
    model.precision = precision
    return model

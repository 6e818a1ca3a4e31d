"""The model of a command line."""


def load(source, device, revision, trust_source, precision="fp32"):
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
    precision : str
        As of `SpeakerRecognition.precision`.

    Returns
    -------
    SpeakerRecognition
        The model.
    """
    from speechbrain_ext.inference import sources

    model = sources.load_model(source, device, revision, trust_source=trust_source)
    model.precision = precision
    return model

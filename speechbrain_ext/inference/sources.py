"""A trained model from wherever it is: a training, an exported folder, the hub."""

from pathlib import Path

from speechbrain_ext.inference.model_folder import describe
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.utils.distributed import device_of
from speechbrain_ext.utils.errors import InputError


def is_training(source):
    """Whether a source is the output folder of a training.

    Arguments
    ---------
    source : str or Path
        See `load_model`.

    Returns
    -------
    bool
        Whether there are checkpoints.

    Example
    -------
    >>> is_training("user/model")
    False
    """
    return (Path(source) / "save").is_dir()


def add_trust_option(parser):
    """Adds `--trust_source`, which `load_model` takes, to a command line.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Parser of a script.

    Example
    -------
    >>> import argparse
    >>> parser = argparse.ArgumentParser()
    >>> add_trust_option(parser)
    >>> parser.parse_args(["--trust_source"]).trust_source
    True
    """
    parser.add_argument(
        "--trust_source",
        action="store_true",
        help="hyperparams.yaml may call anything, such as lobes of your own",
    )


def load_model(source, device=None, revision=None, token=None, trust_source=False):
    """Loads a model of any kind of source.

    Arguments
    ---------
    source : str or Path
        `output_folder` of a training, folder that `speechbrain-ext export` wrote,
        or its name on the Hugging Face hub.
    device : str
        Where to compute; a GPU if there is one.
    revision : str
        Branch, tag or commit on the hub.
    token : str
        Token for the hub; the one that is logged in with if None.
    trust_source : bool
        See `SpeakerRecognition.from_hparams`.

    Returns
    -------
    SpeakerRecognition
        The model.

    Raises
    ------
    InputError
        See `SpeakerRecognition.from_hparams` and `from_training`.
    """
    run_opts = {} if device is None else {"device": device}
    if not is_training(source):
        return SpeakerRecognition.from_hparams(
            source,
            revision=revision,
            token=token,
            run_opts=run_opts,
            trust_source=trust_source,
        )
    if revision is not None:
        raise InputError(f"'{source}' is a folder, which has no revision; leave it out")
    return SpeakerRecognition.from_training(source, device_of(run_opts), trust_source)


def describe_model(source, revision=None, token=None, trust_source=False):
    """What a model is.

    Arguments
    ---------
    source : str or Path
        See `load_model`.
    revision : str
        See `load_model`.
    token : str
        See `load_model`.
    trust_source : bool
        See `load_model`.

    Returns
    -------
    dict
        encoder, back_end, parameters of each, sample_rate (Hz) and scoring; of an
        exported model all that `describe` says.
    """
    if not is_training(source):
        return describe(source, revision, token)
    model = load_model(source, "cpu", revision, token, trust_source)
    return {
        "encoder": type(model.encoder).__name__,
        "back_end": type(model.embedding_model).__name__,
        "parameters": {
            name: sum(parameter.numel() for parameter in module.parameters())
            for name, module in model.named_children()
        },
        "sample_rate": model.sample_rate,
        "scoring": {
            "threshold": model.scoring.threshold,
            "threshold_from": model.scoring.threshold_from,
        },
    }

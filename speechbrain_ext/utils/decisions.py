"""What decides whether two recordings are of one speaker, in words.

Without torch, as the help of the command line needs it at once.
"""


def decision_basis(scoring):
    """Says by which threshold a model decides, and which data that is from.

    Arguments
    ---------
    scoring : ModelScoring
        How the model scores and decides.

    Returns
    -------
    dict
        threshold, which is None where a log-likelihood ratio above 0 decides, and
        threshold_from.

    Example
    -------
    >>> from speechbrain_ext.inference.model_scoring import ModelScoring
    >>> decision_basis(ModelScoring(threshold=0.25))
    {'threshold': 0.25, 'threshold_from': 'unknown data'}
    """
    if scoring.threshold is None:
        return {"threshold": None, "threshold_from": "the model's calibration"}
    return {
        "threshold": scoring.threshold,
        "threshold_from": scoring.threshold_from or "unknown data",
    }


def threshold_text(basis):
    """Puts into words what `decision_basis` found.

    Arguments
    ---------
    basis : dict
        With threshold and threshold_from.

    Returns
    -------
    str
        Without brackets.

    Example
    -------
    >>> threshold_text({"threshold": 0.25, "threshold_from": "our calls"})
    'threshold 0.2500, from our calls'
    """
    if basis["threshold"] is None:
        return f"log-likelihood ratio above 0, by {basis['threshold_from']}"
    return f"threshold {basis['threshold']:.4f}, from {basis['threshold_from']}"

"""What a model's attention to layers looks like over many utterances."""

import torch
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

COLLAPSED = 0.01  # standard deviation of weights between 0 and 1


def layer_usage(weights):
    """Mean weight of each layer, and how much the weights vary.

    Weights that vary neither over layers nor over frames are no attention any
    more; arXiv 2512.22148 (section 5) names it as an early sign of a training
    that fails. SUPERB's weights, the same for all frames, vary over layers
    only.

    Arguments
    ---------
    weights : list of torch.Tensor
        For each utterance, of shape (head, frame, layer).

    Returns
    -------
    dict
        mean, by layer; mean_sum, of the weights of all layers of a frame, which
        for sigmoids (arXiv 2409.07770, equation 2) is not one; std_over_layers
        and std_over_frames, averages of the weights' standard deviations;
        collapsed, whether both are under 0.01.

    Example
    -------
    >>> usage = layer_usage([torch.full((4, 50, 13), 0.5)])
    >>> usage["mean"][0], usage["mean_sum"], usage["collapsed"]
    (0.5, 6.5, True)
    """
    frames = torch.cat([w.transpose(0, 1) for w in weights])
    over_layers = frames.std(dim=2, correction=0).mean().item()
    over_frames = frames.std(dim=0, correction=0).mean().item()
    usage = {
        "mean": frames.mean(dim=(0, 1)).tolist(),
        "mean_sum": frames.sum(dim=2).mean().item(),
        "std_over_layers": over_layers,
        "std_over_frames": over_frames,
        "collapsed": max(over_layers, over_frames) < COLLAPSED,
    }
    if usage["collapsed"]:
        logger.warning(
            f"the layer attention has collapsed to a constant: it varies by "
            f"{over_layers:.4f} over layers and {over_frames:.4f} over frames. "
            "Try a lower lr, or a longer warm-up or margin schedule"
        )
    return usage

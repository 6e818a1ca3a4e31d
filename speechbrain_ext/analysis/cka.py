"""Similarity of embeddings of different kinds."""


def linear_cka(first, second):
    """Linear centred kernel alignment (arXiv 1905.00414, equation 5).

    Arguments
    ---------
    first : torch.Tensor
        Embeddings, of shape (n_utterance, dim).
    second : torch.Tensor
        Other embeddings of the same utterances, of shape
        (n_utterance, other dim).

    Returns
    -------
    float
        1 where they agree but for rotation and scale, about 0 where they
        have nothing in common.

    Example
    -------
    >>> import torch
    >>> x = torch.randn(100, 8)
    >>> rotation, _ = torch.linalg.qr(torch.randn(8, 8))
    >>> round(linear_cka(x, 3 * x @ rotation), 4)
    1.0
    """
    first, second = (x.double() - x.double().mean(0) for x in (first, second))
    shared = (first.T @ second).norm() ** 2
    return (shared / ((first.T @ first).norm() * (second.T @ second).norm())).item()

"""Symmetric matrices as each pair of their indices once."""

import torch


def upper_triangles(matrices):
    """Each pair of a symmetric matrix's indices once.

    Arguments
    ---------
    matrices : torch.Tensor
        Symmetric matrices, of shape (..., n, n).

    Returns
    -------
    torch.Tensor
        Row by row, from the diagonal on, of shape (..., n * (n + 1) / 2).

    Example
    -------
    >>> upper_triangles(torch.tensor([[1.0, 2.0], [2.0, 3.0]]))
    tensor([1., 2., 3.])
    """
    rows, columns = pair_indices(matrices.shape[-1], matrices.device)
    return matrices[..., rows, columns]


def from_upper_triangles(pairs, n):
    """Symmetric matrices from `upper_triangles`.

    Arguments
    ---------
    pairs : torch.Tensor
        Of shape (..., n * (n + 1) / 2).
    n : int
        Rows of a matrix.

    Returns
    -------
    torch.Tensor
        Of shape (..., n, n).

    Example
    -------
    >>> from_upper_triangles(torch.tensor([1.0, 2.0, 3.0]), 2)
    tensor([[1., 2.],
            [2., 3.]])
    """
    rows, columns = pair_indices(n, pairs.device)
    matrices = pairs.new_empty(*pairs.shape[:-1], n, n)
    matrices[..., rows, columns] = pairs
    matrices[..., columns, rows] = pairs
    return matrices


def pair_indices(n, device=None):
    """Row and column of each pair, in the order of `upper_triangles`.

    Arguments
    ---------
    n : int
        Rows of a matrix.
    device : str or torch.device
        Where the indices are to be.

    Returns
    -------
    torch.Tensor
        Of shape (2, n * (n + 1) / 2).

    Example
    -------
    >>> pair_indices(2).tolist()
    [[0, 0, 1], [0, 1, 1]]
    """
    return torch.triu_indices(n, n, device=device)

"""Operations that leave padded frames out.

Maps are (batch, channel, ..., time); a mask is (batch, time), True where a
frame is valid, or None where every frame is.
"""

import torch
from torch.func import functional_call

from speechbrain_ext.nnet.batch_norm import n_processes, train_batch_norm


def is_traced():
    """Whether operations are recorded, to be run on other inputs later.

    What a branch on data decides in a recording is decided for all inputs, so
    there is none where this is True: masks are computed where nothing is padded
    too, and inputs are not checked.

    Returns
    -------
    bool
        True in `torch.compile`, `torch.export`, `torch.onnx.export` and
        `torch.jit.trace`.

    Example
    -------
    >>> is_traced()
    False
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def frame_counts(lengths, n_frames):
    """Number of valid frames of each utterance.

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths in (0, 1], of shape (batch,).
    n_frames : int
        Frames in the padded batch.

    Returns
    -------
    torch.Tensor
        Frames, of shape (batch,), dtype long.

    Example
    -------
    >>> frame_counts(torch.tensor([1.0, 0.7]), 10)
    tensor([10,  7])
    """
    # Rounded: 0.7 * 10 is a little over 7 in float32.
    counts = torch.round(lengths.double() * n_frames).long()
    return counts.clamp(min=1, max=n_frames)


def frame_mask(lengths, n_frames):
    """Mask of the valid frames.

    Arguments
    ---------
    lengths : torch.Tensor or None
        Relative lengths in (0, 1], of shape (batch,).
    n_frames : int
        Frames in the padded batch.

    Returns
    -------
    torch.Tensor or None
        Boolean mask of shape (batch, time); None where nothing is padded, so
        that unpadded batches take the plain, faster operations, unless they
        are traced.

    Example
    -------
    >>> frame_mask(torch.tensor([1.0, 0.5]), 2)
    tensor([[ True,  True],
            [ True, False]])
    >>> frame_mask(torch.tensor([1.0, 1.0]), 2) is None
    True
    """
    if lengths is None:
        return None
    return valid_positions(frame_counts(lengths, n_frames), n_frames)


def valid_positions(counts, n_positions):
    """Mask of the samples or frames that are not padding.

    Arguments
    ---------
    counts : torch.Tensor
        Valid samples or frames of each utterance, of shape (batch,).
    n_positions : int
        Samples or frames of the padded batch.

    Returns
    -------
    torch.Tensor or None
        The mask, as `frame_mask` gives it.

    Example
    -------
    >>> valid_positions(torch.tensor([3, 1]), 3)
    tensor([[ True,  True,  True],
            [ True, False, False]])
    """
    if not is_traced() and bool((counts == n_positions).all()):
        return None
    return torch.arange(n_positions, device=counts.device) < counts.unsqueeze(1)


def layers_to_map(hidden_states):
    """The map of layers and frames that 2D convolutions take.

    Arguments
    ---------
    hidden_states : torch.Tensor
        Hidden states, of shape (layer, batch, time, channel).

    Returns
    -------
    torch.Tensor
        Output, of shape (batch, channel, layer, time).

    Example
    -------
    >>> layers_to_map(torch.rand(13, 2, 50, 768)).shape
    torch.Size([2, 768, 13, 50])
    """
    x = hidden_states.permute(1, 3, 0, 2)
    # Strides that agree for a single utterance would make the recording one of
    # batches of two or more.
    return x.contiguous() if is_traced() else x


def expand_mask(mask, n_dims):
    """Reshapes a (batch, time) mask to broadcast over (batch, ..., time).

    Arguments
    ---------
    mask : torch.Tensor
        True for valid frames, of shape (batch, time).
    n_dims : int
        Dimensions of the map to mask.

    Returns
    -------
    torch.Tensor
        Mask, of shape (batch, 1, ..., 1, time).

    Example
    -------
    >>> expand_mask(torch.ones(2, 5, dtype=torch.bool), 4).shape
    torch.Size([2, 1, 1, 5])
    """
    return mask.reshape(mask.shape[0], *[1] * (n_dims - 2), mask.shape[1])


def zero_padding(x, mask):
    """Sets padded frames to zero, what "same" padding is beyond the last frame.

    Arguments
    ---------
    x : torch.Tensor
        Input, of shape (batch, channel, ..., time).
    mask : torch.Tensor or None
        True for valid frames, of shape (batch, time).

    Returns
    -------
    torch.Tensor
        Output of the shape of x.

    Example
    -------
    >>> zero_padding(torch.ones(1, 1, 2), torch.tensor([[True, False]]))
    tensor([[[1., 0.]]])
    """
    if mask is None:
        return x
    return x.masked_fill(~expand_mask(mask, x.dim()), 0.0)


def reflect_padding(x, mask, n_frames):
    """Pads both ends of each utterance with its own frames, mirrored.

    An utterance gets in any batch what PyTorch's reflect padding gives it
    alone. One that is shorter than the padding is mirrored again and again.

    Arguments
    ---------
    x : torch.Tensor
        Input, of shape (batch, channel, time).
    mask : torch.Tensor
        True for valid frames, of shape (batch, time).
    n_frames : int
        Frames to add at each end.

    Returns
    -------
    torch.Tensor
        Output, of shape (batch, channel, time + 2 * n_frames).

    Example
    -------
    >>> x = torch.tensor([[[1.0, 2.0, 3.0, 0.0, 0.0]]])
    >>> mask = torch.tensor([[True, True, True, False, False]])
    >>> reflect_padding(x, mask, 2)[0, 0, :7]
    tensor([3., 2., 1., 2., 3., 2., 1.])
    """
    period = 2 * (mask.sum(1, keepdim=True) - 1).clamp(min=0)
    index = torch.arange(-n_frames, x.shape[2] + n_frames, device=x.device)
    index = index % period.clamp(min=1)
    index = torch.minimum(index, (period - index).abs())
    return x.gather(2, index.unsqueeze(1).expand(-1, x.shape[1], -1))


def hold_last_frame(frames, mask):
    """Repeats the last valid frame, what `Deltas` takes for the frames after it.

    Arguments
    ---------
    frames : torch.Tensor
        Frames, of shape (batch, time, channel).
    mask : torch.Tensor or None
        True for valid frames, of shape (batch, time).

    Returns
    -------
    torch.Tensor
        Output of the shape of frames.

    Example
    -------
    >>> frames = torch.tensor([[[1.0], [2.0], [0.0]]])
    >>> hold_last_frame(frames, torch.tensor([[True, True, False]])).flatten()
    tensor([1., 2., 2.])
    """
    if mask is None:
        return frames
    last = mask.sum(1, keepdim=True) - 1
    index = torch.arange(frames.shape[1], device=frames.device).minimum(last)
    return frames.gather(1, index.unsqueeze(2).expand_as(frames))


def masked_mean(x, mask, dim):
    """Mean over the dimensions `dim`, the last of which is time.

    Arguments
    ---------
    x : torch.Tensor
        Input, of shape (batch, channel, ..., time).
    mask : torch.Tensor or None
        True for valid frames, of shape (batch, time).
    dim : tuple of int
        Dimensions to average over.

    Returns
    -------
    torch.Tensor
        Means, the averaged dimensions kept at size 1.

    Example
    -------
    >>> x = torch.tensor([[[1.0, 3.0, 8.0]]])
    >>> masked_mean(x, torch.tensor([[True, True, False]]), (2,))
    tensor([[[2.]]])
    """
    if mask is None:
        return x.mean(dim, keepdim=True)
    weights = expand_mask(mask, x.dim()).to(x.dtype)
    counts = weights.sum(dim, keepdim=True)
    for other in dim[:-1]:  # of which the mask has one for all
        counts = counts * x.shape[other]
    return (x * weights).sum(dim, keepdim=True) / counts


def masked_batch_norm(norm, x, mask, affine=True):
    """Batch norm whose training statistics count valid frames only.

    Arguments
    ---------
    norm : torch.nn.BatchNorm1d or torch.nn.BatchNorm2d or torch.nn.SyncBatchNorm
        The module; a plain one, so that it can be turned into one that
        counts the frames of all processes.
    x : torch.Tensor
        Input, of shape (batch, channel, time) or (batch, channel, layer, time).
    mask : torch.Tensor or None
        True for valid frames, of shape (batch, time).
    affine : bool
        Whether the output gets the module's weight and bias.

    Returns
    -------
    torch.Tensor
        Output of the shape of x; what stands in padded frames means nothing.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(1)
    >>> x = torch.tensor([[[1.0, 3.0, 50.0]]])
    >>> masked_batch_norm(norm, x, torch.tensor([[True, True, False]])).detach()
    tensor([[[-1.0000,  1.0000,  0.0000]]])
    """
    # Where processes share their statistics, a rank without padding takes the
    # same way as the others, which wait for it.
    if not norm.training or (mask is None and n_processes(norm) == 1):
        if affine:
            return norm(x)
        weight, bias = torch.ones_like(norm.weight), torch.zeros_like(norm.bias)
        return functional_call(norm, {"weight": weight, "bias": bias}, x)
    valid = None if mask is None else expand_mask(mask, x.dim())
    return train_batch_norm(norm, x, valid, affine)


def zero_padded_batch_norm(norm, x, mask, affine=True):
    """`masked_batch_norm` that leaves padded frames at zero.

    What a convolution with "same" padding takes next.

    Arguments
    ---------
    norm : torch.nn.BatchNorm1d or torch.nn.BatchNorm2d or torch.nn.SyncBatchNorm
        The module.
    x : torch.Tensor
        Input, of shape (batch, channel, time) or (batch, channel, layer, time).
    mask : torch.Tensor or None
        True for valid frames, of shape (batch, time).
    affine : bool
        Whether the output gets the module's weight and bias.

    Returns
    -------
    torch.Tensor
        Output of the shape of x.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(1).eval()
    >>> x = torch.tensor([[[1.0, 3.0, 50.0]]])
    >>> y = zero_padded_batch_norm(norm, x, torch.tensor([[True, True, False]]))
    >>> y[0, 0, 2].item()
    0.0
    """
    y = masked_batch_norm(norm, x, mask, affine)
    if mask is None or norm.training:  # which leaves zeros (`train_batch_norm`)
        return y
    if is_traced() or torch.is_grad_enabled():
        return zero_padding(y, mask)
    return y.masked_fill_(~expand_mask(mask, y.dim()), 0.0)

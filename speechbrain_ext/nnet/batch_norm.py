"""Batch norm over the valid frames of all processes, on GPUs and on CPUs."""

import torch
from speechbrain.utils.distributed import is_distributed_initialized
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class CPUSyncBatchNorm(_BatchNorm):
    """Synchronised batch norm for CPUs; PyTorch's own takes GPU tensors only.

    Its parameters and arguments are those of PyTorch's. It does not inherit
    from it, since `DistributedDataParallel` would refuse it on a CPU.

    Example
    -------
    >>> norm = CPUSyncBatchNorm(4)
    >>> norm(torch.rand(2, 4, 50)).shape
    torch.Size([2, 4, 50])
    """

    process_group = None  # all processes

    def _check_input_dim(self, x):
        """Any number of dimensions, as PyTorch's synchronised batch norm."""

    def forward(self, x):
        """Normalises each channel.

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, channel, ...).

        Returns
        -------
        torch.Tensor
            Output of the shape of x.
        """
        if self.training and n_processes(self) > 1:
            return train_batch_norm(self, x)
        return super().forward(x)


def synchronise_on_cpus(module):
    """Puts `CPUSyncBatchNorm` in the place of every batch norm.

    What `torch.nn.SyncBatchNorm.convert_sync_batchnorm` is for GPUs.

    Arguments
    ---------
    module : torch.nn.Module
        Module whose batch norms are replaced, with their own parameters and buffers.

    Returns
    -------
    torch.nn.Module
        The same module, unless it is a batch norm itself.

    Example
    -------
    >>> synchronise_on_cpus(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): CPUSyncBatchNorm(3, eps=1e-05, momentum=0.1, affine=True, ...)
    )
    """
    if isinstance(module, _BatchNorm):
        norm = CPUSyncBatchNorm(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
        )
        norm._parameters, norm._buffers = module._parameters, module._buffers
        return norm.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, synchronise_on_cpus(child))
    return module


def n_processes(norm):
    """Number of processes that a batch norm takes its statistics from.

    Arguments
    ---------
    norm : torch.nn.Module
        A batch norm, synchronised or not.

    Returns
    -------
    int
        The number; 1 for all norms but synchronised ones.

    Example
    -------
    >>> n_processes(nn.BatchNorm1d(4))
    1
    """
    if not isinstance(norm, (nn.SyncBatchNorm, CPUSyncBatchNorm)):
        return 1
    if not is_distributed_initialized():
        return 1
    return torch.distributed.get_world_size(norm.process_group)


def train_batch_norm(norm, x, valid=None, affine=True):
    """Batch norm as in training, with statistics of the valid elements.

    Where the norm is synchronised they are those of all processes together,
    each of which may have another number of valid elements. The processes
    exchange the same tensors whether or not one of them has padding.

    Arguments
    ---------
    norm : torch.nn.BatchNorm1d or torch.nn.BatchNorm2d or torch.nn.SyncBatchNorm
        The module, whose running statistics move.
    x : torch.Tensor
        Input, of shape (batch, channel, ...).
    valid : torch.Tensor or None
        Boolean, True where an element counts, of a shape that broadcasts to
        that of x and has no channels of its own; all elements if None.

    Returns
    -------
    torch.Tensor
        Output of the shape of x; zero where it is not valid.

    Example
    -------
    >>> norm = nn.BatchNorm1d(1)
    >>> x = torch.tensor([[[1.0, 3.0, 50.0]]])
    >>> valid = torch.tensor([[[True, True, False]]])
    >>> train_batch_norm(norm, x, valid).detach()
    tensor([[[-1.0000,  1.0000,  0.0000]]])
    """
    synchronised = n_processes(norm) > 1
    group = norm.process_group if synchronised else None
    weight, bias = (norm.weight, norm.bias) if affine else (None, None)
    y, mean, variance, count = _BatchNormOfValid.apply(
        x, valid, weight, bias, norm.eps, synchronised, group
    )
    if norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            momentum = norm.momentum
            if momentum is None:  # PyTorch's convention for a plain mean
                momentum = 1 / norm.num_batches_tracked
            unbiased = variance * count / (count - 1).clamp(min=1)
            norm.running_mean.lerp_(mean, momentum)
            norm.running_var.lerp_(unbiased, momentum)
    return y


class _BatchNormOfValid(torch.autograd.Function):
    """Forward and backward of `train_batch_norm`.

    By hand, since autograd would keep several copies of the map in float32.
    """

    @staticmethod
    def forward(ctx, x, valid, weight, bias, eps, synchronised, group):
        dims = [0, *range(2, x.dim())]
        precise = _at_least_float32(x)
        # Multiplied in place: `masked_fill` takes a processor eight times as long.
        ones = None if valid is None else valid.to(precise.dtype)
        count, mean, squares = _moments(precise, ones, dims)
        if synchronised:
            count, mean, squares = _merge(count, mean, squares, group)
        variance = squares / count
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, ones, weight, mean, scale, count)
        ctx.dims, ctx.synchronised, ctx.group = dims, synchronised, group
        gain = scale if weight is None else scale * weight
        shift = -mean * gain if bias is None else bias - mean * gain
        y = torch.addcmul(_as_channels(shift, x), precise, _as_channels(gain, x))
        y = _zero_invalid_(y, ones).to(x.dtype)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx, grad, *_):
        x, ones, weight, mean, scale, count = ctx.saved_tensors
        grad = _at_least_float32(grad)
        if ones is not None:
            grad = grad * ones
        deviation = _at_least_float32(x) - _as_channels(mean, x)
        sums = torch.stack([grad.sum(ctx.dims), (grad * deviation).sum(ctx.dims)])
        of_bias = of_weight = of_x = None
        if weight is not None:
            of_bias, of_weight = sums[0], sums[1] * scale
        # Whether an input needs a gradient is the same in all processes.
        if ctx.needs_input_grad[0]:
            if ctx.synchronised:
                sums = sums.clone()
                torch.distributed.all_reduce(sums, group=ctx.group)
            gain = scale if weight is None else scale * weight
            of_shift, of_scale = sums / count
            of_x = deviation.mul_(_as_channels(-gain * scale.square() * of_scale, x))
            of_x.sub_(_as_channels(gain * of_shift, x))
            of_x.addcmul_(grad, _as_channels(gain, x))
            of_x = _zero_invalid_(of_x, ones).to(x.dtype)
        return of_x, None, of_weight, of_bias, None, None, None


def _moments(x, ones, dims):
    """Number of elements, mean and sum of squared deviations by channel."""
    if ones is None:
        variance, mean = torch.var_mean(x, dims, correction=0)
        count = x.new_full((), x.numel() / x.shape[1])
        return count, mean, variance * count
    count = ones.sum() * (x[:, 0].numel() / ones.numel())
    mean = (x * ones).sum(dims) / count
    deviation = _zero_invalid_(x - _as_channels(mean, x), ones)
    return count, mean, deviation.square_().sum(dims)


def _merge(count, mean, squares, group):
    """The moments of all processes together (Chan et al., 1979)."""
    world = torch.distributed.get_world_size(group)
    rows = mean.new_zeros(world, 1 + 2 * len(mean))
    rows[torch.distributed.get_rank(group)] = torch.cat([count.view(1), mean, squares])
    torch.distributed.all_reduce(rows, group=group)
    counts, means, squares = rows.split([1, len(mean), len(mean)], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    between = (counts * (means - mean).square()).sum(0)
    return total, mean, squares.sum(0) + between


def _at_least_float32(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _as_channels(values, x):
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _zero_invalid_(x, ones):
    return x if ones is None else x.mul_(ones)

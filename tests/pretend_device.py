"""A device that is none: what is on it is computed by the processor.

As on a GPU, an operation on tensors of two devices fails, NumPy sees none of the
device's, and what is made for no device is made on the processor. So programs can be
tested for a GPU without one. Importing this makes "pretend" a device of PyTorch for
good, which libraries take for the machine's: only in a process of its own.
"""

import torch
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


backend_registration._setup_privateuseone_for_python_backend("pretend", _Backend())
autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
autocast.fallback(torch.library.fallthrough_kernel)
# Otherwise `Module.to` puts the new values into the parameters of the old class.
torch.__future__.set_overwrite_module_params_on_conversion(True)

DEVICE = torch.device("pretend:0")
aten = torch.ops.aten
# These alone take tensors of two devices.
MOVES = (aten._to_copy.default, aten.copy_.default)
INDEXING = ("index", "_index_put_impl_", "index_put", "index_put_")


class OnDevice(torch.Tensor):
    """A tensor on the device.

    Arguments
    ---------
    content : torch.Tensor
        What it holds, on the processor.
    """

    @staticmethod
    def __new__(cls, content):
        return torch.Tensor._make_wrapper_subclass(
            cls, content.size(), strides=content.stride(), dtype=content.dtype,
            storage_offset=content.storage_offset(), device=DEVICE,
        )  # fmt: skip

    def __init__(self, content):
        self.content = content

    def __repr__(self):
        return f"OnDevice({self.content})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})

    def __deepcopy__(self, memo):
        copy = OnDevice(self.content.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol):
        # A checkpoint is read to the processor.
        return self.content.detach().__reduce_ex__(protocol)

    def tolist(self):
        """As of a tensor."""
        return self.content.tolist()

    def numpy(self, *_, **__):
        """Fails, as for a tensor of a GPU."""
        raise TypeError(f"can't convert {DEVICE} tensor to numpy")

    def __array__(self, *_, **__):
        return self.numpy()


def content_of(value):
    """The tensor that one on the device holds; all else as it is."""
    return value.content if isinstance(value, OnDevice) else value


def _compute(function, args, kwargs):
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    is_on_device = any(isinstance(x, OnDevice) for x in tensors)
    name = function.__name__.partition(".")[0]
    if is_on_device and function not in MOVES and name not in INDEXING:
        for tensor in tensors:
            if not isinstance(tensor, OnDevice) and tensor.dim() > 0:
                raise RuntimeError(
                    f"{function}: tensors of two devices, one on the processor of "
                    f"shape {tuple(tensor.shape)}"
                )
    asked = kwargs.get("device")
    on_processor = dict(kwargs, device="cpu") if asked is not None else kwargs
    result = function(*tree_map(content_of, args), **tree_map(content_of, on_processor))
    if function is aten.copy_.default:
        return args[0]
    if is_on_device and torch.Tag.inplace_view in function.tags:
        with no_dispatch():  # The outer tensor changes its shape with its content.
            return function(*args, **kwargs)
    stays = is_on_device if asked is None else torch.device(asked).type == DEVICE.type
    # Operations in place return what they were given.
    given = {id(content_of(tensor)): tensor for tensor in tensors}

    def placed(value):
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in given:
            return given[id(value)]
        return OnDevice(value) if stays else value

    return tree_map(placed, result)


class PretendDevice(TorchDispatchMode):
    """In its context tensors can be made on the device and moved to it."""

    def __enter__(self):
        # What is made of numbers comes here on its way to a device.
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})

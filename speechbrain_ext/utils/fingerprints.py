"""What tells whether two models can give different outputs."""

import enum
import functools
import hashlib
import os
import re
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from speechbrain_ext.utils.cache_keys import stable_hash

# Where a model was loaded from or computes, and the libraries that did so,
# change no output beyond rounding; the last two are PyTorch's notes of whether
# autocast was on in the last call.
IGNORED_ATTRIBUTES = {
    "_commit_hash", "_name_or_path", "device", "name_or_path", "save_path",
    "source", "transformers_version", "_dtype", "_fwd_used_autocast",
}  # fmt: skip
DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
MODULE_INTERNALS = set(vars(nn.Module())) - {"_modules", "training"}
HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def model_fingerprint(model):
    """Hash of all that a model's outputs depend on.

    Of its parameters and buffers, and of its configuration: the classes of
    all its modules and everything that they keep as attributes. Two models
    that can give different outputs have different fingerprints; the same
    model loaded again, from another folder or to another device, has the same
    one. Text that holds a path is left out for that. A module whose forward
    leaves something behind that changes no later output names these
    attributes in `fingerprint_ignores`, beside those of its base classes.

    Arguments
    ---------
    model : torch.nn.Module
        The model.

    Returns
    -------
    str
        128 hexadecimal digits: 64 of the weights, 64 of the configuration.

    Example
    -------
    >>> pool = model_fingerprint(torch.nn.AvgPool1d(2))
    >>> pool == model_fingerprint(torch.nn.AvgPool1d(2))
    True
    >>> pool == model_fingerprint(torch.nn.AvgPool1d(3))
    False
    """
    named = [
        item
        for tensors in (model.named_parameters, model.named_buffers)
        for item in sorted(tensors(remove_duplicate=False))
    ]
    digest = hashlib.blake2b(digest_size=32)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        digests = pool.map(tensor_digest, (value for _, value in named))
        for (name, _), own in zip(named, digests):
            digest.update(f"{name} {own}".encode())
    return digest.hexdigest() + stable_hash(_Description().of(model))


def fingerprint_differences(kept, wanted):
    """Names what differs between two models.

    Arguments
    ---------
    kept : str
        Fingerprint of an earlier model.
    wanted : str
        Fingerprint of the model that is wanted.

    Returns
    -------
    list of str
        Which differ, of weights and configuration.

    Example
    -------
    >>> narrow, wide = (torch.nn.AvgPool1d(n) for n in (2, 3))
    >>> fingerprint_differences(model_fingerprint(narrow), model_fingerprint(wide))
    ['configuration']
    """
    parts = {"weights": slice(64), "configuration": slice(64, None)}
    return [name for name, part in parts.items() if kept[part] != wanted[part]]


def tensor_digest(value):
    """Hash of a tensor's shape, type and content.

    Arguments
    ---------
    value : torch.Tensor
        The tensor, on any device.

    Returns
    -------
    str
        Shape, type and 64 hexadecimal digits.

    Example
    -------
    >>> tensor_digest(torch.ones(2)) == tensor_digest(torch.zeros(2))
    False
    """
    flat = value.detach().cpu().contiguous().flatten()
    content = flat.view(torch.uint8).numpy()
    digest = hashlib.blake2b(content, digest_size=32).hexdigest()
    return f"{tuple(value.shape)} {value.dtype} {digest}"


def _name(value):
    return f"{value.__module__}.{value.__qualname__}"


def _is_own_hook(hook):
    # transformers adds hooks in the first call, by which it notes hidden states.
    return not getattr(hook, "__module__", "").startswith("transformers.")


class _Description:
    """Plain data that tells objects apart, attributes and all."""

    def __init__(self):
        # The objects too: a number is free for the next one when one has gone.
        self._seen = {}

    def of(self, value):
        if value is None or isinstance(value, (bool, int, float, complex)):
            return repr(value)
        if isinstance(value, (str, bytes, os.PathLike)):
            return self._of_text(value)
        if isinstance(value, (enum.Enum, torch.dtype, slice, range)):
            return repr(value)
        if isinstance(value, torch.device):
            return "device"
        if isinstance(value, torch.Tensor):
            return tensor_digest(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return [str(value.dtype), value.shape, value.tolist()]
        if isinstance(value, (type, types.BuiltinFunctionType)):
            return value.__qualname__
        if isinstance(value, types.ModuleType):
            return value.__name__
        if id(value) in self._seen:
            return ["seen", self._seen[id(value)][0]]
        self._seen[id(value)] = len(self._seen), value
        return self._of_container(value) or self._of_object(value)

    def _of_text(self, value):
        text = os.fsdecode(value)
        is_path = isinstance(value, os.PathLike) or "/" in text or os.sep in text
        if is_path or DEVICE.fullmatch(text):
            return "path or device"
        return f"text {text}"

    def _of_container(self, value):
        if isinstance(value, dict):
            # In their order, which that of the modules depends on.
            items = [[str(key), self.of(part)] for key, part in value.items()]
            return [_name(type(value)), items]
        if isinstance(value, (list, tuple)):
            return [_name(type(value)), *map(self.of, value)]
        if isinstance(value, (set, frozenset)):
            return [_name(type(value)), *sorted(map(repr, map(self.of, value)))]
        return None

    def _of_object(self, value):
        if isinstance(value, functools.partial):
            parts = value.func, value.args, value.keywords
            return ["partial", *map(self.of, parts)]
        if isinstance(value, types.MethodType):
            return ["method", _name(value.__func__), self.of(value.__self__)]
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        kind = type(value)
        state = dict(getattr(value, "__dict__", {}))
        for base in kind.__mro__:
            slots = getattr(base, "__slots__", ())
            for slot in [slots] if isinstance(slots, str) else slots:
                if hasattr(value, slot):
                    state[slot] = getattr(value, slot)
        if not state and not isinstance(value, nn.Module):
            return [_name(kind), self._of_reduced(value)]
        own = (vars(base).get("fingerprint_ignores", ()) for base in kind.__mro__)
        ignored = IGNORED_ATTRIBUTES.union(*own)
        if isinstance(value, nn.Module):
            ignored |= MODULE_INTERNALS
            # Their keys count all hooks of the process.
            hooks = [list(state.pop(name).values()) for name in HOOKS]
            state["hooks"] = [list(filter(_is_own_hook, of_kind)) for of_kind in hooks]
            # What transformers' modules compute is in their configuration; the
            # rest is notes that they take while they run.
            if kind.__module__.startswith("transformers."):
                ignored |= {name for name in state if name.startswith("_")}
                ignored -= {"_modules"}
                ignored |= {"hooks"}
        names = sorted(set(state) - ignored)
        return [_name(kind), [[name, self.of(state[name])] for name in names]]

    def _of_function(self, value):
        parts = [value.__defaults__, value.__kwdefaults__]
        if "<" in value.__qualname__:
            # A function made by code: what it is made from tells it apart.
            code = value.__code__
            parts += [code.co_code.hex(), code.co_names]
            parts += [c for c in code.co_consts if not isinstance(c, types.CodeType)]
            parts += [cell.cell_contents for cell in value.__closure__ or ()]
        return [_name(value), *map(self.of, parts)]

    def _of_reduced(self, value):
        try:
            reduced = value.__reduce_ex__(2)
        except (TypeError, RuntimeError):
            return "no state"
        return self.of(reduced)

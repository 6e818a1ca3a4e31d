"""Values that follow from parameters which training steps of their own change."""


class Derived:
    """A value that is computed anew where the tensors that it is of have changed.

    Arguments
    ---------
    compute : callable
        From the tensors to the value.

    Example
    -------
    >>> import torch
    >>> calls = []
    >>> total = Derived(lambda x: calls.append(1) or x.sum())
    >>> x = torch.ones(3)
    >>> total(x), total(x), len(calls)
    (tensor(3.), tensor(3.), 1)
    >>> total(x.fill_(2.0)), len(calls)
    (tensor(6.), 2)
    """

    fingerprint_ignores = ("key", "value")

    def __init__(self, compute):
        self.compute = compute
        self.key = None
        self.value = None

    def __call__(self, *tensors):
        """Gives the value.

        Arguments
        ---------
        *tensors : torch.Tensor
            What it is of.

        Returns
        -------
        object
            What `compute` gives for them.
        """
        if any(tensor.is_inference() for tensor in tensors):
            return self.compute(*tensors)  # PyTorch does not count their changes
        # It counts those of all others, of load_state_dict too.
        key = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if key != self.key:
            self.value = self.compute(*tensors)
            self.key = key  # last, for threads that share it
        return self.value

    def __reduce__(self):
        # Of a copy the tensors are others.
        return Derived, (self.compute,)

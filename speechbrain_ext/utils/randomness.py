"""Random numbers that depend on what they are for, not on what went before."""

import contextlib
import hashlib
import os
import random

import numpy as np
import torch


def seed_of(*key):
    """A seed for what the key names.

    Arguments
    ---------
    *key : int or str
        Such as the seed of a training, the step and the rank.

    Returns
    -------
    int
        A number of 48 bits; the same for the same key on every machine.

    Example
    -------
    >>> seed_of(1986, 5) == seed_of(1986, 5), seed_of(1986, 5) == seed_of(1986, 6)
    (True, False)
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def seed_generators(*key):
    """Seeds all global generators, those of the GPUs too, from a key.

    Dropout, masks and augmentations draw from them; after this call they draw
    what the key says, however many numbers were drawn before.

    Arguments
    ---------
    *key : int or str
        Handed on to `seed_of`.

    Example
    -------
    >>> seed_generators(1986, "step", 5)
    >>> first = torch.rand(3)
    >>> seed_generators(1986, "step", 5)
    >>> torch.equal(torch.rand(3), first)
    True
    """
    seed = seed_of(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    # SpeechBrain shuffles recordings of noise and rooms with it.
    os.environ["SB_GLOBAL_SEED"] = str(seed)


@contextlib.contextmanager
def seeded(*key):
    """Seeds the global generators of the processor for a while.

    Afterwards they go on as if nothing had been drawn.

    Arguments
    ---------
    *key : int or str
        Handed on to `seed_of`.

    Example
    -------
    >>> with seeded(1986, 5):
    ...     first = random.random()
    >>> with seeded(1986, 5):
    ...     print(random.random() == first)
    True
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = seed_of(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])

"""Speaker verification lobes, losses, scoring and recipes for SpeechBrain."""

from speechbrain_ext import _moved

__version__ = "0.1.0"

_moved.install()

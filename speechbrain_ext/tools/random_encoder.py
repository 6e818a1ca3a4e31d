"""Old name of lobes.encoders.random_encoder and of `speechbrain-ext random-encoder`."""

import sys

from speechbrain_ext._moved import find_moved
from speechbrain_ext.tools import run_command


def __getattr__(name):
    return find_moved(__name__, name)


if __name__ == "__main__":
    run_command("random-encoder", sys.argv[1:])

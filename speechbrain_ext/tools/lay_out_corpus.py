"""Old name of dataio.layouts and of `speechbrain-ext lay-out-corpus`."""

import sys

from speechbrain_ext._moved import find_moved
from speechbrain_ext.tools import run_command


def __getattr__(name):
    return find_moved(__name__, name)


if __name__ == "__main__":
    run_command("lay-out-corpus", sys.argv[1:])

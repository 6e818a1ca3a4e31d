"""Old name of training.results_table and of `speechbrain-ext results-table`."""

import sys

from speechbrain_ext._moved import find_moved
from speechbrain_ext.tools import run_command


def __getattr__(name):
    return find_moved(__name__, name)


if __name__ == "__main__":
    run_command("results-table", sys.argv[1:])

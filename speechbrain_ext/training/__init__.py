"""Brains and the steps of recipes."""

from speechbrain_ext._moved import find_moved


def __getattr__(name):
    return find_moved(__name__, name)

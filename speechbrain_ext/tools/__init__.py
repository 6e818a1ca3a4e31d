"""Tools for the command line: python -m speechbrain_ext.tools.NAME."""

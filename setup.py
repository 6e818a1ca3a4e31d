from setuptools import setup  # All settings are in pyproject.toml.

setup()

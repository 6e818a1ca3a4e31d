"""Brains and the steps of recipes."""

"""Metrics, plots, checkpoints and other tools."""

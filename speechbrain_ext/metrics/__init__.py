"""Metrics of scored trials."""

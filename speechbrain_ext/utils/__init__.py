"""Errors, files and tables, which everything else builds on."""

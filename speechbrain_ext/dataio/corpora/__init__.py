"""Corpora, one module each."""

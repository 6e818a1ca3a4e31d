"""Embedding models, each in a file of its own."""

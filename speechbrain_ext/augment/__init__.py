"""Augmentation of features."""

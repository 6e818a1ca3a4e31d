"""Plots by topic, each written as PNG and PDF."""

"""Encoders: from waveforms to hidden states."""

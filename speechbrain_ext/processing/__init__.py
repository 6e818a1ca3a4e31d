"""From waveforms to embeddings to scores."""

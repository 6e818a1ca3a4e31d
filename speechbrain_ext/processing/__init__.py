"""From embeddings to scores."""

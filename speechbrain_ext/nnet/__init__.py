"""Neural network layers: pooling and masked operations."""

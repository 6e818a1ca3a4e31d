"""What trained models attend to and know."""

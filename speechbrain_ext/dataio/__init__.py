"""Reading audio and trials, preparing corpora."""

"""From songs to records and from records to batches; imports neither jax nor the models."""

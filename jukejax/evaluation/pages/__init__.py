"""What people look at: players, the explorer, the report page, plots; no jax to write a page."""

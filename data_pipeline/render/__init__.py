"""Renders scores as songs with singing and a band; only the alignment benchmark imports it."""

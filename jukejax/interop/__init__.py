"""Checkpoints and functions in other projects' formats: OpenAI, HuggingFace, StableHLO."""

"""All formats that are fuzzed."""

from tests.fuzz import datasets, sounds, texts, weights

FORMATS = [*texts.FORMATS, *sounds.FORMATS, *weights.FORMATS, *datasets.FORMATS]

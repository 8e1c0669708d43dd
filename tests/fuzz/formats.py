"""All formats that are fuzzed."""

from tests.fuzz import sounds, texts, weights

FORMATS = [*texts.FORMATS, *sounds.FORMATS, *weights.FORMATS]

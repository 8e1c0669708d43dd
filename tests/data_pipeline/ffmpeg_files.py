"""Writes AAC, M4A and WMA files by FFmpeg."""

import av
import numpy as np

KINDS = {"m4a": ("aac", "ipod"), "aac": ("aac", "adts"), "wma": ("wmav2", "asf")}
BLOCK = 1024


def write(path, samples, rate=44_100, codec=None, options=None):
    """Encodes (n, channels) floats by the suffix of the path."""
    name, container = KINDS[path.suffix[1:]]
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        stream = file.add_stream(codec or name, rate=rate)
        stream.layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T.astype(np.float32)), "fltp", stream.layout.name
        )
        frame.sample_rate = rate
        queue = av.AudioFifo()
        queue.write(frame)
        while block := queue.read(2 * BLOCK if name == "wmav2" else BLOCK, partial=True):
            file.mux(stream.encode(block))
        file.mux(stream.encode(None))
    return path

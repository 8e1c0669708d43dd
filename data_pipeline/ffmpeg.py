"""Sound files that libsndfile cannot read (AAC and ALAC in MP4, ADTS, WMA), by FFmpeg.

FFmpeg comes with PyAV, the extra `m4a`, which is imported where such a file is opened. None of
these kinds of file declares its samples exactly, or can be decoded exactly from a given sample on:
files are decoded from their start.
"""

import functools
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jukejax.errors import DataError

SUFFIXES = (".m4a", ".aac", ".wma")
_ASF = bytes.fromhex("3026b2758e66cf11")
_SLACK = 0.25  # seconds by which a declared length may differ from the sound
_MENDED = "copy or encode it again, or remove it"


def demuxer(header: bytes) -> str:
    """FFmpeg's name of the container that a file with these first bytes is; "" for others."""
    if header[4:8] == b"ftyp":
        return "mov"
    if header[:8] == _ASF:
        return "asf"
    adts = header[:1] == b"\xff" and len(header) > 1 and header[1] & 0xF6 == 0xF0
    return "aac" if adts else ""


class FFmpegSound:
    """A sound file with the attributes and methods of soundfile.SoundFile that `audio` uses."""

    format, extra_info = "FFMPEG", ""

    def __init__(self, path: Path, container: str) -> None:
        """Opens the file and decodes its first frame, which alone shows the sample rate of AAC.

        Args:
          path: the file.
          container: as of `demuxer`.

        Raises:
          DataError: PyAV is missing, or the file has no sound that can be decoded.
        """
        self.path, self.container = path, container
        self.samplerate = self._total = self._given = 0  # frames: all, and given by `read`
        self._decoded = self._frames()
        first = next(self._decoded, None)
        if first is None:
            raise DataError(f"{path} holds no sound; {_MENDED}")
        self.channels, self._rest = first.shape[1], first

    def _frames(self) -> Generator[npt.NDArray[np.float32], None, None]:
        """All decoded frames (n, channels); checks that none is missing."""
        try:
            import av
        except ImportError as error:
            raise DataError(
                f"{self.path} is read by PyAV, which is missing: pip install 'jukejax[m4a]', or "
                "convert it to wav, flac, ogg, mp3 or opus"
            ) from error
        count = 0
        try:
            with av.open(str(self.path), format=self.container) as file:
                stream = next(iter(file.streams.audio), None)
                to_float = av.AudioResampler(format="fltp")
                for frame in file.decode(stream) if stream else ():
                    self.samplerate = self.samplerate or frame.sample_rate
                    if frame.sample_rate != self.samplerate:
                        raise DataError(
                            f"{self.path} holds sounds of different sample rates, one after "
                            f"another; {_MENDED}"
                        )
                    for block in to_float.resample(frame):
                        count += block.samples
                        yield np.asarray(block.to_ndarray().T, np.float32)
                # that of ADTS is a guess from the bitrate
                declared = 0 if self.container == "aac" else (file.duration or 0) / av.time_base
        except (av.error.FFmpegError, OSError) as error:
            where = f"at {count / self.samplerate:.1f} s" if count else "at its start"
            raise DataError(
                f"{self.path} is damaged or cut short {where} ({error.strerror}); {_MENDED}"
            ) from error
        if count and count / self.samplerate < declared - _SLACK:
            raise DataError(
                f"{self.path} is cut short: {count / self.samplerate:.1f} of {declared:.1f} s are "
                f"there; {_MENDED}"
            )
        self._total = count

    @property
    def frames(self) -> int:
        """Frames of the whole file, by decoding it once."""
        if self._total:
            return self._total
        stat = os.stat(self.path)
        return _count(self.path, self.container, stat.st_size, stat.st_mtime_ns)

    def read(self, frames: int, **_: Any) -> npt.NDArray[np.float32]:
        """The next frames (n, channels) float32; n < frames at the end of the file."""
        blocks = [self._rest]
        while sum(map(len, blocks)) < frames and (block := next(self._decoded, None)) is not None:
            if block.shape[1] != self.channels:
                raise DataError(f"{self.path} changes its number of channels; {_MENDED}")
            blocks.append(block)
        data = np.concatenate(blocks)
        self._rest = data[frames:]
        self._given += min(frames, len(data))
        return data[:frames]

    def seek(self, frame: int) -> None:
        """Moves forwards to a frame: decodes what is before it."""
        while self._given < frame and len(self.read(min(1 << 16, frame - self._given))):
            pass

    def close(self) -> None:
        """Closes the file."""
        self._decoded.close()

    def __enter__(self) -> "FFmpegSound":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@functools.lru_cache(4096)
def _count(path: Path, container: str, _size: int, _modified: int) -> int:
    with FFmpegSound(path, container) as sound:
        while len(sound.read(1 << 16)):
            pass
        return sound.frames

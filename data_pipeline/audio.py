"""Decodes any sound file to stereo int16 of one sample rate, block by block."""

import contextlib
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from data_pipeline import contents
from data_pipeline.ffmpeg import FFmpegSound
from data_pipeline.quiet import captured_mpg123
from data_pipeline.songs import SAMPLE_RATE
from jukejax.errors import DataError

_LOG = logging.getLogger(__name__)
KINDS = "wav, flac, ogg, mp3 or opus"
# kinds of file, by libsndfile's names, whose sound is counted
_COUNTED = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
BLOCK = 65_536  # frames read at a time
_LEAST_RATE = 1000  # Hz; a lower one is that of a damaged header, and would stretch the sound
SILENCE = 1e-4  # a song with a lower peak is refused as silent
_CANCELLED = 1e-3  # -30 dB: least power of the mean of the channels, as a share of theirs
_LOUDEST = 32.0  # +30 dBFS: floats above it are integers stored as floats
_CONTEXT = 8192  # frames decoded on both sides of a part: more than the resampler's filter
_STREAMED = 0x7FFF_0000  # a WAV length from here on: unknown, the file was written to a pipe

Pcm = npt.NDArray[np.int16]
Samples = npt.NDArray[np.float32]
Sound: TypeAlias = soundfile.SoundFile | FFmpegSound

_HALF = np.sqrt(0.5)
# Rows are channels in WAV order, columns left and right. L R C [LFE] Ls Rs by ITU-R BS.775: centre
# and surrounds at -3 dB, no LFE, no scaling (samples over full scale are clipped).
_LEFT, _RIGHT, _BOTH, _NONE = (1, 0), (0, 1), (_HALF, _HALF), (0, 0)
_LEFT_BACK, _RIGHT_BACK = (_HALF, 0), (0, _HALF)
_DOWNMIX = {
    1: [(1, 1)],
    2: [_LEFT, _RIGHT],
    3: [_LEFT, _RIGHT, _BOTH],
    4: [_LEFT, _RIGHT, _LEFT_BACK, _RIGHT_BACK],
    5: [_LEFT, _RIGHT, _BOTH, _LEFT_BACK, _RIGHT_BACK],
    6: [_LEFT, _RIGHT, _BOTH, _NONE, _LEFT_BACK, _RIGHT_BACK],
    7: [_LEFT, _RIGHT, _BOTH, _NONE, (0.5, 0.5), _LEFT_BACK, _RIGHT_BACK],
    8: [_LEFT, _RIGHT, _BOTH, _NONE, *[_LEFT_BACK, _RIGHT_BACK] * 2],
}
# Vorbis and Opus put the centre second and the LFE last, and libsndfile keeps that order.
_FRONT = [_LEFT, _BOTH, _RIGHT]
_OGG_DOWNMIX = {
    3: _FRONT,
    5: [*_FRONT, _LEFT_BACK, _RIGHT_BACK],
    6: [*_FRONT, _LEFT_BACK, _RIGHT_BACK, _NONE],
    7: [*_FRONT, _LEFT_BACK, _RIGHT_BACK, (0.5, 0.5), _NONE],
    8: [*_FRONT, *[_LEFT_BACK, _RIGHT_BACK] * 2, _NONE],
}


def downmix_matrix(channels: int, ogg: bool = False) -> Samples:
    """(channels, 2) float32 weights to left and right.

    Up to 8 channels are read in WAV order (front left, front right, centre, LFE, back, side), or
    with `ogg` in that of Vorbis (front left, centre, front right, side, back, LFE). More than 8
    have no standard order: the first, third, ... go left, the others right, averaged.
    """
    known = {**_DOWNMIX, **_OGG_DOWNMIX} if ogg else _DOWNMIX
    if channels in known:
        return np.asarray(known[channels], np.float32)
    sides = np.arange(channels)[:, None] % 2 == np.arange(2)
    return (sides / sides.sum(axis=0)).astype(np.float32)


def to_int16(samples: Samples) -> Pcm:
    """Rounds floats in [-1, 1) to int16 and clips louder ones."""
    scaled = samples * np.float32(32768.0)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)


def decode(
    path: str | Path, min_seconds: float = 1.0, sample_rate: int = SAMPLE_RATE
) -> Iterator[Pcm]:
    """Yields the file as blocks (n, 2) int16 at `sample_rate` Hz; n > 0 varies.

    Damage may show at the end only: do not use the blocks before the last one has been read.

    Raises:
      DataError: the file is not audio, is cut short or damaged, has samples that are NaN, infinite
        or far beyond full scale, is shorter than `min_seconds`, or the mean of its channels, which
        the models hear, is silent.
    """
    path = Path(path)
    check(path)
    with _open(path) as sound:
        resample = _Resampler(sound.samplerate, sample_rate, min(sound.channels, 2), path)
        heard, frames = _Heard(), 0
        for block in _blocks(sound, path):
            heard.add(block)
            pcm = resample(block, last=False)
            frames += len(pcm)
            if len(pcm):
                yield pcm
        pcm = resample(np.zeros((0, min(sound.channels, 2)), np.float32), last=True)
        frames += len(pcm)
    if frames < min_seconds * sample_rate:
        raise DataError(
            f"{path} is {frames / sample_rate:.2f} s long, shorter than {min_seconds:g} s; "
            "remove it, or lower --min-seconds"
        )
    if problem := heard.problem():
        raise DataError(f"{path} {problem}")
    if len(pcm):
        yield pcm


class _Heard:
    """Whether the models, which hear the mean of the channels, would hear a song."""

    def __init__(self) -> None:
        self.peak = self.mean_peak = 0.0
        self.power = self.mean_power = 0.0  # sums over frames

    def add(self, block: Samples) -> None:
        """Takes the next block (n, 1 or 2), n > 0."""
        mean = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        self.peak = max(self.peak, float(block.max()), -float(block.min()))
        self.mean_peak = max(self.mean_peak, float(mean.max()), -float(mean.min()))
        self.power += float(np.square(block).sum()) / block.shape[1]
        self.mean_power += float(np.square(mean).sum())

    def problem(self) -> str:
        """What is wrong, and how to mend it; "" if nothing is."""
        if self.peak < SILENCE:
            return f"is silent (its peak is {self.peak:.1e}); remove it or export it again"
        if self.mean_peak < SILENCE or self.mean_power < _CANCELLED * self.power:
            return (
                "has channels of opposite phase: their mean, which the models hear, is silent; "
                "invert one channel, or remove it"
            )
        return ""


def check(path: Path) -> None:
    """Checks a file for damage that libsndfile does not report; takes milliseconds.

    Raises:
      DataError: an Ogg page is damaged or missing, or Ogg or FLAC files are joined.
    """
    try:
        problem = contents.problem(path)
    except OSError:  # reported when it is decoded
        return
    if problem:
        raise DataError(f"{path} {problem}; copy or encode it again, or remove it")


def length(path: str | Path, sample_rate: int = SAMPLE_RATE) -> int:
    """Samples that `decode` gives of a file, by its header, or counted where that says less.

    Raises:
      DataError: the file is not audio, or its header says that it is cut short.
    """
    with _open(Path(path)) as sound:
        # rounded to the nearest sample, as the resampler does
        return (2 * sound.frames * sample_rate + sound.samplerate) // (2 * sound.samplerate)


def decode_part(path: str | Path, start: int, stop: int, sample_rate: int = SAMPLE_RATE) -> Pcm:
    """Samples start..stop of what `decode` gives of a file that passed `check`.

    Little more than the part is decoded.

    (n, 2) int16, n < stop - start at the end of the file. The same samples at the file's own rate;
    resampled, they may differ by rounding.

    Raises:
      DataError: as of `decode`, of what is read.
    """
    path = Path(path)
    with _open(path) as sound:
        # The part starts where a frame of the file and a sample of the result coincide.
        common = math.gcd(sound.samplerate, sample_rate)
        frames, samples = sound.samplerate // common, sample_rate // common
        before = 0 if sound.samplerate == sample_rate else _CONTEXT
        first = max(0, start * frames // samples - before) // frames
        last = min(sound.frames, -(-stop * frames // samples) + before)
        block = _read(sound, path, last - first * frames, first * frames, seek=True)
        if first * frames + len(block) < min(last, sound.frames - _slack(sound)):
            raise DataError(f"{path} is cut short; copy or encode it again, or remove it")
        pcm = _Resampler(sound.samplerate, sample_rate, block.shape[1], path)(block, last=True)
    return pcm[start - first * samples : stop - first * samples]


def _slack(sound: Sound) -> int:
    """Frames that may be missing: of MP3, whose tag may count itself, and a decoder's delay."""
    return 4 * 1152 if sound.format == "MP3" else 0


def _open(path: Path) -> Sound:
    """Opens a sound file and checks its header."""
    try:
        held = contents.contents(path)
        if held.demuxer:
            return FFmpegSound(path, held.demuxer)
        with captured_mpg123([]):
            file = contents.PiecedFile(path, held.pieces) if held.pieces else path
            sound = soundfile.SoundFile(file)
    except DataError:
        raise
    except (soundfile.LibsndfileError, TypeError, ValueError, OSError) as error:
        why = getattr(error, "error_string", str(error)).strip().rstrip(".")
        if path.is_file() and why.startswith("File does not exist"):
            why = "Format not recognised"  # libsndfile says so of an MP3 without a frame
        raise DataError(
            f"{path} is not a sound file that can be read ({why}); "
            f"convert it to {KINDS}, or remove it"
        ) from error
    problem = _header_problem(sound, path)
    if problem:
        sound.close()
        raise DataError(f"{path} {problem}; copy or encode it again, or remove it")
    return sound


def _header_problem(sound: Sound, path: Path) -> str:
    if sound.format not in _COUNTED:
        return (
            f"is a file of the kind {sound.format}, in which sound beyond the declared length is "
            f"not found; convert it to {KINDS} (ffmpeg -i {path.name} {path.stem}.flac)"
        )
    if sound.channels < 1 or sound.samplerate < _LEAST_RATE:
        return f"has a header of {sound.channels} channels at {sound.samplerate} Hz"
    if sound.format in ("WAV", "WAVEX"):
        lengths = re.search(r"^data\s*: (\d+) \(should be (\d+)\)", sound.extra_info, re.M)
        if lengths and int(lengths[2]) < int(lengths[1]) < _STREAMED:
            return f"is cut short: {lengths[2]} of {lengths[1]} bytes of sound are there"
    return ""


def _blocks(sound: Sound, path: Path) -> Iterator[Samples]:
    """Yields (n, 1 or 2) float32 at the file's own rate; checks that nothing is missing."""
    frames = 0
    while len(block := _read(sound, path, BLOCK, frames)):
        frames += len(block)
        yield block
    if frames + _slack(sound) < sound.frames and sound.frames < 2**62:
        raise DataError(
            f"{path} is cut short: {frames} of {sound.frames} frames are there; "
            "copy or encode it again, or remove it"
        )


def _read(sound: Sound, path: Path, frames: int, start: int, seek: bool = False) -> Samples:
    """Up to `frames` frames from `start` on, (n, 1 or 2) float32 at the file's own rate.

    `start` is where the last read ended, unless `seek`.
    """
    where = f"at {start / sound.samplerate:.1f} s"
    problems: list[str] = []
    try:
        with captured_mpg123(problems) if sound.format == "MP3" else contextlib.nullcontext():
            if seek:
                sound.seek(start)
            block = sound.read(frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(
            f"{path} is damaged or cut short {where} ({error.error_string.rstrip('.')}); copy or "
            "encode it again, or remove it"
        ) from error
    if problems:
        _LOG.warning("%s has damaged MP3 frames %s or later (%s)", path, where, problems[0])
    if len(block) and not np.isfinite([block.min(), block.max()]).all():  # both are NaN if any is
        raise DataError(
            f"{path} holds NaN or infinite samples {where} or later; export it again, or remove it"
        )
    if len(block) and max(block.max(), -block.min()) > _LOUDEST:
        raise DataError(
            f"{path} holds floats far beyond full scale {where} or later, as if they were "
            "integers; scale them to [-1, 1], or export it as 16-bit integers"
        )
    if sound.channels <= 2:
        return block
    return block @ downmix_matrix(sound.channels, ogg=sound.format == "OGG")


class _Resampler:
    """Blocks of (n, channels) float32 at `rate` -> (m, 2) int16 at `target` Hz."""

    def __init__(self, rate: int, target: int, channels: int, path: Path) -> None:
        self.stream = None
        if rate != target:
            try:
                self.stream = soxr.ResampleStream(rate, target, channels, dtype="float32")
            except (ValueError, RuntimeError) as error:
                raise DataError(
                    f"{path} has a sample rate of {rate} Hz that cannot be brought to "
                    f"{target} Hz ({error}); export it again, or remove it"
                ) from error

    def __call__(self, block: Samples, last: bool) -> Pcm:
        if self.stream is not None:
            block = self.stream.resample_chunk(np.ascontiguousarray(block), last=last)
        pcm = to_int16(block)
        return np.repeat(pcm, 2, axis=1) if pcm.shape[1] == 1 else pcm

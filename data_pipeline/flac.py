"""The samples in a FLAC file (RFC 9639), whatever its header declares.

A header that an encoder could not go back to says 0, and libsndfile cannot read such a file.
"""

import functools
from collections.abc import Iterator
from typing import BinaryIO

MAGIC = b"fLaC"
_STREAM = MAGIC + b"\0\0\0\x22"  # with the header of the first metadata block
_TOTAL = slice(21, 26)  # of the header: bytes with the number of samples in their lowest 36 bits
_HEADER = 26
_BITS = (1 << 36) - 1
_LAST = 1 << 17  # bytes at the end of a file that its last frame is searched in
_SIZES = (0, 192, *(576 << n for n in range(4)), 0, 0, *(256 << n for n in range(8)))
_RATES = (
    0,
    88_200,
    176_400,
    192_000,
    8_000,
    16_000,
    22_050,
    24_000,
    32_000,
    44_100,
    48_000,
    96_000,
)
_ID3V1 = 128
_READ = 1 << 20


def problem(file: BinaryIO, start: int) -> str:
    """Why a file cannot be read as one sound, by a search of all of it; "" if it can.

    Args:
      file: the file, at any place.
      start: where its ID3v2 tags end and FLAC begins.
    """
    file.seek(start + len(MAGIC))
    before = b""
    while data := file.read(_READ):
        if _STREAM in before + data:
            return "holds several FLAC files, one after another; split it, or encode it as one"
        before = data[-len(_STREAM) :]
    return ""


def count(file: BinaryIO, start: int, size: int) -> tuple[list[bytes | range], str, str]:
    """Compares the declared number of samples with that of the last frame.

    Args:
      file: the file, at any place.
      start: where its ID3v2 tags end and FLAC begins.
      size: its length in bytes.

    Returns:
      What to read in place of the file (empty: the file as it is), a note of what differs, and a
      reason why the file cannot be read; "" for none.
    """
    file.seek(start)
    header = bytearray(file.read(_HEADER))
    total, rate = _last_frame(file, int.from_bytes(header[8:10], "big"), start, size)
    if rate and rate != int.from_bytes(header[18:21], "big") >> 4:
        return [], "", f"is damaged: its header declares another sample rate than {rate} Hz"
    fields = int.from_bytes(header[_TOTAL], "big")
    declared = fields & _BITS
    if not header.startswith(_STREAM) or total <= declared:  # the reader reports missing samples
        return [], "", ""
    header[_TOTAL] = (fields - declared + total).to_bytes(5, "big")
    note = f"declares {declared:,} FLAC samples and holds {total:,}; all of them are read"
    return [bytes(header), range(start + _HEADER, size)], note if declared else "", ""


def _last_frame(file: BinaryIO, block: int, start: int, size: int) -> tuple[int, int]:
    """Samples up to the end of the last frame and its sample rate, 0 if it does not say.

    0 and 0 where it is not complete.

    Args:
      block: samples in every frame but the last, of a file with blocks of one size.
    """
    file.seek(max(start + _HEADER, size - _ID3V1))
    end = size - _ID3V1 if file.read(3) == b"TAG" else size
    first = max(start + _HEADER, end - _LAST)
    file.seek(first)
    data = file.read(end - first)
    for place in _syncs(data):
        frame = data[place:]
        header = _frame_header(frame)
        if header and _crc(frame, 16, 0x8005) == 0:
            number, samples, rate = header
            return number * (1 if frame[1] & 1 else block) + samples, rate
    return 0, 0


def _syncs(data: bytes) -> Iterator[int]:
    """Places where a frame may start, from the end on."""
    place = data.rfind(b"\xff")
    while place >= 0:
        if data[place + 1 : place + 2] in (b"\xf8", b"\xf9"):
            yield place
        place = data.rfind(b"\xff", 0, place)


def _frame_header(frame: bytes) -> tuple[int, int, int] | None:
    """The number of a frame, or of its first sample, its samples and its sample rate.

    A rate of 0: it is that of the file's header. None if it is no frame.
    """
    if len(frame) < 16:
        return None
    ones = 8 - (frame[4] ^ 0xFF).bit_length()  # coded as UTF-8: the bytes, if more than one
    number, place = frame[4] & 0x7F >> ones, 4 + max(1, ones)
    for byte in frame[5:place]:
        number = number << 6 | byte & 0x3F
    size, rate = frame[2] >> 4, frame[2] & 15
    given = {6: 1, 7: 2}.get(size, 0)  # bytes after the number
    samples = int.from_bytes(frame[place : place + given], "big") + 1 if given else _SIZES[size]
    place += given
    written = {12: 1, 13: 2, 14: 2}.get(rate, 0)  # bytes of the rate, in kHz, Hz and tens of Hz
    hertz = int.from_bytes(frame[place : place + written], "big") * {12: 1000, 14: 10}.get(rate, 1)
    hertz, place = _RATES[rate] if rate < len(_RATES) else hertz, place + written
    valid = samples and _crc(frame[: place + 1], 8, 0x07) == 0
    return (number, samples, hertz) if valid else None


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    """The cyclic redundancy check, highest bit first; 0 of data that end with their own."""
    table, mask, crc = _table(bits, polynomial), (1 << bits) - 1, 0
    for byte in data:
        crc = (crc << 8 & mask) ^ table[crc >> bits - 8 ^ byte]
    return crc


@functools.cache
def _table(bits: int, polynomial: int) -> tuple[int, ...]:
    table = []
    for crc in range(256):
        crc <<= bits - 8
        for _ in range(8):
            crc = crc << 1 ^ (polynomial if crc >> bits - 1 else 0)
            crc &= (1 << bits) - 1
        table.append(crc)
    return tuple(table)

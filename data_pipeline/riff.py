"""The sound in a WAV file (RIFF, RIFX, RF64), whatever its header declares."""

import struct
from typing import BinaryIO

ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<"}
_UNKNOWN = 0xFFFF_FFFF
_CUT = (b"LIST", b"id3 ", b"ID3 ")  # chunks that may be cut short without harm
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # put behind a file by tagging programs


def count(file: BinaryIO, size: int) -> tuple[list[bytes | range], str, str]:
    """Compares the declared length of the sound with the bytes that are there.

    What follows the declared sound and is no chunk is sound as well, but for zeros and tags.

    Args:
      file: the file, at any place.
      size: its length in bytes.

    Returns:
      What to read in place of the file (empty: the file as it is), a note of what differs, and a
      reason why the file cannot be read; "" for none.
    """
    file.seek(0)
    order = ORDERS[file.read(4)]
    large = 0  # length in the ds64 chunk of RF64, which a length of 2**32 - 1 refers to
    place = 12
    while True:
        name, declared = _chunk(file, place, order)
        if name == b"ds64":
            large = struct.unpack("<Q", file.read(16)[8:].ljust(8, b"\0"))[0]
        if name in (b"data", b""):
            break
        place += 8 + declared + declared % 2
    start = place + 8
    length = large if declared == _UNKNOWN and large else declared
    there = size - start
    if not name or length >= there or length == _UNKNOWN:  # the reader reports missing sound
        return [], "", ""
    if not _is_sound(file, start + length, size, order):
        return [], "", ""
    file.seek(4)
    whole = struct.unpack(order + "I", file.read(4))[0] + 8 == start + length + length % 2
    if whole and there - length < length // 10:  # both lengths agree: bytes put behind a file
        return [], f"has {there - length:,} bytes behind its sound, which are left out", ""
    note = f"declares {length:,} bytes of sound and holds {there:,}; all of them are read"
    return [_header(file, start, there, order), range(start, size)], note, ""


def _chunk(file: BinaryIO, place: int, order: str) -> tuple[bytes, int]:
    """Name and length of the chunk at a place; b"" and 0 past the end."""
    file.seek(place)
    header = file.read(8)
    return (header[:4], struct.unpack(order + "I", header[4:])[0]) if len(header) == 8 else (b"", 0)


def _is_sound(file: BinaryIO, end: int, size: int, order: str) -> bool:
    """Whether the bytes from the declared end of the sound to the end of the file are sound."""
    file.seek(end)
    rest = file.read(1 << 16)
    if not rest.strip(b"\0"):
        return any(block.strip(b"\0") for block in iter(lambda: file.read(1 << 20), b""))
    if rest.lstrip(b"\0").startswith(_TAGS):
        return False
    for place in (end, end + end % 2):  # chunks start at even places, but not of all programs
        name, length = _chunk(file, place, order)
        printable = name and all(32 <= byte < 127 for byte in name)
        if name in _CUT or (printable and place + 8 + length <= size):
            return False
    return size - end >= 8


def _header(file: BinaryIO, start: int, length: int, order: str) -> bytes:
    """The bytes before the sound, with its length corrected."""
    file.seek(0)
    header = bytearray(file.read(start))
    if header[:4] == b"RF64":  # a RIFF of unknown length; its ds64 chunk is then ignored
        header[:4] = b"RIFF"
    header[4:8] = struct.pack(order + "I", min(start - 8 + length, _UNKNOWN))
    header[-4:] = struct.pack(order + "I", min(length, _UNKNOWN))
    return bytes(header)

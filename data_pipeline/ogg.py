"""Are all pages of an Ogg file (RFC 3533) present and undamaged?

libsndfile drops a damaged page silently, and what it decodes after it depends on the block size of
reading; a file that was cut short it reads as a shorter one.
"""

import zlib
from pathlib import Path

MAGIC = b"OggS"
_HEADER = 27  # bytes before the lengths of the segments
_END = 4  # flag of the last page of a stream
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def problem(path: Path) -> str:
    """What is wrong with the pages of an Ogg file, or that files are joined; "" if nothing is.

    Bytes after the end of all streams that are no page are ignored.
    """
    numbers: dict[bytes, int] = {}  # of the last page of each stream that has not ended
    place = 0
    with open(path, "rb") as file:
        while True:
            header = file.read(_HEADER)
            if header[:4] != MAGIC and place and not numbers:
                return ""
            if len(header) < _HEADER and (not header or header[:4] == MAGIC):
                return "is cut short: its Ogg stream has no end-of-stream page"
            if header[:4] != MAGIC:
                return f"is damaged: no Ogg page where one should start, at byte {place}"
            if place and not numbers:
                return (
                    "holds several Ogg streams, one after another, of which only the first is read"
                )
            lengths = file.read(header[26])
            body = file.read(sum(lengths))
            if len(lengths) < header[26] or len(body) < sum(lengths):
                return "is cut short: its Ogg stream has no end-of-stream page"
            page = header[:22] + bytes(4) + header[26:] + lengths + body
            if checksum(page) != int.from_bytes(header[22:26], "little"):
                return f"is damaged: the Ogg page at byte {place} has another checksum"
            stream, number = header[14:18], int.from_bytes(header[18:22], "little")
            if stream in numbers and number != numbers[stream] + 1:
                return f"is damaged: Ogg pages are missing before byte {place}"
            numbers[stream] = number
            if header[5] & _END:
                del numbers[stream]
            place = file.tell()


def checksum(page: bytes) -> int:
    """The CRC of a page whose CRC field is zero.

    Ogg has zlib's polynomial, but the highest bit first and no complements: bits are reversed
    before and after.
    """
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)

"""The frames of an MPEG audio file (ISO 11172-3, 13818-3), counted.

An MP3 has no length: its first frame may be a tag ("Xing", "Info", "VBRI") with the number of
frames. Without it libsndfile estimates the length from the bitrate of the first frames.
"""

import functools
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

# kbit/s by (version 1?, layer) and index
_BITRATES = {
    (True, 1): (*range(0, 449, 32),),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)  # Hz, of version 1; version 2 has the half, 2.5 a quarter
_SEARCHED = 1 << 16  # bytes read at a time in search of a frame
_RUN = 3  # frames in a row that show where frames continue
_TAG_END = 64  # bytes of a frame that its tag's number of frames is in
_ID3_END = 256  # more than an ID3v1 tag, 128 bytes at the end of a file
_MADE_BITRATE = 9  # index: a frame that a tag fits in


class Frame(NamedTuple):
    """A frame's header.

    Attributes:
      kind: (version bits, layer, sample rate, whether mono), the same in all frames of a sound.
      size: bytes of the frame.
    """

    kind: tuple[int, int, int, bool]
    size: int


def id3_size(header: bytes) -> int:
    """Bytes of the ID3v2 tag that starts with these 10 bytes; 0: there is none."""
    if len(header) < 10 or header[:3] != b"ID3" or max(header[6:10]) > 127:
        return 0
    size = functools.reduce(lambda total, byte: total << 7 | byte, header[6:10], 0)
    return size + (20 if header[5] & 0x10 else 10)  # with a footer


def is_frame(header: bytes) -> bool:
    """Whether a frame's header starts here."""
    return _frame(header[:4]) is not None


@functools.lru_cache(1 << 14)
def _frame(header: bytes) -> Frame | None:
    """The header of 4 bytes; None if it is none, or of free bitrate, whose size it does not say."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)  # version 3 is 1, 2 is 2, 0 2.5
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    kbps = _BITRATES[version == 3, layer][bitrate]
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        size = (12_000 * kbps // hertz + padding) * 4
    else:
        size = (72_000 if layer == 3 and version != 3 else 144_000) * kbps // hertz + padding
    return Frame((version, layer, hertz, header[3] >> 6 == 3), size)


def count(file: BinaryIO, start: int, size: int) -> tuple[list[bytes | range], str, str]:
    """Counts the frames of a file, and compares them with its tag.

    Args:
      file: the file, at any place.
      start: where its ID3v2 tags end.
      size: its length in bytes.

    Returns:
      What to read in place of the file (empty: the file as it is), a note of what differs, and a
      reason why the file cannot be read; "" for none.
    """
    sound: list[range] = []  # of frames without a gap between them
    kinds, bitrates, frames, declared = set(), set(), 0, None
    for place, frame, data in _frames(file, start, size):
        tag = _declared(data, frame)
        if tag is not None:
            if not frames:
                declared, first = tag or None, range(place, place + frame.size)
            continue
        kinds.add(frame.kind)
        bitrates.add(data[2] >> 4)
        if not frames:
            head = data[:4]
        frames += 1
        if sound and sound[-1].stop == place:
            sound[-1] = range(sound[-1].start, place + frame.size)
        else:
            sound.append(range(place, place + frame.size))
    if not frames:
        return [], "", ""  # the reader says what it is instead
    if len(kinds) > 1:
        return [], "", "holds sounds of different sample rates or channels, one after another"
    # Some encoders count the tag's own frame.
    if declared is not None and frames < declared - 1:
        return [], "", f"is cut short: {frames} of {declared} frames are there"
    if declared is not None and frames <= declared + 1:
        return ([] if len(sound) == 1 else [first, *sound]), "", ""
    if declared is None and len(bitrates) == len(sound) == 1 and size - sound[0].stop < _ID3_END:
        return [], "", ""  # the reader's estimate is exact
    if declared is None:
        return [_tag(head, frames), *sound], "", ""
    note = f"declares {declared:,} MP3 frames and holds {frames:,}; all of them are read"
    return [_tag(head, frames), *sound], note, ""


def _frames(file: BinaryIO, place: int, size: int) -> Iterator[tuple[int, Frame, bytes]]:
    """(place, frame, its first bytes) of every complete frame, tags included."""
    before = None
    while place < size:
        file.seek(place)
        data = file.read(_TAG_END)
        frame = _frame(data[:4])
        if frame is None or (frame.kind != before and not _run(file, place, size)):
            place = _search(file, place, size)
        else:
            if place + frame.size <= size:
                yield place, frame, data
            before = frame.kind
            place += frame.size


def _search(file: BinaryIO, place: int, size: int) -> int:
    """The next place where frames continue, after ID3v2 tags and other bytes; `size` if none."""
    file.seek(place)
    if tag := id3_size(file.read(10)):
        return place + tag
    place += 1
    while place < size:
        file.seek(place)
        data = file.read(_SEARCHED)
        at = data.find(b"\xff")
        while at >= 0:
            if _frame(data[at : at + 4]) and _run(file, place + at, size):
                return place + at
            at = data.find(b"\xff", at + 1)
        place += max(1, len(data) - 3)
    return size


def _run(file: BinaryIO, place: int, size: int) -> bool:
    """Whether several frames of one kind follow one another from here, or the last ones."""
    kinds = set()
    for _ in range(_RUN):
        file.seek(place)
        frame = _frame(file.read(4))
        if frame is None or place + frame.size > size:
            return False
        kinds.add(frame.kind)
        place += frame.size
        if place == size:
            break
    return len(kinds) == 1


def _side(frame: Frame) -> int:
    """Bytes of header and side information before the tag in a frame."""
    version, _, _, mono = frame.kind
    return 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))


def _declared(data: bytes, frame: Frame) -> int | None:
    """Number of frames in the tag in a frame; 0: it does not say, None: the frame is sound."""
    if frame.kind[1] != 3:
        return None
    xing = data[_side(frame) :][:12]
    if xing[:4] in (b"Xing", b"Info"):
        return int.from_bytes(xing[8:12], "big") if xing[7] & 1 else 0
    return int.from_bytes(data[50:54], "big") if data[36:40] == b"VBRI" else None


def _tag(header: bytes, frames: int) -> bytes:
    """A frame like that of `header` whose tag says the number of frames."""
    head = bytes([0xFF, header[1] | 1, _MADE_BITRATE << 4 | header[2] & 0x0C, header[3] & 0xCF])
    frame = _frame(head)
    assert frame is not None
    tag = b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return (head + bytes(_side(frame) - 4) + tag).ljust(frame.size, b"\0")

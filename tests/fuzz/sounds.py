"""Sound files: what is decoded of a damaged one, and its tags."""

import sys
from pathlib import Path

import mutagen.flac
import mutagen.id3
import mutagen.oggvorbis
import numpy as np
import soundfile

from data_pipeline import contents
from data_pipeline.audio import decode, decode_part, length
from data_pipeline.tags import read_tags
from jukejax.label_kinds import KINDS
from tests.fuzz.harness import NOTES, Format, require
from tests.fuzz.mutations import damaged, flipped
from tests.fuzz.texts import check_lyrics

sys.path.insert(0, str(Path(__file__).parents[1] / "data_pipeline"))

RATE, SECONDS = 48_000, 0.6
WRITTEN = {
    "wav": [{"subtype": x} for x in ("PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM")]
    + [{"format": "RF64"}, {"format": "WAVEX"}, {"subtype": "PCM_U8"}],
    "flac": [{"subtype": "PCM_16"}, {"subtype": "PCM_24"}],
    "mp3": [{}, {"bitrate_mode": "VARIABLE"}],
    "ogg": [{}, {"subtype": "OPUS"}],
}
SUMMED = ("flac", "ogg")  # formats with checksums of all sound
FRAME = 1152  # samples of an MP3 frame
_MOST = 40.0  # seconds: a damaged header may not make more of a small file


def tone():
    """A chord with noise: (n, 2) float."""
    rng, t = np.random.default_rng(0), np.arange(int(RATE * SECONDS)) / RATE
    chord = sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.2, 330.5)) * 0.2
    return np.stack([chord, chord * 0.8], 1) + 0.01 * rng.normal(size=(len(t), 2))


def whole(path):
    """What is decoded of a file: (n, 2) int16."""
    return np.concatenate([*decode(path, 0.0, RATE)])


def make_sounds(suffix):
    def make(folder):
        made = []
        for number, how in enumerate(WRITTEN[suffix]):
            path = folder / f"{number}.{suffix}"
            soundfile.write(path, tone(), RATE, **({"format": suffix.upper()} | how))
            made.append((path.read_bytes(), whole(path)))
        return made

    return make


def make_m4a(folder):
    import ffmpeg_files

    path = ffmpeg_files.write(folder / "0.m4a", tone(), RATE)
    return [(path.read_bytes(), whole(path))]


def sound(suffix):
    def attempt(made, folder, rng):
        data, truth = made[rng.integers(len(made))]
        path = folder / f"song.{suffix}"
        path.write_bytes(flipped(data, rng) if rng.random() < 0.3 else damaged(data, rng))
        NOTES.texts.clear()
        contents._contents.cache_clear()
        declared, pcm = length(path, RATE), whole(path)
        require(pcm.dtype == np.int16 and pcm.shape[1:] == (2,), "not stereo int16", pcm.shape)
        require(0 < len(pcm) < _MOST * RATE, "length", pcm.shape)
        slack = 4 * FRAME if suffix == "mp3" else 0
        if abs(declared - len(pcm)) > slack:
            require(False, "length differs from what is decoded", declared, len(pcm))
        start = int(rng.integers(len(pcm)))
        if suffix != "mp3":
            part = decode_part(path, start, start + 1000, RATE)
            cut = pcm[start : start + 1000]
            near = np.abs(part.astype(int) - cut).max() if part.shape == cut.shape else 99
            require(near <= 1, "a part differs", start, len(part), near)
        if np.array_equal(pcm, truth):
            return "unchanged"
        if NOTES.texts:
            return "noted"
        require(suffix not in SUMMED, "another sound silently", len(pcm), len(truth))
        return "other"

    return attempt


# --- tags -----------------------------------------------------------------------------------------


def make_tagged(folder):
    made = {}
    for suffix in ("wav", "flac", "mp3", "ogg"):
        path = folder / f"tagged.{suffix}"
        soundfile.write(path, tone()[:4000], RATE, format=suffix.upper())
        _tag(path)
        made[suffix] = path.read_bytes(), read_tags(path)
        require(made[suffix][1][0]["artist"] == "Ella", "tags of undamaged files", made[suffix][1])
    return made


def _tag(path):
    texts = {"artist": "Ella", "genre": "Jazz; Swing", "date": "1957-03-01", "album": "One",
             "lyrics": "[00:01.00]la la\n[00:02.00]lu lu"}  # fmt: skip
    if path.suffix == ".flac":
        tags = mutagen.flac.FLAC(path)
        tags.update(texts)
    elif path.suffix == ".ogg":
        tags = mutagen.oggvorbis.OggVorbis(path)
        tags.update(texts)
    else:
        tags = mutagen.File(path)
        tags.add_tags()
        frames = mutagen.id3
        tags.tags.add(frames.TPE1(text=["Ella"]))
        tags.tags.add(frames.TCON(text=["Jazz", "(9)"]))
        tags.tags.add(frames.TDRC(text=["1957"]))
        tags.tags.add(frames.USLT(text=texts["lyrics"]))
        synced = [("la", 1000), ("lu", 2000)]
        tags.tags.add(frames.SYLT(text=synced, format=2, type=1, encoding=3))
    tags.save()


def tags(made, folder, rng):
    suffix = list(made)[rng.integers(len(made))]
    data, truth = made[suffix]
    path = folder / f"song.{suffix}"
    path.write_bytes(damaged(data, rng))
    labels, lyrics = read_tags(path)
    check_lyrics(lyrics)
    for kind in KINDS:
        value = labels.get(kind.field)
        names = value if kind.most else [] if kind.decades else [value]
        good = type(value) is int if kind.decades else all(type(x) is str and x for x in names)
        require(value is None or good, "a label", kind.field, value)
        require(not any("\0" in name for name in names or () if name), "NUL in a label", names)
    return "unchanged" if (labels, lyrics) == truth else "other"


FORMATS = [
    *(Format(suffix, share, make_sounds(suffix), sound(suffix))
      for suffix, share in (("wav", 700), ("flac", 500), ("mp3", 500), ("ogg", 500))),
    Format("m4a", 300, make_m4a, sound("m4a")),
    Format("tags", 500, make_tagged, tags),
]  # fmt: skip

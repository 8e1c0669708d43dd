"""Damaged sound files through `prepare build`: decoded as soundfile does, or skipped with a reason.

Seconds of the bundled songs in every format are damaged in one of five ways each: flipped bits, a
truncated end, a damaged header, a zeroed block, appended garbage. Among them are whole files, which
must all come through. JUKEJAX_MUTATIONS sets the number of damaged files of the slow test, which
prints a table (`pytest -s`).
"""

import collections
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from data_pipeline import prepare, records
from data_pipeline.contents import PiecedFile, contents
from data_pipeline.plan import Options
from data_pipeline.songs import prepared_songs
from jukejax import files

MUTATIONS = int(os.environ.get("JUKEJAX_MUTATIONS", "500"))
MUSIC = Path(__file__).parents[2] / "data_pipeline/demo_music/audio"
_BLOCK = 65_536
FORMATS = {"wav": 44_100, "flac": 44_100, "ogg": 44_100, "mp3": 44_100, "opus": 48_000}  # Hz


def songs(music, count, seconds):
    """The first seconds of files at 44.1 kHz: `count` arrays (n, channels) float64."""
    paths = sorted(x for x in music.iterdir() if x.suffix in (".ogg", ".wav", ".flac", ".mp3"))
    found = []
    for i in range(count):
        sound, rate = soundfile.read(paths[i % len(paths)], always_2d=True)
        cut = sound[: round(seconds * rate)] if seconds else sound
        found.append(soxr.resample(cut, rate, 44_100) if rate != 44_100 else cut)
    return found


def write_sound(path, sound, rate):
    """Writes sound of 44.1 kHz at a rate, in the format that the suffix names."""
    if rate != 44_100:
        sound = soxr.resample(sound, 44_100, rate)
    coded = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    with soundfile.SoundFile(path, "w", rate, sound.shape[1], **coded) as file:
        for start in range(0, len(sound), _BLOCK):  # libsndfile's Vorbis dies of long ones
            file.write(np.clip(sound[start : start + _BLOCK], -1, 1))


_WHOLE = 10  # every tenth file is not damaged
_KINDS = {
    "cut short": "cut short",
    "damaged": "is damaged",
    "not a sound file": "not a sound file|channels at",
    "NaN": "NaN or inf",
    "too short": "shorter than",
    "silent": "silent",
    "strange rate": "sample rate of",
}


def flip(data, rng):
    """Flips one bit of up to 20 bytes anywhere."""
    for place in rng.integers(0, len(data), rng.integers(1, 21)):
        data[place] ^= 1 << int(rng.integers(8))


def cut(data, rng):
    """Takes away the end."""
    del data[int(rng.integers(0, len(data))) :]


def header(data, rng):
    """Writes random bytes over one to four of the first 100."""
    start = int(rng.integers(0, 100))
    data[start : start + 4] = rng.bytes(int(rng.integers(1, 5)))[: len(data) - start]


def zeros(data, rng):
    """Zeroes up to 4 kB."""
    start = int(rng.integers(0, len(data)))
    size = min(int(rng.integers(1, 4096)), len(data) - start)
    data[start : start + size] = bytes(size)


def garbage(data, rng):
    """Appends up to 10 kB of random bytes."""
    data += rng.bytes(int(rng.integers(1, 10_000)))


DAMAGE = [flip, cut, header, zeros, garbage]


def write_files(folder, mutations, seconds, seed):
    """Writes damaged and undamaged files; the damage by name, "" for none."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    names, originals, whole = list(FORMATS), songs(MUSIC, 5, seconds), {}
    for i, sound in enumerate(originals):
        for suffix in names:
            path = folder / f"whole_{i}.{suffix}"
            write_sound(path, sound, FORMATS[suffix])
            whole[suffix, i] = path.read_bytes()
            path.unlink()
    damage = {}
    for number in range(mutations + mutations // _WHOLE):
        suffix, song = names[number % len(names)], number // len(names) % len(originals)
        data, done = bytearray(whole[suffix, song]), number % (_WHOLE + 1) < _WHOLE
        if done:
            mutate = DAMAGE[int(rng.integers(len(DAMAGE)))]
            mutate(data, rng)
        name = f"{number:05d}.{suffix}"
        (folder / name).write_bytes(data)
        damage[name] = mutate.__name__ if done else ""
    return damage


def by_soundfile(path):
    """What soundfile reads, as (n, 2) int16 of 44.1 kHz; None where it cannot.

    Of a file that holds more than it declares, with the corrected header.
    """
    pieces = contents(path).pieces
    try:
        file = PiecedFile(path, pieces) if pieces else path
        sound, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, ValueError, MemoryError):
        return None
    if rate != 44_100:
        sound = soxr.resample(sound, rate, 44_100)
    pcm = np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)
    return np.repeat(pcm, 2, axis=1) if pcm.shape[1] == 1 else pcm


def is_right(out, song):
    """Whether a song's records hold what soundfile reads; resampled, to within one rounding."""
    expected = by_soundfile(Path(song.audio))
    found = records.read_audio(out, song, 0, song.n_samples)
    if expected is None or expected.shape != found.shape:
        return False
    near = 0 if soundfile.info(song.audio).samplerate == 44_100 else 1
    return int(np.abs(expected.astype(np.int32) - found).max()) <= near


def kind(reason):
    """A reason in two words."""
    return next((name for name, words in _KINDS.items() if re.search(words, reason)), "other")


def outcomes(folder, mutations, seconds, seed=0):
    """Counts by format and outcome, wrong files, reasons that are not known, and the records."""
    damage = write_files(folder / "files", mutations, seconds, seed)
    manifest = folder / "songs.jsonl"
    files.write_json_lines(manifest, ({"id": x, "audio": f"files/{x}"} for x in damage))
    out = folder / "records"
    report = prepare.build(manifest, out, options=Options(), show_progress=False)
    reasons = {item["id"]: item["reason"] for item in report.skipped}
    table = {suffix: collections.Counter() for suffix in FORMATS}
    kept, wrong = {song.id: song for song in prepared_songs(out)}, []
    for name, how in damage.items():
        row, right = table[name.split(".")[1]], name in kept and is_right(out, kept[name])
        if not how:
            row["whole"] += 1
        elif name in reasons:
            row[kind(reasons[name])] += 1
        elif right:
            row["decoded"] += 1
        if not right and not (how and name in reasons):
            wrong.append(f"{name} ({how or 'whole'})")
    return table, wrong, [r for r in reasons.values() if kind(r) == "other"], out


def test_a_few(tmp_path, monkeypatch):
    table, wrong, others, out = outcomes(tmp_path, 50, 1.5)
    assert wrong == [] and others == []
    assert sum(row.total() for row in table.values()) == 55
    assert sum(row["whole"] for row in table.values()) == 5
    assert sum(row["decoded"] for row in table.values()) > 5
    # the comparison sees one sample that differs
    song = next(song for song in prepared_songs(out) if song.id.endswith("wav"))
    pcm = records.read_audio(out, song, 0, song.n_samples).copy()
    assert is_right(out, song)
    pcm[100, 0] ^= 1
    monkeypatch.setattr(records, "read_audio", lambda *args: pcm)
    assert not is_right(out, song)


@pytest.mark.slow
def test_many(tmp_path):
    table, wrong, others, _ = outcomes(tmp_path, MUTATIONS, 3.0, seed=1)
    for suffix, row in table.items():
        print(f"{suffix:6}" + ", ".join(f"{count} {name}" for name, count in row.items()))
    assert wrong == [] and others == []
    assert sum(row.total() - row["whole"] for row in table.values()) == MUTATIONS

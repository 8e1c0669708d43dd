"""Prepared data sets: songs.jsonl, dataset_info.json, codes.json, and shards of songs and codes."""

import json
from pathlib import Path

import numpy as np
import soundfile

from data_pipeline import codes, prepare, records
from data_pipeline.plan import Options
from data_pipeline.songs import prepared_songs
from tests.fuzz.harness import Format, require
from tests.fuzz.mutations import any_json, any_lines, damaged, flipped
from tests.fuzz.weights import link


def make_dataset(folder):
    """Two prepared songs of half a second; the folder, the songs and their sound."""
    rng = np.random.default_rng(0)
    lines = []
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", rng.normal(size=22_050) * 0.1, 44_100)
        song = {"id": name, "audio": f"{name}.wav", "split": "train", "lyrics": "la la"}
        song |= {"genres": ["x"], "words": [["la", 0, 0.2]], "sections": [["Verse", 0, None]]}
        lines.append(json.dumps(song))
    (folder / "songs.jsonl").write_text("\n".join(lines))
    out, options = folder / "data", Options(min_seconds=0.1)
    prepare.build(folder / "songs.jsonl", out, options=options, show_progress=False)
    songs = list(prepared_songs(out))
    truth = {song.id: records.read_audio(out, song, 0, song.n_samples) for song in songs}
    return out, [json.loads(x) for x in (out / "songs.jsonl").read_text().splitlines()], truth


def songs_jsonl(state, folder, rng):
    out, rows, truth = state
    old = [{k: v for k, v in row.items() if k != "crc32"} for row in rows]
    kind = rng.random()
    data = any_lines(old if kind < 0.4 else rows, rng)[0]
    if kind > 0.7:
        data = flipped((out / "songs.jsonl").read_bytes(), rng)
    link(out, folder / "data", Path("songs.jsonl"), data)
    lines, outcome = data.splitlines(), "unchanged"
    for song in prepared_songs(folder / "data"):
        texts = (song.id, song.artist, song.lyrics, *song.genres, *(x[0] for x in song.words))
        require(all(type(text) is str for text in texts), "no text", song)
        if b'"crc32"' not in lines[song.index]:
            outcome = "other"
            continue
        sound = records.read_audio(folder / "data", song, 0, song.n_samples)
        require(np.array_equal(sound, truth[song.id]), "other sound silently", song)
        require(json.loads(lines[song.index]) == rows[song.index], "another song silently", song)
    return outcome


def dataset_info(state, folder, rng):
    out, _, truth = state
    name = ("dataset_info.json", "features.json")[rng.integers(2)]
    data = any_json(json.loads((out / name).read_text()), rng)
    link(out, folder / "data", (out / name).relative_to(out), data)
    for song in prepared_songs(folder / "data"):
        found = records.read_audio(folder / "data", song, 0, song.n_samples)
        require(np.array_equal(found, truth[song.id]), "other sound silently", song)
    return "unchanged"


def make_codes(folder):
    """Codes of the songs of `make_dataset`; the folder and the codes by song."""
    out, *_ = make_dataset(folder)
    rng, truth = np.random.default_rng(1), {}
    writer = codes.CodesWriter(out, folder / "codes", (8, 32), "f" * 16, codes=16)
    for shard in writer.pending_shards():
        made = []
        for song in shard.songs:
            lengths = [codes.codes_length(song.n_samples, hop, 32) for hop in (8, 32)]
            truth[song.id] = [rng.integers(0, 16, n) for n in lengths]
            made.append((song, truth[song.id]))
        writer.write_shard(shard, made)
    writer.finish()
    return folder / "codes", truth, codes.read_song_codes


def make_shards(folder):
    """As `make_codes`, of the songs themselves."""
    out, _, truth = make_dataset(folder)
    songs = {song.id: song for song in prepared_songs(out)}

    def read(data, name):
        return [records.read_audio(data, songs[name], 0, songs[name].n_samples)]

    return out, {name: [sound] for name, sound in truth.items()}, read


def shard(state, folder, rng):
    """A shard of records: compares all that is read with what was written."""
    base, truth, read = state
    path = next(base.glob("songs-train.array_record-*")).relative_to(base)
    data = (base / path).read_bytes()
    link(base, folder / "data", path, (flipped if rng.random() < 0.6 else damaged)(data, rng))
    records._open_split.cache_clear()
    for name, arrays in truth.items():
        found = read(folder / "data", name)
        require(all(map(np.array_equal, found, arrays)), "others silently", name)
    return "unchanged"


def codes_json(_state, folder, rng):
    value = {"fingerprint": "f" * 16, "hops": [8, 32], "segment": 64, "codes": 16}
    (folder / "codes.json").write_bytes(any_json(value, rng))
    found = codes.codes_info(folder)
    require(all(type(hop) is int and hop > 0 for hop in found.hops), "hops", found)
    return "unchanged" if found.to_json() == value | {"hops": (8, 32)} else "other"


FORMATS = [
    Format("prepared songs", 500, make_dataset, songs_jsonl),
    Format("dataset_info.json", 300, make_dataset, dataset_info),
    Format("record shard", 200, make_shards, shard),
    Format("codes shard", 200, make_codes, shard),
    Format("codes.json", 500, lambda _: None, codes_json),
]

"""Prepared data sets: songs.jsonl, dataset_info.json, codes.json and what is read by them."""

import json

import numpy as np
import soundfile

from data_pipeline import codes, prepare, records
from data_pipeline.plan import Options
from data_pipeline.songs import prepared_songs
from tests.fuzz.harness import Format, require
from tests.fuzz.mutations import any_json, any_lines
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
    link(out, folder / "data", (out / "songs.jsonl").relative_to(out), any_lines(rows, rng)[0])
    songs = list(prepared_songs(folder / "data"))
    for song in songs:
        texts = (song.id, song.artist, song.lyrics, *song.genres, *(x[0] for x in song.words))
        require(all(type(text) is str for text in texts), "no text", song)
        if song.split == "train":
            records.read_audio(folder / "data", song, 0, min(song.n_samples, len(truth["a"])))
    return "other"


def dataset_info(state, folder, rng):
    out, _, truth = state
    name = ("dataset_info.json", "features.json")[rng.integers(2)]
    data = any_json(json.loads((out / name).read_text()), rng)
    link(out, folder / "data", (out / name).relative_to(out), data)
    for song in prepared_songs(folder / "data"):
        found = records.read_audio(folder / "data", song, 0, song.n_samples)
        require(np.array_equal(found, truth[song.id]), "other sound silently", song)
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
    Format("codes.json", 500, lambda _: None, codes_json),
]

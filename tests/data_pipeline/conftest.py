"""A small library of generated songs, prepared and encoded once for the session."""

import numpy as np
import pytest
from sounds import write_lines, write_song

from data_pipeline import prepare
from data_pipeline.codes import CodesWriter, codes_length
from data_pipeline.plan import Options

HOPS = (8, 32, 128)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """(manifest path, PCM by song id) of six songs of 0.5 to 6 s, two of them for testing."""
    folder = tmp_path_factory.mktemp("library")
    lengths = {"a": 3.0, "b": 0.5, "c": 6.0, "d": 2.25, "e": 4.0, "f": 2.0}
    entries, pcm = [], {}
    for seed, (name, seconds) in enumerate(lengths.items()):
        pcm[name] = write_song(folder / f"{name}.wav", seconds, seed)
        entry = {"id": name, "audio": f"{name}.wav", "artist": f"Artist {seed % 3}"}
        entry |= {"genres": ["rock", "folk"][: seed % 3], "lyrics": f"words of {name} " * 20}
        entry |= {"split": "test" if name in "ef" else "train"}
        entries.append(entry)
    return write_lines(folder / "songs.jsonl", entries), pcm


@pytest.fixture(scope="session")
def dataset(library, tmp_path_factory):
    """(folder, PCM by song id) of the library, prepared."""
    out = tmp_path_factory.mktemp("prepared")
    options = Options(min_seconds=0.25)
    prepare.build(library[0], out, options=options, show_progress=False)
    return out, library[1]


@pytest.fixture(scope="session")
def codes_set(dataset, tmp_path_factory):
    """(folder, codes by song id) for the dataset: code = position at that level, modulo 2000."""
    out = tmp_path_factory.mktemp("codes")
    writer = CodesWriter(dataset[0], out, HOPS, "vqvae-1", codes=2000)
    truth = {}
    for shard in writer.pending_shards():
        encoded = []
        for song in shard.songs:
            lengths = [codes_length(song.n_samples, hop, HOPS[-1]) for hop in HOPS]
            truth[song.id] = [np.arange(length) % 2000 for length in lengths]
            encoded.append((song, truth[song.id]))
        writer.write_shard(shard, encoded)
    writer.finish()
    return out, truth

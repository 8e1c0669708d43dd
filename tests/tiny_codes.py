"""A data set of codes of songs of noise, for tests of training."""

import json

import numpy as np
import soundfile

from data_pipeline import prepare
from data_pipeline.codes import CodesWriter, codes_length
from data_pipeline.plan import Options

HOPS = (8, 32, 128)
RATE = 44_100


def write(folder, songs, seconds=1, seed=0):
    """`folder`/codes, random ones below 16, of songs with these manifest entries; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, lines, samples = np.random.default_rng(seed), [], RATE * seconds
    for i, song in enumerate(songs):
        soundfile.write(folder / f"{i}.wav", rng.normal(size=samples) * 0.1, RATE)
        entry = {"id": str(i), "audio": f"{i}.wav", "split": "train", **song}
        lines.append(json.dumps(entry))
    (folder / "songs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prepare.build(folder / "songs.jsonl", folder / "data", options=Options(), show_progress=False)
    writer = CodesWriter(folder / "data", folder / "codes", HOPS, "vqvae-1", codes=16)
    lengths = [codes_length(samples, hop, HOPS[-1]) for hop in HOPS]
    for shard in writer.pending_shards():
        codes = [(song, [rng.integers(0, 16, n) for n in lengths]) for song in shard.songs]
        writer.write_shard(shard, codes)
    writer.finish()
    return folder / "codes"

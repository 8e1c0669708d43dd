"""The encode command: whole songs' codes, passes of random downmixes, resuming, many processes."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import soundfile
import tiny_model
from processes import free_port

from data_pipeline import plan, prepare, records
from data_pipeline.code_loader import code_batches, code_windows
from data_pipeline.codes import codes_info, read_song_codes
from data_pipeline.plan import Options
from data_pipeline.songs import prepared_songs
from experiments.codes import write_codes
from experiments.encode import Command, run
from jukejax import locks
from jukejax.config import ConfigError, MeshConfig, PriorConfig, PriorExperiment, TrainConfig
from jukejax.errors import DataError, FolderInUse
from jukejax.model_dir import load_vqvae
from jukejax.models import vqvae
from jukejax.parallel.mesh import make_mesh

RATE, HOPS = tiny_model.RATE, tiny_model.HOPS
KILLS = int(os.environ.get("JUKEJAX_KILLS", "3"))
LENGTHS = {"a": 4001, "b": 160, "c": 5007, "d": 31, "e": 4000, "f": 2000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, and stereo songs whose channels have nothing in common."""
    folder, rng, lines = tmp_path_factory.mktemp("encode"), np.random.default_rng(0), []
    tiny_model.write(folder)
    for name, length in LENGTHS.items():
        soundfile.write(folder / f"{name}.wav", rng.uniform(-0.9, 0.9, (length, 2)), RATE)
        line = {"id": name, "audio": f"{name}.wav", "artist": f"artist {name}"}
        lines.append(line | {"split": "test" if name == "f" else "train"})
    (folder / "songs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = Options(min_seconds=0, sample_rate=RATE)
    prepare.build(folder / "songs.jsonl", folder / "songs", options=options, show_progress=False)
    return folder


def command(folder, out, **more):
    return Command(
        **{"data": folder / "songs", "piece_seconds": 0.2, **more}, vqvae=folder / "vqvae", out=out
    )


@pytest.fixture(scope="module")
def codes(folder):
    run(command(folder, folder / "codes", passes=3, seed=5))
    return folder / "codes"


def digests(out):
    """SHA-256 of every file of a data set."""
    files = [path for path in out.rglob("*") if path.is_file()]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def distances(folder):
    """Squared distances (T, K) of a song's vectors to all codes by level, encoded all at once."""
    model = load_vqvae(folder / "vqvae", make_mesh(MeshConfig()))
    books = [np.asarray(book.codes) for book in model.books]

    @jax.jit
    def vectors(audio):
        return [vqvae.to_vectors(model.config, model.params, audio, level)[0] for level in range(3)]

    def find(name, left):
        pcm = soundfile.read(folder / f"{name}.wav", dtype="int16")[0] / 32768.0
        padded = np.zeros((1, -(-len(pcm) // HOPS[-1]) * HOPS[-1], 1), np.float32)
        padded[0, : len(pcm), 0] = left * pcm[:, 0] + (1 - left) * pcm[:, 1]
        pairs = zip(vectors(padded), books, strict=True)
        return [((np.float64(x)[:, None] - book) ** 2).sum(-1) for x, book in pairs]

    return find


def beyond_ties(found, wanted):
    """Codes whose distance is over the least by more than 1e-4."""
    return int((wanted[np.arange(len(found)), found] - wanted.min(1) > 1e-4).sum())


def test_codes_of_one_split_are_those_of_both(folder, codes, tmp_path):
    model = load_vqvae(folder / "vqvae", make_mesh(MeshConfig()))
    write_codes(model, command(folder, tmp_path / "codes"), splits=("test",))
    (song,) = prepared_songs(tmp_path / "codes")
    assert (song.id, song.index, song.first_record) == ("f", 0, 0)
    assert prepared_songs(codes)[5].id == "f"
    pairs = zip(*(read_song_codes(x, "f") for x in (tmp_path / "codes", codes)), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    with pytest.raises(DataError, match="train"):
        records.open_split(tmp_path / "codes", "train")


def test_codes_are_of_whole_songs_and_the_mean(folder, codes, distances):
    for name in "abd":
        found = read_song_codes(codes, name)
        for level, wanted in enumerate(distances(name, 0.5)):
            assert len(found[level]) == len(wanted)
            assert beyond_ties(found[level], wanted) == 0
    model = load_vqvae(folder / "vqvae", make_mesh(MeshConfig()))
    assert codes_info(codes).fingerprint == model.fingerprint


def test_passes_are_other_mixes_of_the_training_songs(folder, codes, distances):
    listed = list(prepared_songs(codes))
    train = sorted(set(LENGTHS) - {"f"})
    wanted = [*LENGTHS, *(f"{name}#{i}" for i in (1, 2) for name in train)]
    assert sorted(song.id for song in listed) == sorted(wanted)
    assert [song.index for song in listed] == list(range(len(wanted)))
    assert [song.id for song in listed][:6] == [s.id for s in prepared_songs(folder / "songs")]
    for number in (1, 2):  # the weight of the left channel is drawn for (seed, song, pass)
        digest = hashlib.sha256(json.dumps([5, "a", number]).encode()).digest()
        left = int.from_bytes(digest[:6], "big") / 2**48
        found = read_song_codes(codes, f"a#{number}")
        for level, expected in enumerate(distances("a", left)):
            assert beyond_ties(found[level], expected) == 0
        assert beyond_ties(found[0], distances("a", 1 - left)[0]) > 20
    song = next(song for song in listed if song.id == "c#2")
    assert (song.artist, song.n_samples, song.split) == ("artist c", 5007, "train")


def test_priors_are_trained_on_passes_and_tested_without(codes):
    prior = PriorConfig(level=2, n_ctx=16, blocks=1)
    tested = code_windows(codes, prior, None, split="test", batch_size=4)
    names = [song.id for song in prepared_songs(codes)]
    assert {names[i] for batch in tested for i in batch["song"][batch["valid"]]} == {"f"}
    seen = set()
    experiment = PriorExperiment(prior, train=TrainConfig(batch=4))
    batches = code_batches(codes, experiment, None, split="train")
    wanted = {
        name: {tuple(w) for w in np.lib.stride_tricks.sliding_window_view(x, 16)}
        for name in names
        if len(x := read_song_codes(codes, name)[2]) >= 16
    }
    for _ in range(60):
        for row in next(batches)["codes"]:
            seen |= {name for name, rows in wanted.items() if tuple(row) in rows}
    assert {"a", "a#1", "a#2", "c#1", "e#2"} <= seen


def test_an_older_data_set_is_read_and_continued(folder, tmp_path):
    run(command(folder, tmp_path / "codes"))
    note = json.loads((tmp_path / "codes" / "codes.json").read_text())
    assert set(note) == {"fingerprint", "hops", "segment", "codes"}  # as in older files
    whole = digests(tmp_path / "codes")
    gone = next((tmp_path / "codes").glob("songs-train*"))
    gone.unlink()
    run(command(folder, tmp_path / "codes"))
    assert digests(tmp_path / "codes") == whole
    with pytest.raises(DataError, match="another folder"):
        run(command(folder, tmp_path / "codes", passes=2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"passes": 0}, "--passes is 0"),
        ({"piece_seconds": float("nan")}, "piece_seconds"),
    ],
)
def test_bad_numbers_are_errors(folder, tmp_path, wrong, message):
    with pytest.raises((ConfigError, DataError), match=message):
        run(command(folder, tmp_path / "codes", **wrong))


def test_a_song_named_like_a_pass_is_an_error(folder, tmp_path):
    lines = [
        {"id": name, "audio": str(folder / "a.wav"), "split": "train"} for name in ("a", "a#1")
    ]
    (tmp_path / "songs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = Options(min_seconds=0, sample_rate=RATE)
    prepare.build(
        tmp_path / "songs.jsonl", tmp_path / "songs", options=options, show_progress=False
    )
    with pytest.raises(DataError, match="a#1"):
        run(command(folder, tmp_path / "codes", data=tmp_path / "songs", passes=2))


# --- as a process, killed, and as two -------------------------------------------------------------


def start(folder, out, songs="songs", piece="0.2", **more):
    line = [sys.executable, "-m", "experiments.encode", "--vqvae", folder / "vqvae", "--data"]
    line += [folder / songs, "--out", out, "--piece-seconds", piece, "--passes", "2"]
    return subprocess.Popen(
        list(map(str, line)), env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", **more},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process):
    output = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def many(folder):
    """`folder`/many: twelve songs in a shard each."""
    rng, lines = np.random.default_rng(1), []
    for i in range(12):
        soundfile.write(folder / f"long{i}.wav", rng.uniform(-0.9, 0.9, (RATE * 20, 2)), RATE)
        lines.append({"id": f"s{i:02}", "audio": f"long{i}.wav", "split": "train"})
    (folder / "many.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = Options(sample_rate=RATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_SHORTEST", 1.0)
        prepare.build(folder / "many.jsonl", folder / "many", options=options, show_progress=False)
    return folder


def notes(out):
    return sorted((out / "shards").glob("*.json"))


def until_it_writes(process, out):
    """Waits for the first shard of this start."""
    before = notes(out)
    while notes(out) == before and process.poll() is None:
        time.sleep(0.01)
    return time.monotonic()


@pytest.mark.slow
def test_killed_at_random_moments_it_writes_the_same_records(many, tmp_path):
    began = time.monotonic()
    process = start(many, tmp_path / "whole", "many")
    first = until_it_writes(process, tmp_path / "whole")
    finish(process)
    starting, writing = first - began, time.monotonic() - first
    rng, table, out = random.Random(1), [], tmp_path / "killed"
    for life in range(KILLS):
        process = start(many, out, "many")
        if life % 4 == 3:
            time.sleep(rng.uniform(0.5, 1.0) * starting)
        else:
            until_it_writes(process, out)
            time.sleep(rng.uniform(0, 0.8) * writing)
        process.kill()
        process.communicate()
        table.append(len(notes(out)))
        for note in rng.sample(notes(out), max(0, len(notes(out)) - 5)):  # to leave work to do
            note.unlink()
    print("shards there at each kill:", table)
    finish(start(many, out, "many"))
    assert digests(out) == digests(tmp_path / "whole")
    assert max(table) > 0


@pytest.mark.slow
def test_two_processes_write_what_one_does(many, tmp_path):
    finish(start(many, tmp_path / "one", "many"))
    address = f"127.0.0.1:{free_port()}"
    patient = "--xla_cpu_collective_timeout_seconds=300"  # a busy machine starts one much later
    cluster = {
        "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "XLA_FLAGS": patient
    }  # fmt: skip
    both = [
        start(many, tmp_path / "two", "many", JAX_PROCESS_ID=str(i), **cluster) for i in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert digests(tmp_path / "two") == digests(tmp_path / "one")
    assert all("minutes of music" in output for output in outputs)  # each wrote a part
    assert jax.process_count() == 1


def test_two_at_once_are_refused(folder, tmp_path):
    with locks.writing(tmp_path), pytest.raises(FolderInUse, match="is being written by process"):
        run(command(folder, tmp_path))

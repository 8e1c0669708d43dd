"""What lies in a folder before a command is run is not lost to it."""

import pytest
from sounds import write_lines, write_song

from data_pipeline import prepare, records
from data_pipeline.codes import CodesWriter
from experiments.prepare import Scan, scan
from jukejax.errors import DataError


def contents(folder):
    """Bytes by path of everything in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def manifest(tmp_path):
    write_song(tmp_path / "a.wav", 1.5)
    return write_lines(tmp_path / "songs.jsonl", [{"id": "a", "audio": "a.wav"}])


def build(manifest, out):
    return prepare.build(manifest, out, show_progress=False)


def test_only_shards_and_notes_are_leftovers(manifest, tmp_path):
    out = tmp_path / "out"
    (out / "shards").mkdir(parents=True)
    theirs = [out / "shards" / name for name in ("precious.wav", "train-of-thought.json")]
    theirs += [out / "songs-best.array_record-of-mine", out / "part-1-of-2.wav", out / ".my.tmp"]
    ours = [out / "shards" / "train-00007-of-00009.json", out / records.shard_name("test", 7, 9)]
    for path in theirs + ours:
        path.write_text("x")
    build(manifest, out)
    assert all(path.read_text() == "x" for path in theirs)
    assert not any(path.exists() for path in ours)


def test_build_does_not_overwrite_codes(manifest, codes_set):
    before = contents(codes_set[0])
    with pytest.raises(DataError, match="holds codes"):
        build(manifest, codes_set[0])
    assert contents(codes_set[0]) == before


def test_build_does_not_overwrite_its_manifest(manifest, tmp_path):
    before = contents(tmp_path)
    with pytest.raises(DataError, match="would be overwritten"):
        build(manifest, tmp_path)
    assert contents(tmp_path) == before


def test_scan_overwrites_only_with_its_option(manifest, tmp_path):
    before = manifest.read_bytes()
    with pytest.raises(DataError, match="--overwrite"):
        scan(Scan(tmp_path, manifest))
    assert manifest.read_bytes() == before
    scan(Scan(tmp_path, manifest, overwrite=True))
    assert manifest.read_bytes() != b"" and b'"a.wav"' in manifest.read_bytes()


def encode(data, out, codes=9):
    return CodesWriter(data, out, (8, 32), "vqvae", codes=codes)


def test_codes_are_not_written_over_songs(dataset, codes_set, manifest, tmp_path):
    before = contents(dataset[0])
    with pytest.raises(DataError, match="holds the songs"):
        encode(dataset[0], dataset[0])
    build(manifest, tmp_path / "other")
    for name in ("", "plan.json", "songs.jsonl"):  # whole, and as killed runs leave it
        (tmp_path / "other" / (name or "none")).unlink(missing_ok=True)
        kept = contents(tmp_path / "other")
        with pytest.raises(DataError, match="holds songs or a part"):
            encode(dataset[0], tmp_path / "other")
        assert contents(tmp_path / "other") == kept
    assert contents(dataset[0]) == before


def test_encoding_what_are_no_songs_leaves_nothing(dataset, codes_set, tmp_path):
    out = tmp_path / "out"
    for data, words in ((tmp_path / "nope", "not a prepared"), (codes_set[0], "holds codes, not")):
        with pytest.raises(DataError, match=words):
            encode(data, out)
    with pytest.raises(DataError, match="70000 codes"):
        encode(dataset[0], out, codes=70_000)
    assert not out.exists()

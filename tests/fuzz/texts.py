"""Files of text: model.json, labels.json, job.json, metrics.jsonl, manifests, lyrics, albums."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import mido
import numpy as np
import soundfile

from data_pipeline.manifest import read_manifest, to_entry, write_manifest
from data_pipeline.scan import SUFFIXES, Counts, scan_folder
from jukejax.errors import CheckpointError
from jukejax.evaluation.pages.sample_page import write_page
from jukejax.model_dir import read_model_dir
from jukejax.sampling.job import Item, Job
from jukejax.sampling.sample_dir import SampleDir, check_folder, read_job
from jukejax.sampling.tree import tree_lines
from jukejax.text.labels import Vocabulary, labels_digest
from jukejax.text.lyric_files import parse_lyrics, read_lyrics
from jukejax.text.word_times import word_times
from jukejax.training.checkpoint import open_existing
from jukejax.training.metrics import MetricsWriter, read_metrics
from jukejax.tunes import read_midi
from tests.fuzz.harness import NOTES, Format, require
from tests.fuzz.mutations import any_json, any_lines, damaged, flipped

# --- model.json -----------------------------------------------------------------------------------

MODEL = {"vqvae": "../vqvae", "priors": {"2": "../top", "0": "../bottom"}, "labels": "labels.json"}


def model_json(_state, folder, rng):
    file = folder / "model.json"
    file.write_text(json.dumps(MODEL))
    truth = read_model_dir(folder)
    file.write_bytes(any_json(MODEL, rng))
    found = read_model_dir(folder)
    for path in (found.vqvae, *found.priors.values(), *found.label_files.values()):
        require(isinstance(path, Path) and path.is_absolute(), "not a path", found)
    require(all(type(level) is int for level in found.priors), "not levels", found)
    if found == truth:
        return "unchanged"
    with contextlib.suppress(CheckpointError):  # there is none: named by its own path
        open_existing(found.vqvae).close()
    return "other"


# --- labels.json ----------------------------------------------------------------------------------

LABELS = {
    "artists": ["unknown", "ella", "elvis"], "genres": ["unknown", "jazz", "soul", ""],
    "rule": "v2", "artist_aliases": {"el": 2}, "years": ["unknown", "1960s"], "tags": ["unknown"],
}  # fmt: skip


def labels_json(_state, folder, rng):
    file = folder / "labels.json"
    file.write_bytes(any_json(LABELS, rng))
    found = Vocabulary.load(file)
    tables = [found.artists, found.genres, found.years, found.tags]
    require(all(type(name) is str for table in tables for name in table), "not names", tables)
    for table, ids in found.indices.items():
        require(all(i in range(len(getattr(found, table))) for i in ids.values()), "no id", ids)
    found.save(file)
    require(Vocabulary.load(file) == found, "not read back as written", found)
    labels_digest(found)
    return "unchanged" if found == Vocabulary.from_json(LABELS) else "other"


def label_ids(_state, folder, rng):
    """`name;id` files of the published vocabularies."""
    paths = folder / "artists.txt", folder / "genres.txt"
    names = [f"name {i};{i}" for i in range(20)]
    for path in paths:
        path.write_text("\n".join(names) + "\n")
    truth = Vocabulary.from_id_files(*paths, "v2", 20, 20)
    changed = paths[int(rng.integers(2))]
    changed.write_bytes(damaged("\n".join(names).encode(), rng))
    found = Vocabulary.from_id_files(*paths, "v2", 20, 20)
    require(len(found.artists) == len(found.genres) == 20, "other sizes", found)
    return "unchanged" if found == truth else "other"


# --- job.json and codes.npz of a sample directory -------------------------------------------------


def make_sample(folder):
    job = Job(
        "model", (Item(artist="a", lyrics="la la", genres=("b",)), Item()), seconds=30.0,
        levels=(1, 0), given=(0, 0), redraws=1,
    )  # fmt: skip
    origin = {"origin": {"continues": "../node_1", "items": [0], "at": 1.5}}
    levels = [{"level": n, "hop": 8, "tokens": 60, "seconds_to_sample": 2.5} for n in (1, 0)]
    sample = SampleDir(folder, job, 44_100, levels, notes=origin)
    codes = np.random.default_rng(0).integers(0, 16, (2, 60))
    for level in (0, 1):
        sample.save(level, codes, np.array([60, 60]))
    sample.save_window(0, 0, 30, codes[:, :7])
    return folder, json.loads((folder / "job.json").read_text()), job, codes


def job_json(state, folder, rng):
    _, record, job, _ = state
    node = folder / "node_2"
    node.mkdir()
    (node / "job.json").write_bytes(any_json(record, rng))
    found = read_job(node / "job.json")[1]
    check_folder(node, {})
    list(tree_lines(folder))
    sample = SampleDir.open(node)
    sample.codes(0)
    require(all(isinstance(path, Path) for path in sample.sounds(0)), "no paths", record)
    write_page(node)
    levels = [{"level": 0}]
    SampleDir(node, dataclasses.replace(found, levels=()), 44_100, levels)
    require(read_job(node / "job.json")[1].seed == found.seed, "not continued", found)
    return "unchanged" if found == job else "other"


def codes_npz(state, folder, rng):
    base, record, _, codes = state
    (folder / "level_0").mkdir()
    (folder / "job.json").write_text(json.dumps(record))
    name = ("codes", "codes", "window_0")[rng.integers(3)] + ".npz"
    data = (base / "level_0" / name).read_bytes()
    data = flipped(data, rng) if rng.random() < 0.5 else damaged(data, rng)
    (folder / "level_0" / name).write_bytes(data)
    sample = SampleDir.open(folder)
    if name == "codes.npz":
        found, done = sample.load(0, (2, 60))
        same = np.array_equal(found, codes) and np.array_equal(sample.codes(0), codes)
        require(same and done.tolist() == sample.made(0, 2).tolist() == [60, 60], "codes", done)
    else:
        found = sample.load_window(0, 0, 30, 2)
        require(not found.size or np.array_equal(found, codes[:, :7]), "drawn codes", found)
    return "unchanged"


# --- metrics.jsonl --------------------------------------------------------------------------------

METRICS = [
    {"step": step, "time": 1e9 + step, "loss": 3.5, "time/goodput": 0.5, "lr": "nan"}
    for step in range(1, 9)
]


def metrics_jsonl(_state, folder, rng):
    file = folder / "metrics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    truth = {row["step"]: row for row in read_metrics(file)}
    data, row = any_lines(METRICS, rng)
    file.write_bytes(data)
    with MetricsWriter(folder, 8) as writer:
        writer.scalars(9, {"loss": 1.0})
    found = read_metrics(file)
    require(all(type(x) is float or type(x) is int for r in found for x in r.values()), "no number",
            found)  # fmt: skip
    require(found[-1]["step"] == 9, "the new line is lost", found)
    if row is None:
        return "other"
    rest = [truth[step] for step in truth if step != METRICS[row]["step"]]
    require(all(str(r) in map(str, found) for r in rest), "lines are lost", found)
    return "unchanged" if str(truth[row + 1]) in map(str, found) else "other"


# --- manifests ------------------------------------------------------------------------------------


def make_manifest(folder):
    for name in ("a.wav", "b.wav", "voice.wav"):
        soundfile.write(folder / name, np.zeros(800), 8000)
    (folder / "b.lrc").write_text("[00:01.00]one line\n[00:02.50]another line\n")
    (folder / "c.mid").write_bytes(b"")
    return folder, [
        {"id": "a", "audio": "a.wav", "artist": "A", "genres": ["x", "y"], "year": 1969,
         "lyrics": "la la", "words": [["la", 0.0, 0.5], ["la", 0.5, 1]], "tags": ["calm"],
         "sections": [["Verse", 0, None]], "split": "test", "group": "g"},
        {"id": "b", "audio": "b.wav", "lyrics_file": "b.lrc", "stems": {"vocals": "voice.wav"},
         "midi": "c.mid", "album": "Q", "licence": "CC0", "alignment": {"by": "hand"}},
        {"id": "c", "audio": "a.wav", "lines": [["la", 1.5]], "lyrics": "la"},
    ]  # fmt: skip


def manifest(state, folder, rng):
    base, entries = state
    for path in base.iterdir():
        os.link(path, folder / path.name)
    file = folder / "songs.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    truth = {song.id: song for song in read_manifest(file).songs}
    require(len(truth) == 3, "the undamaged manifest", truth)
    data, row = any_lines(entries, rng)
    file.write_bytes(data)
    found = read_manifest(file)
    for problem in found.problems:
        require("\n" not in str(problem) and problem.line, "not a sentence", problem)
    songs, lines = list(found.songs), sum(1 for line in data.split(b"\n") if line.strip())
    skipped = {problem.line for problem in found.problems if problem.skipped}
    require(row is None or len(songs) + len(skipped) == lines, "lost songs", found.problems)
    require(list(found.labels)[: len(songs)] is not None, "labels", found)
    again = write_manifest(songs, folder / "again.jsonl")
    read = read_manifest(folder / "again.jsonl")
    require(again == len(songs) and list(read.songs) == songs, "written otherwise", songs)
    if row is not None:
        rest = [truth[entry["id"]] for i, entry in enumerate(entries) if i != row]
        lost = [song for song in rest if song not in songs]
        taken = [p for p in found.problems if "taken by line" in p.text]
        require(len(lost) <= len(taken), "changed songs", lost)
    if skipped:
        return "refused"
    same = songs == list(truth.values())
    return "unchanged" if same else "noted" if found.problems else "other"


# --- lyrics ---------------------------------------------------------------------------------------

LYRICS = (
    "[ti:x]\n[offset:+500]\n[00:04.00][00:08.00]sing the chorus\n[00:02.00]first verse\n\nend\n",
    "[00:01.00] <00:01.10> one <00:01.60> two <00:02.10>\n[00:04.00] <00:04.10> four <00:05.10>\n",
    "[00:00:01.20]one line of words\n[00:00:05.30]F: two lines of words\n[Chorus]\nlast\n",
    "12 ContributorsSong Lyrics[Verse 1]\nla la\nAm7  G  C\nla [G]la (x2)\n\n(Chorus)\n"
    "你好 world7Embed",
    "Verse 2:\r\ne|--3--5--|\r\nsung line\r\rthe é end\x0bmore\x85and\u2028more\n[Instrumental]\n",
)  # fmt: skip


def lyrics(_state, folder, rng):
    texts = [LYRICS[i] for i in rng.integers(len(LYRICS), size=rng.integers(1, 3))]
    encoding = ("utf-8", "utf-8", "utf-8-sig", "utf-16")[rng.integers(4)]
    lines = "\n".join(texts).split("\n")
    if rng.random() < 0.4:
        rng.shuffle(lines)
    data = "\n".join(lines).encode(encoding)
    file = folder / ("song.txt", "song.lrc")[rng.integers(2)]
    file.write_bytes(damaged(data, rng) if rng.random() < 0.9 else data)
    found = read_lyrics(file)
    check_lyrics(found)
    again = parse_lyrics(found.text)
    require(again.text == found.text, "parsed otherwise again", found.text, again.text)
    return "other"


def check_lyrics(found):
    """Raises Finding unless lyrics are consistent."""
    require("\0" not in found.text, "NUL in lyrics", found)
    times = [(start, end) for _, start, end in found.words]
    require(all(0 <= start <= end <= 2e6 for start, end in times), "times of words", found)
    require(all(0 <= seconds <= 1e6 for _, seconds in found.lines), "times of lines", found)
    starts = [seconds for _, seconds in found.lines]
    require(starts == sorted(starts), "order of lines", found)
    sung = found.text.split()
    require(all(text in sung for text, _, _ in found.words), "words that are not sung", found)
    if found.words:
        word_times(found.text, found.words, "v2")


# --- album folders --------------------------------------------------------------------------------

NAMES = (
    "song", "Song", "sóng", "so\u0301ng", ".hidden", "a b", "x\ny", "ｓ", "-", "--out", "a#1",
    "a" * 200, "b.c", "con", "@eaDir", "$RECYCLE.BIN", "CD 1", "'\"", "\\", "\udcff", "🎵", "end ",
)  # fmt: skip
ENDS = (*SUFFIXES, *SUFFIXES, ".WAV", ".Mp3", ".m4a", ".txt", ".TXT", ".lrc", ".lrc", "", ".jpg")


def make_album(folder):
    rng = np.random.default_rng(0)
    contents = []
    for seconds in (0.1, 0.2):
        soundfile.write(folder / "x.wav", rng.normal(size=int(8000 * seconds)) * 0.1, 8000)
        contents.append((folder / "x.wav").read_bytes())
    return [*contents, b"", b"la la\n", b"[00:01.00]la\n", b"\0\0", "só".encode("utf-16")]


def album(contents, folder, rng):
    root = folder / "album"
    folders = [root]
    root.mkdir()
    for _ in range(rng.integers(1, 16)):
        parent = folders[rng.integers(len(folders))]
        name, kind = NAMES[rng.integers(len(NAMES))], rng.random()
        path = parent / (name + (ENDS[rng.integers(len(ENDS))] if kind < 0.7 else ""))
        if os.path.lexists(path):
            continue
        if kind < 0.7:
            path.write_bytes(contents[rng.integers(len(contents))])
        elif kind < 0.9:
            path.mkdir()
            folders.append(path)
        else:
            targets = (folder, root, "missing", *folders, Path("/dev/null"))
            path.symlink_to(targets[rng.integers(len(targets))])
    counts = Counts()
    songs = list(scan_folder(root, counts))
    require(counts.songs == len(songs) == len({song.id for song in songs}), "ids", songs)
    sounds = {
        os.path.join(parent, name)
        for parent, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    }
    listed = {str(song.audio) for song in songs}
    left_out = counts.left_out.total()
    require(len(sounds - listed) <= 16 * left_out, "left out silently", sounds - listed)
    count = write_manifest(iter(songs), folder / "songs.jsonl")
    read = read_manifest(folder / "songs.jsonl")
    require(count == len(songs) and not read.problems, "not a valid manifest", read.problems)
    require(list(read.songs) == songs, "read otherwise", songs, list(read.songs))
    require(all(to_entry(song, folder)["id"] == song.id for song in songs), "entries", songs)
    return "noted" if left_out or NOTES.texts else "other"


# --- tunes ----------------------------------------------------------------------------------------


def make_tune(folder):
    """A MIDI file of two tracks with a change of tempo."""
    file = mido.MidiFile(type=1)
    for name in ("Piano", "Voice"):
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
        track.append(mido.MetaMessage("set_tempo", tempo=400_000))
        for pitch in (60, 62, 64, 65):
            track.append(mido.Message("note_on", note=pitch, time=10))
            track.append(mido.Message("note_off", note=pitch, time=400))
        file.tracks.append(track)
    file.save(folder / "tune.mid")
    return (folder / "tune.mid").read_bytes(), read_midi(folder / "tune.mid")


def tune(state, folder, rng):
    data, truth = state
    file = folder / "tune.mid"
    file.write_bytes(damaged(data, rng))
    found = read_midi(file)
    ends = [0.0, *(note.end for note in found)]
    require(found and all(a <= n.start < n.end for a, n in zip(ends, found, strict=False)),
            "no melody", found)  # fmt: skip
    require(all(0 <= note.pitch < 128 for note in found), "no pitches", found)
    return "unchanged" if found == truth else "other"


FORMATS = [
    Format("model.json", 700, lambda _: None, model_json),
    Format("labels.json", 700, lambda _: None, labels_json),
    Format("label ids", 200, lambda _: None, label_ids),
    Format("job.json", 800, make_sample, job_json),
    Format("codes.npz", 700, make_sample, codes_npz),
    Format("metrics.jsonl", 400, lambda _: None, metrics_jsonl),
    Format("manifest", 1000, make_manifest, manifest),
    Format("lyrics", 1200, lambda _: None, lyrics),
    Format("album folder", 300, make_album, album),
    Format("midi", 300, make_tune, tune),
]

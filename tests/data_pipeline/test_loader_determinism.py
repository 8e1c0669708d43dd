"""The same batches for any number of shards, from any step; every song by its length; one song."""

import itertools
import json

import numpy as np
import pytest
from priors import prior
from sounds import write_song

from data_pipeline import prepare
from data_pipeline.code_loader import code_batches, code_windows
from data_pipeline.codes import CodesWriter, codes_length
from data_pipeline.loader import audio_batches
from data_pipeline.plan import Options
from data_pipeline.records import split_songs
from data_pipeline.windows import Windows
from experiments import benchmark
from experiments.benchmark import loader as measure
from jukejax.config import to_dict

AUDIO = {"kind": "audio", "split": "train", "samples": 9_000, "batch_size": 8, "seed": 3}
CODES = {
    "kind": "codes", "split": "train", "batch_size": 8, "seed": 3, "label_dropout": 0.3,
    "config": to_dict(prior(1, 512, 4, lyric_tokens=16, max_genres=3)),
}  # fmt: skip


@pytest.fixture(params=["audio", "codes"])
def options(request, dataset, codes_set):
    if request.param == "audio":
        return AUDIO | {"folder": str(dataset[0])}
    return CODES | {"folder": str(codes_set[0])}


def test_shards_give_the_same_multiset_of_examples(options):
    whole = [sorted(step) for step in measure.example_digests(measure.make(options), 4)]
    for count in (1, 2, 4, 8):
        hosts = [
            measure.example_digests(measure.make(options, rows=rows.tolist()), 4)
            for rows in np.split(np.arange(8), count)
        ]
        assert [sorted(itertools.chain(*step)) for step in zip(*hosts, strict=True)] == whole
    # the digest that the benchmark prints tells: it is of these, and not of another seed
    assert measure.by_shards(options, 4, 8) == measure.whole_digest(whole)
    assert measure.by_shards(options | {"seed": 4}, 4, 1) != measure.whole_digest(whole)


def test_every_step_can_be_gone_on_from(options):
    assert measure.resumed(options, 7)


def test_an_epoch_visits_songs_by_their_length(dataset):
    folder, pcm = dataset
    lengths = [len(pcm[name]) for name in "abcd"]
    chunk = 3_000
    total = Windows(lengths, chunk).total
    given = {"split": "train", "samples": chunk, "seed": 1, "downmix": "mean"}
    # each song has a mean of its own; of an epoch, count the chunks that lie in each
    starts = {}
    for name in "abcd":
        mono = (pcm[name].mean(axis=1) / 32768).astype(np.float32)
        for i, value in enumerate(mono[: len(mono) - 1]):
            starts.setdefault((value, mono[i + 1]), set()).add(name)
    batch = next(audio_batches(folder, batch_size=total, **given))["audio"][..., 0]
    visits = dict.fromkeys("abcd", 0)
    for row in batch:
        (name,) = starts[row[0], row[1]]
        visits[name] += 1
    for name, length in zip("abcd", lengths, strict=True):
        assert abs(visits[name] - length / chunk) <= 0.5


def test_train_and_test_share_no_song(dataset, codes_set):
    for folder in (dataset[0], codes_set[0]):
        train, test = ({song.id for song in split_songs(folder, s)} for s in ("train", "test"))
        assert train == set("abcd") and test == set("ef")
    windows = code_windows(
        codes_set[0], prior(1, 512), None, split="test", batch_size=4,
    )  # fmt: skip
    seen = {int(i) for batch in windows for i in batch["song"][batch["valid"]]}
    assert seen == {song.index for song in split_songs(codes_set[0], "test")}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_with_one_song_trains_and_evaluates(tmp_path, split):
    (tmp_path / "music").mkdir()
    pcm = write_song(tmp_path / "music" / "only.wav", 2.0, 0)
    given = Options(test_fraction=1.0 if split == "test" else 0.1)
    prepare.build(tmp_path / "music", tmp_path / "data", options=given, show_progress=False)
    writer = CodesWriter(tmp_path / "data", tmp_path / "codes", (8, 32), "x", codes=9)
    for shard in writer.pending_shards():
        lengths = [codes_length(len(pcm), hop, 32) for hop in (8, 32)]
        writer.write_shard(shard, [(shard.songs[0], [np.arange(n) % 9 for n in lengths])])
    writer.finish()
    audio = next(
        audio_batches(tmp_path / "data", split=split, samples=9_000, batch_size=8, seed=0)
    )["audio"]
    assert audio.shape == (8, 9_000, 1) and len({row.tobytes() for row in audio}) == 8
    given = {"config": prior(0, 512, 4, lyric_tokens=4), "vocabulary": None}
    given |= {"split": split, "batch_size": 8}
    codes = next(code_batches(tmp_path / "codes", seed=0, **given))
    assert (np.diff(codes["codes"], axis=1) % 9 == 1).all()
    passed = list(code_windows(tmp_path / "codes", **given))
    counted = sum(int(batch["valid"].sum()) for batch in passed)
    assert counted == codes_length(len(pcm), 8, 32) // 512


@pytest.mark.slow
def test_new_processes_of_other_hash_seeds_and_locales_agree_in_the_benchmark(
    dataset, codes_set, capsys
):
    benchmark.main(
        ["loader", "--songs", str(dataset[0]), "--codes", str(codes_set[0]), "--samples", "9000",
         "--n-ctx", "128", "--lyric-tokens", "8", "--batch", "8", "--steps", "2",
         "--seconds", "0.05", "--json"]
    )  # fmt: skip
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    for kind in ("audio", "codes"):
        assert found[kind]["same"] and found[kind]["resumes"]
        assert len(set(found[kind]["digests"].values())) == 1
    assert found["code_speed"]["host_tokens_per_step"] == 256 * 8192 // 32
    assert min(found["audio_speed"].values()) > 0

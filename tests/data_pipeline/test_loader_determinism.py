"""The same batches for any number of shards, from any step; every song by its length; one song."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys

import digests
import numpy as np
import pytest
from batches import audio_batches, code_batches, prior
from digests import example_digests, make
from sounds import write_song

from data_pipeline import prepare
from data_pipeline.code_loader import code_windows
from data_pipeline.codes import CodesWriter, codes_info, codes_length
from data_pipeline.plan import Options
from data_pipeline.records import split_songs
from data_pipeline.windows import Windows
from experiments.benchmark import loader
from jukejax.config import ConfigError, to_dict

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
    whole = [sorted(step) for step in example_digests(make(options), 4)]
    for count in (1, 2, 4, 8):
        hosts = [
            example_digests(make(options, rows=rows.tolist()), 4)
            for rows in np.split(np.arange(8), count)
        ]
        assert [sorted(itertools.chain(*step)) for step in zip(*hosts, strict=True)] == whole
    other = example_digests(make(options | {"seed": 4}), 4)
    assert [sorted(step) for step in other] != whole


def test_reading_can_continue_from_every_step(options):
    whole = example_digests(make(options), 7)
    for step in range(1, 7):
        assert example_digests(make(options, step), 1) == whole[step : step + 1]


def test_windows_of_grouped_codes_begin_at_whole_encoder_outputs(dataset, tmp_path):
    writer = CodesWriter(dataset[0], tmp_path / "codes", (8,), "vqvae-1", codes=2000, groups=4)
    for shard in writer.pending_shards():
        codes = [[np.arange(codes_length(s.n_samples, 8, 32)) % 2000] for s in shard.songs]
        writer.write_shard(shard, list(zip(shard.songs, codes, strict=True)))
    writer.finish()
    assert codes_info(tmp_path / "codes").block == 32
    config = dataclasses.replace(prior(0, 64), hop=8, groups=4)
    batches = code_batches(tmp_path / "codes", config, None, split="train", batch_size=64, seed=0)
    starts = next(batches)["codes"][:, 0]  # code = its position, modulo a multiple of 4
    assert len(set(starts)) > 32 and not (starts % 4).any()


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
def test_new_processes_of_other_hash_seeds_and_locales_agree(options):
    whole = example_digests(make(options), 2)
    for environment in (
        {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "UTC"},
        {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"},
    ):
        done = subprocess.run(
            [sys.executable, digests.__file__, json.dumps([options, 2])],
            env=os.environ | {"PYTHONPATH": "."} | environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == whole


@pytest.mark.slow
def test_the_loaders_speed_is_compared_with_a_plan(dataset, codes_set):
    options = {"samples": 9000, "n_ctx": 128, "lyric_tokens": 8, "batch": 8, "seconds": 0.05}
    figures = loader.run(loader.Command(dataset[0], codes_set[0], **options))
    speed = figures["code_speed"]
    assert speed["host_tokens_per_step"] == 256 * 8192 // 32 and speed["hosts"] == 32
    share = speed["host_tokens_per_step"] / speed["tokens_per_s"] / speed["step_s"]
    assert speed["share_of_step"] == share
    assert len(figures["audio_speed"]) == 5 and min(figures["audio_speed"].values()) > 0
    with pytest.raises(ConfigError, match="There is no plan"):
        loader.run(loader.Command(dataset[0], codes_set[0], plan="x", seconds=0))

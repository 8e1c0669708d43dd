"""Batches are functions of (seed, step, host): resuming, sharing, coverage, content."""

import itertools
import json
import shutil

import numpy as np
import pytest
from batches import audio_batches, code_batches, prior
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import codes, records, windows
from data_pipeline.code_loader import code_token_counts, code_windows, song_lengths
from data_pipeline.songs import PreparedSong, prepared_songs, write_songs
from jukejax.errors import DataError
from jukejax.label_kinds import ARTIST, GENRE
from jukejax.text import lyrics
from jukejax.text.labels import Vocabulary

AUDIO = {"split": "train", "samples": 20_000, "batch_size": 8, "seed": 3}
PRIOR = prior(1, 512, 4, lyric_tokens=16, max_genres=3)
CODES = {"config": PRIOR, "vocabulary": None, "split": "train", "batch_size": 8}


@pytest.mark.parametrize("longest", [2**31 - 1, 2**31])
def test_a_song_whose_positions_exceed_32_bits_is_refused(tmp_path, longest):
    """Of 13.5 hours at 44.1 kHz."""
    lengths = {"short": 5, "epic": longest}
    write_songs(
        tmp_path,
        [PreparedSong(i, name, "train", 0, i, 1, n, "x.wav")
         for i, (name, n) in enumerate(lengths.items())],
    )  # fmt: skip
    songs = prepared_songs(tmp_path)
    if longest < 2**31:
        assert song_lengths(songs).tolist() == [5, longest]
    else:
        with pytest.raises(DataError, match="epic has 2,147,483,648 samples"):
            song_lengths(songs)


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def join(shards):
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*shards, strict=True)
    ]


@pytest.mark.parametrize("downmix", ["random", "mean"])
def test_audio_resumes_at_any_step(dataset, downmix):
    options = AUDIO | {"downmix": downmix}
    whole = take(audio_batches(dataset[0], **options), 9)
    for start in (1, 4, 8):
        assert_same(
            take(audio_batches(dataset[0], **options, start_step=start), 1), whole[start:][:1]
        )


@pytest.mark.parametrize("count", [2, 4])
def test_hosts_share_the_global_batch(dataset, codes_set, count):
    for function, folder, options in (
        (audio_batches, dataset[0], AUDIO),
        (code_batches, codes_set[0], CODES | {"seed": 1, "label_dropout": 0.5}),
    ):
        whole = take(function(folder, **options), 3)
        rows = np.split(np.arange(options["batch_size"]), count)
        parts = [take(function(folder, **options, rows=part), 3) for part in rows]
        assert_same(join(parts), whole)
        # a mesh may lay a host's rows anywhere, and several hosts may hold the same ones
        some = take(function(folder, **options, rows=[5, 0, 3]), 3)
        assert_same(some, [{k: v[[5, 0, 3]] for k, v in batch.items()} for batch in whole])


def test_seeds_and_epochs_differ(dataset):
    first = take(audio_batches(dataset[0], **AUDIO), 4)
    other = take(audio_batches(dataset[0], **AUDIO | {"seed": 4}), 4)
    assert not np.array_equal(first[0]["audio"], other[0]["audio"])
    assert len({batch["audio"].tobytes() for batch in first}) == 4


def test_audio_is_the_mean_of_a_stretch_of_one_song(dataset):
    folder, pcm = dataset
    # Songs of the train split, followed by the silence that pads one shorter than a chunk.
    mono = {
        name: np.concatenate([pcm[name].mean(axis=1) / 32768, np.zeros(20_000)]) for name in "abcd"
    }
    for batch in take(audio_batches(folder, **AUDIO, downmix="mean"), 4):
        assert batch["audio"].shape == (8, 20_000, 1) and batch["audio"].dtype == np.float32
        for chunk in batch["audio"][..., 0]:
            assert any(_contains(song, chunk) for song in mono.values())


def _contains(song, chunk):
    """Whether `chunk` is a stretch of `song`, found by its first 50 samples."""
    starts = np.flatnonzero(np.isclose(song[: len(song) - len(chunk) + 1], chunk[0], atol=1e-6))
    stretches = (song[start : start + len(chunk)] for start in starts)
    return any(np.allclose(stretch, chunk, atol=1e-6) for stretch in stretches)


def drawn(lengths, size, step, seed=3, batch_size=8, count=1):
    """(songs, starts, uniforms) of the examples of steps step .. step + count - 1."""
    plan, tf = windows.Windows(lengths, size), records.tensorflow()
    rows = np.arange(batch_size)
    steps = windows.schedule(tf, plan.total, batch_size, rows, seed, step)
    for items, uniforms in itertools.islice(steps.as_numpy_iterator(), count):
        yield *plan.locate(items, uniforms[:, 0]), uniforms


def test_the_uniforms_of_a_step_are_its_own_and_those_of_an_example_differ():
    """Shift, downmix and dropout of the examples of 40 steps are independent of each other."""
    uniforms = np.concatenate([u for *_, u in drawn([900, 50], 10, 0, count=40)])
    assert len(np.unique(uniforms[:, 0])) == len(uniforms) == 320
    assert np.abs(np.corrcoef(uniforms.T) - np.eye(3)).max() < 0.2
    (_, _, again), (_, _, other) = (next(drawn([900, 50], 10, 0, seed=x)) for x in (3, 4))
    np.testing.assert_array_equal(again, uniforms[:8])
    assert not np.array_equal(again, other)


def test_random_downmix_is_drawn_apart_from_the_shift(dataset):
    folder, pcm = dataset
    songs = [np.pad(pcm[name] / 32768, ((0, 20_000), (0, 0))) for name in "abcd"]
    (batch,) = take(audio_batches(folder, **AUDIO, start_step=5), 1)
    ((song, start, uniforms),) = drawn([len(pcm[name]) for name in "abcd"], 20_000, 5)
    for row in range(8):
        left, right = songs[song[row]][start[row] : start[row] + 20_000].T
        mix = uniforms[row, 1]
        expected = mix * left + (1 - mix) * right
        np.testing.assert_allclose(batch["audio"][row, :, 0], expected, atol=1e-6)


def test_one_epoch_holds_every_chunk_once(dataset):
    # 3.0, 0.5, 6.0 and 2.25 s in chunks of 20,000 samples: 7 + 1 + 13 + 5 windows.
    options = AUDIO | {"batch_size": 26, "downmix": "mean"}
    epochs = take(audio_batches(dataset[0], **options), 2)
    assert len({chunk.tobytes() for chunk in epochs[0]["audio"]}) == 26
    lengths = [len(dataset[1][name]) for name in "abcd"]
    for song, *_ in drawn(lengths, 20_000, 0, batch_size=26, count=2):
        assert np.bincount(song).tolist() == [7, 1, 13, 5]
    assert not np.array_equal(epochs[0]["audio"], epochs[1]["audio"])


def test_song_shorter_than_a_chunk_is_padded_with_silence(dataset):
    options = AUDIO | {"samples": 30_000, "batch_size": 17, "downmix": "mean"}  # an epoch
    batch = next(audio_batches(dataset[0], **options))
    silent = [not np.any(chunk[22_050:]) for chunk in batch["audio"][..., 0]]
    assert sum(silent) == 1  # song b, of 22,050 samples
    chunk = batch["audio"][silent.index(True), :22_050, 0]
    np.testing.assert_allclose(chunk, dataset[1]["b"].mean(axis=1) / 32768, atol=1e-6)


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=6),
    st.integers(1, 90),
    st.integers(1, 4),
    st.integers(0, 2**31),
)
def test_windows_stay_inside_their_song(lengths, size, step, seed):
    plan = windows.Windows(lengths, size * step, step)
    items = np.arange(plan.total)
    uniforms = np.random.default_rng(seed).uniform(size=plan.total)
    song, start = plan.locate(items, uniforms)
    assert set(song) == set(range(len(lengths)))
    fits = np.maximum(0, np.asarray(lengths)[song] - size * step)
    assert (start >= 0).all() and (start <= fits).all() and (start % step == 0).all()
    counts = np.bincount(song)
    assert (np.abs(counts - np.asarray(lengths) / (size * step)) <= 1).all()


def test_codes_come_back_whole(codes_set):
    folder, truth = codes_set
    for name, levels in truth.items():
        for got, expected in zip(codes.read_song_codes(folder, name), levels, strict=True):
            assert got.dtype == np.uint16
            np.testing.assert_array_equal(got, expected)


def test_code_windows_line_up_with_the_level_above_and_time(dataset, codes_set):
    labels = Vocabulary.load(codes_set[0] / "labels.json")
    options = CODES | {"vocabulary": labels, "seed": 5}
    songs = {song.n_samples: song for song in prepared_songs(codes_set[0])}
    starts = set()
    for batch in take(code_batches(codes_set[0], **options), 6):
        assert all(value.dtype == np.int32 for value in batch.values())
        for row in range(8):
            example = {name: value[row] for name, value in batch.items()}
            song = songs[int(example["total_length"])]
            assert len(dataset[1][song.id]) == example["total_length"]
            begin = example["offset"] // 32
            assert begin % 4 == 0
            assert example["codes"].tolist() == [i % 2000 for i in range(begin, begin + 512)]
            upper = [i % 2000 for i in range(begin // 4, begin // 4 + 128)]
            assert example["upper"].tolist() == upper
            assert example["artist"] == labels.ids(ARTIST, song.artist) > 0
            assert example["genres"].tolist() == labels.ids(GENRE, song.genres, 3).tolist()
            tokens = lyrics.encode(song.lyrics)
            expected = lyrics.window(tokens, 16, song.n_samples, int(example["offset"]), 512 * 32)
            assert example["lyrics"].tolist() == expected.tolist()
            starts.add((song.id, int(begin)))
    assert len(starts) > 20


def test_codes_resume_at_any_step(codes_set):
    options = CODES | {"seed": 1, "label_dropout": 0.3}
    whole = take(code_batches(codes_set[0], **options), 6)
    assert_same(take(code_batches(codes_set[0], **options, start_step=4), 2), whole[4:])


def test_label_dropout_makes_labels_unknown(codes_set):
    labels = Vocabulary.load(codes_set[0] / "labels.json")
    options = CODES | {"vocabulary": labels, "seed": 1}
    kept = next(code_batches(codes_set[0], **options))
    dropped = next(code_batches(codes_set[0], **options, label_dropout=1.0))
    assert (kept["artist"] > 0).all() and (dropped["artist"] == 0).all()
    assert (dropped["genres"] == [0, -1, -1]).all()
    np.testing.assert_array_equal(kept["codes"], dropped["codes"])


def test_label_dropout_is_drawn_apart_from_the_shift(codes_set):
    names = Vocabulary.load(codes_set[0] / "labels.json")
    options = CODES | {"vocabulary": names, "seed": 3, "batch_size": 64}
    batch = next(code_batches(codes_set[0], **options, label_dropout=0.5))
    lengths = [len(levels[1]) for name, levels in codes_set[1].items() if name in "abcd"]
    ((*_, uniforms),) = drawn(lengths, 512, 0, batch_size=64)
    np.testing.assert_array_equal(batch["artist"] == 0, uniforms[:, 2] < 0.5)


def test_top_level_has_no_upper(codes_set):
    batch = next(code_batches(codes_set[0], **CODES | {"config": prior(2, 128), "seed": 1}))
    assert batch["codes"].shape == (8, 128)
    assert not {"upper", "lyrics"} & set(batch)


def test_code_windows_pass_over_a_split_once(codes_set):
    batches = list(code_windows(codes_set[0], **CODES))
    songs = np.concatenate([batch["song"] for batch in batches])
    valid = np.concatenate([batch["valid"] for batch in batches])
    lengths = [len(codes_set[1][name][1]) // 512 for name in "abcd"]
    assert np.bincount(songs[valid], minlength=4).tolist() == lengths
    assert (songs[~valid] == -1).all() and len(songs) % 8 == 0


def test_short_songs_are_left_out_and_said(codes_set, caplog):
    next(code_batches(codes_set[0], **CODES | {"config": prior(1, 2048, 4), "seed": 0}))
    assert "1 of 4 songs" in caplog.text
    with pytest.raises(DataError, match="none of the 4 songs"):
        code_batches(codes_set[0], **CODES | {"config": prior(1, 65_536, 4), "seed": 0})


def test_token_counts(codes_set):
    counts = code_token_counts(codes_set[0], "train", 2, 2000)
    tokens = np.concatenate([codes_set[1][name][2] for name in "abcd"])
    np.testing.assert_array_equal(counts, np.bincount(tokens, minlength=2000))
    with pytest.raises(DataError, match="only 100"):
        code_token_counts(codes_set[0], "train", 2, 100)


def test_codes_of_another_vqvae_are_refused(dataset, codes_set):
    with pytest.raises(DataError, match="'vqvae-2'"):
        next(code_windows(codes_set[0], **CODES, expect_fingerprint="vqvae-2"))
    with pytest.raises(DataError, match="'vqvae-2'"):
        codes.CodesWriter(dataset[0], codes_set[0], (8, 32, 128), "vqvae-2", codes=2000)
    next(code_windows(codes_set[0], **CODES, expect_fingerprint="vqvae-1"))


def test_codes_writer_goes_on_and_checks(dataset, tmp_path):
    writer = codes.CodesWriter(dataset[0], tmp_path, (4, 16), "x", codes=9)
    first, second = writer.pending_shards()
    good = [
        (song, [np.zeros(codes.codes_length(song.n_samples, hop, 16), int) for hop in (4, 16)])
        for song in first.songs
    ]
    with pytest.raises(DataError, match="takes the songs"):
        writer.write_shard(first, good[1:])
    with pytest.raises(DataError, match="shapes"):
        writer.write_shard(first, [(song, arrays[::-1]) for song, arrays in good])
    with pytest.raises(DataError, match=r"-1\.\.-1, but the VQ-VAE has 0\.\.8"):
        writer.write_shard(first, [(song, [a - 1 for a in arrays]) for song, arrays in good])
    writer.write_shard(first, good)
    with pytest.raises(DataError, match="1 shards are not encoded"):
        writer.finish()
    again = codes.CodesWriter(dataset[0], tmp_path, (4, 16), "x", codes=9)
    assert again.pending_shards() == [second]
    with pytest.raises(DataError, match="hops"):
        codes.CodesWriter(dataset[0], tmp_path / "other", (8, 12), "x", codes=9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "valid"}, "split"),
        ({"samples": 0}, "chunk"),
        ({"downmix": "left"}, "downmix"),
        ({"rows": [0, 8]}, r"rows \[0, 8\] were asked for of a batch of 8"),
        ({"rows": []}, r"rows \[\]"),
        ({"start_step": -1}, "start_step"),
    ],
)
def test_mistaken_arguments(dataset, change, words):
    with pytest.raises(DataError, match=words):
        audio_batches(dataset[0], **AUDIO | change)


def test_folder_that_was_not_prepared(tmp_path):
    with pytest.raises(DataError, match="not a prepared data set"):
        audio_batches(tmp_path, **AUDIO)
    with pytest.raises(DataError, match="not a codes data set"):
        code_batches(tmp_path, **CODES, seed=0)


def test_songs_and_codes_are_not_taken_for_each_other(dataset, codes_set):
    options = {"split": "train", "samples": 9000, "batch_size": 2}
    with pytest.raises(DataError, match="holds codes, not songs"):
        audio_batches(codes_set[0], **options, seed=0)
    with pytest.raises(DataError, match="holds codes, not songs"):
        records.read_audio(codes_set[0], prepared_songs(codes_set[0])[0], 0, 9)
    for function in (code_batches, code_windows):
        with pytest.raises(DataError, match="holds songs, not codes"):
            next(function(dataset[0], **CODES, **({"seed": 0} if function is code_batches else {})))


def test_the_number_of_codes_is_kept(codes_set, tmp_path):
    assert codes.codes_info(codes_set[0]).codes == 2000
    old = json.loads((codes_set[0] / "codes.json").read_text())
    del old["codes"]
    (tmp_path / "codes.json").write_text(json.dumps(old))
    with pytest.raises(DataError, match="encode the songs again"):
        codes.codes_info(tmp_path)


def test_code_windows_can_be_few_and_evenly_over_the_split(codes_set):
    def rows(**more):
        batches = code_windows(codes_set[0], **CODES, **more)
        return [b["codes"][i] for b in batches for i in np.flatnonzero(b["valid"])]

    whole = rows()
    assert len(whole) > 5
    places = np.linspace(0, len(whole) - 1, 3).round().astype(int)
    np.testing.assert_array_equal(rows(most=3), [whole[i] for i in places])
    np.testing.assert_array_equal(rows(most=len(whole) + 1), whole)


def test_codes_outside_the_codebook_are_refused(codes_set, tmp_path):
    folder = shutil.copytree(codes_set[0], tmp_path / "codes")
    info = json.loads((folder / "codes.json").read_text())
    (folder / "codes.json").write_text(json.dumps({**info, "codes": 3}))
    with pytest.raises(DataError, match=r"level 1, has codes from 0 to .* has 0 to 2; encode"):
        next(code_windows(folder, PRIOR, None, split="train", batch_size=1))
    with pytest.raises(DataError, match=r"level 0 has codes from 0 to .* has 0 to 2; encode"):
        codes.read_song_codes(folder, prepared_songs(folder)[0].id)

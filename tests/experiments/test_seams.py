"""What the benchmark of seams says: of codes, sounds and songs whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny_model
from tiny_model import MIDDLE

from experiments.benchmark import seams
from jukejax.config import ConfigError


@pytest.fixture(scope="module")
def sample(model, tmp_path_factory):
    """Two finished songs of one chain: 38, 76 and 152 codes, windows of 16."""
    folder = tmp_path_factory.mktemp("seams")
    return tiny_model.sample(
        folder / "songs", model=model, artist="ella", genre=("jazz",),
        seconds=0.0751, count=2, temperature=(3.0,) * 3, hop_fraction=(0.5,) * 3,
    )  # fmt: skip


def test_bits_are_those_of_the_tokens_after_a_place_in_a_window_around_it():
    """By a scorer whose bits are the codes that it is shown."""
    shown = []

    def scorer(batch):
        shown.append(batch)
        return batch["codes"].astype(float)

    setup = SimpleNamespace(config=MIDDLE, ratio=2, conditions=lambda offset: {})
    codes = np.arange(1, 41, dtype=np.int32) + np.array([[0], [100]], np.int32)
    upper = np.arange(20, dtype=np.int32) + np.array([[0], [100]], np.int32)
    found = seams.bits_after(scorer, setup, codes, upper, [4, 20, 36], 2)
    assert found.shape == (2, 3, 8)
    assert found[0, 0].tolist() == [*range(5, 13)] and found[1, 1].tolist() == [*range(121, 129)]
    assert found[0, 2, :4].tolist() == [37, 38, 39, 40] and np.isnan(found[0, 2, 4:]).all()
    # half a window is heard before the place, under the codes above it
    assert shown[1]["codes"][0].tolist() == [*range(13, 29)]
    assert shown[1]["upper"][0].tolist() == [*range(6, 14)]


def test_spectra_of_a_copy_are_not_apart_and_twice_as_loud_they_are_six_decibels():
    part = np.random.default_rng(0).normal(size=(1, 50)).astype(np.float32)
    audio = np.concatenate([part, part, 2 * part, part[:, ::-1]], 1)
    found = seams.gaps(audio, [50, 100, 150], 50)
    assert found.shape == (1, 3)
    np.testing.assert_allclose(found[0, :2], [0, 20 * np.log10(2)], atol=1e-6)
    assert found[0, 2] == pytest.approx(20 * np.log10(2))  # backwards it has the same spectrum


def test_differences_are_paired_by_song():
    cut = np.array([[1.0, 3.0], [5.0, np.nan]])
    whole = np.array([[1.0, 1.0], [4.0, np.nan]])
    found = seams.compared(cut, whole)
    assert (found["chains"], found["one"]) == (3.0, 2.0)  # over all tokens
    assert found["difference"] == 1.0 and found["interval"] == (1.0, 1.0)  # 1 in each song


@pytest.mark.slow
def test_a_song_is_made_again_in_chains_and_measured(sample):
    found = seams.run(seams.Command(sample, segments=(2,)))
    rows = found["rows"]
    of_levels = [(row["level"], row["chains"]) for row in rows]
    assert of_levels == [(1, 1), (1, 2), (1, 5), (0, 1), (0, 2), (0, 10)]
    for row in rows:
        if row["chains"] == 1:
            assert row["as_sampled"] and row["steps"] == {1: 76, 0: 152}[row["level"]]
            continue
        assert list(row["bits"]) == ["1 to 1", "2 to 8"]  # half a window are 8
        for pair in row["bits"].values():
            assert pair["one"] > 0 and pair["chains"] > 0
        assert row["tokens_per_second"] > 0
    text = "\n".join(seams.lines(found))
    assert "bits of tokens 2 to 8" in text and "own codes: True, True" in text


@pytest.mark.slow
def test_songs_of_several_chains_are_refused(sample, tmp_path):
    tiny_model.sample(tmp_path / "cut", upsample=sample, parallel_segments=2)
    with pytest.raises(
        ConfigError, match="must have finished songs without a prompt, of one chain"
    ):
        seams.run(seams.Command(tmp_path / "cut"))

"""Measures of sounds in known cases; the network's sense of music (slow)."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipeline import prepare
from jukejax.evaluation import frechet, sounds
from jukejax.evaluation.generation import make_embedder
from jukejax.evaluation.label_check import consistency

RATE = 44_100


def spoil(kind, amount, sound, rate):
    """A sound with noise (dB), without high frequencies (Hz), or with its pieces (s) shuffled."""
    rng = np.random.default_rng(0)
    if kind == "noise":
        power = np.mean(np.square(sound, dtype=np.float64)) * 10 ** (-amount / 10)
        return (sound + rng.normal(scale=np.sqrt(power), size=len(sound))).astype(np.float32)
    if kind == "low-pass":
        spectrum = np.fft.rfft(sound)
        spectrum[round(amount * len(sound) / rate) :] = 0
        return np.fft.irfft(spectrum, len(sound)).astype(np.float32)
    pieces = [
        sound[i : i + round(amount * rate)] for i in range(0, len(sound), round(amount * rate))
    ]
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])


def noise(seconds=4.0, seed=0, level=0.1):
    return level * np.random.default_rng(seed).normal(size=round(seconds * RATE)).astype("f4")


def test_levels_of_known_sounds():
    t = np.arange(4 * RATE) / RATE
    sine = np.sin(2 * np.pi * 997 * t).astype(np.float32)
    loud = sounds.levels(sine, RATE)
    assert loud["loudness_lufs"] == pytest.approx(-3.01, abs=0.1)  # by the standard's definition
    assert loud["silent"] == 0
    half = np.concatenate([0.1 * sine, np.zeros_like(sine)])
    found = sounds.levels(half, RATE)
    assert (found["silent"], found["clipped"]) == (0.5, 0)
    assert sounds.levels(np.clip(2 * sine, -1, 1), RATE)["clipped"] == pytest.approx(
        2 / 3, abs=0.01
    )
    assert sounds.levels(np.zeros(RATE, np.float32), RATE)["loudness_lufs"] == sounds.QUIETEST


def test_a_loop_repeats_and_a_song_of_noises_does_not():
    steps = np.concatenate([a * noise(0.2, i) for i, a in enumerate([1, 0.1, 0.5, 2, 0.2] * 2)])
    assert sounds.repetition(np.tile(steps, 4), RATE) > 0.95
    gains = np.random.default_rng(1).uniform(-2, 1, 40)
    wild = np.concatenate([10**g * noise(0.2, i, 0.05) for i, g in enumerate(gains)])
    assert sounds.repetition(wild, RATE) < 0.7


def test_a_jump_at_a_border_stands_out():
    x = noise()
    x[2 * RATE :] *= 4
    assert sounds.joins(x, RATE, [2.0])["jump_rank"] > 0.99
    assert 0.05 < sounds.joins(noise(), RATE, [1.0, 1.7, 2.3, 3.1])["flux_rank"] < 0.95
    assert sounds.joins(x, RATE, []) == {}


def test_log_spectral_distance_is_in_decibels_and_hears_high_frequencies():
    def counts(*some):
        return sounds.LevelCounts(RATE).add(some)

    x = noise()
    assert counts(x).distance(counts(x)) == 0
    assert counts(x).distance(counts(noise(seed=1))) < 0.3
    assert counts(x).distance(counts(x / 2)) == pytest.approx(6.02, abs=0.2)
    muffled = spoil("low-pass", 9000.0, x, RATE)  # all that FAD would miss
    assert counts(x).distance(counts(muffled)) > 3


def test_a_classifier_names_labels_that_are_there_to_hear():
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(20), 5)
    labels = ["a", "b"] * 10
    x = rng.normal(size=(100, 6)) + 4.0 * (of % 2)[:, None]
    swapped = ["b", "a"] * 10
    found = consistency((x, of, labels), {"same": (x, of, labels), "other": (x, of, swapped)})
    assert (found["classes"], found["chance"]) == (2, 0.5)
    assert found["same"] == {"accuracy": 1.0, "count": 20}
    assert found["other"]["accuracy"] == 0.0
    assert consistency((x, of, ["a"] * 20), {}) is None
    unknown = consistency((x, of, labels), {"x": (x, of, ["c"] * 20)})
    assert unknown["x"] == {"accuracy": None, "count": 0}


@pytest.mark.slow
def test_fad_rises_as_real_music_is_spoilt(published_weights):
    """Every other bundled song is spoilt more and more, and compared with the songs between."""
    embedder, songs = make_embedder("musicnn-mtt"), []
    for path in sorted((Path(prepare.__file__).parent / "demo_music" / "audio").glob("*.ogg")):
        rate = soundfile.info(path).samplerate
        part = {"start": 5 * rate, "stop": 5 * rate + round(3.2 * rate), "dtype": "float32"}
        songs.append((soundfile.read(path, always_2d=True, **part)[0].mean(axis=1), rate))
    real = frechet.fit(np.concatenate([embedder(x, rate).vectors for x, rate in songs[::2]]))

    def fad(change):
        vectors = [embedder(change(x, rate), rate).vectors for x, rate in songs[1::2]]
        return frechet.distance(real, np.concatenate(vectors))

    clean = fad(lambda x, rate: x)
    spoilt = {"noise": (30, 10), "low-pass": (4000, 1000), "shuffle": (0.5, 0.05)}
    for kind, amounts in spoilt.items():
        path = [clean, *(fad(lambda x, r, k=kind, a=a: spoil(k, a, x, r)) for a in amounts)]
        assert np.all(np.diff(path) > 0), (kind, path)


@pytest.mark.slow
def test_notes_of_a_known_chord(published_weights):
    from jukejax.evaluation import melody

    t = np.arange(4 * RATE) / RATE
    keys = (57, 61, 64)  # A3, C sharp 4, E4
    tones = [
        np.sin(2 * np.pi * 440 * 2 ** ((k - 69) / 12) * h * t) / h for k in keys for h in (1, 2, 3)
    ]
    found = melody.describe((0.1 * np.sum(tones, axis=0)).astype(np.float32), RATE)
    assert sorted(np.argsort(found["pitch_classes"])[-3:]) == [1, 4, 9]
    assert 2.5 < found["polyphony"] < 4.5
    note, _ = melody.activations(0.1 * np.sum(tones, axis=0), RATE)
    assert set(np.argsort(note.mean(axis=0))[-3:] + 21) == set(keys)

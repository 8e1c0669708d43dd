"""The library: what `import jukejax` gives, and that it samples what the command samples."""

import base64
import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
import tiny_model
from tiny_model import HOPS, RATE, codes

import jukejax
from experiments.sample import Command, run
from jukejax.config import ConfigError, PriorExperiment
from jukejax.errors import CheckpointError, DataError
from jukejax.model import Keywords
from jukejax.model_dir import write_model_dir
from jukejax.models import vqvae
from jukejax.sampling.job import Options
from jukejax.sampling.run import sample_into
from jukejax.sampling.sound import decode

SECONDS = 0.0751
OPTIONS = {
    "artist": "ella", "genre": "jazz", "seconds": SECONDS, "seed": 5, "temperature": 3.0,
    "hop_fraction": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_folder):
    with pytest.MonkeyPatch.context() as patch:
        tiny_model.read_once(patch)
        yield jukejax.load(tiny_folder)


@pytest.fixture(scope="module")
def song(model):
    return model.sample(**OPTIONS)


@pytest.fixture(scope="module")
def sound():
    t = np.arange(500) / RATE
    return (0.5 * np.stack([np.sin(3000 * t), np.sin(5000 * t)], 1)).astype(np.float32)


def test_importing_the_package_imports_no_jax():
    program = (
        "import sys, jukejax; heavy = {'jax', 'numpy', 'flax', 'orbax'} & set(sys.modules); "
        "assert not heavy, heavy; assert {'load', 'Model', 'Song'} <= set(dir(jukejax)); "
        "jukejax.load; assert 'jax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        jukejax.lod  # noqa: B018


def test_codes_are_those_of_the_command(song, tiny_folder, tmp_path):
    run(
        Command(
            out=tmp_path, model=tiny_folder, artist="ella", genre=("jazz",), seconds=SECONDS,
            seed=5, temperature=(3.0,) * 3, hop_fraction=(0.5,) * 3,
        )
    )  # fmt: skip
    for level in range(3):
        np.testing.assert_array_equal(song.codes[level], codes(tmp_path, level)[0])
    audio, rate = soundfile.read(tmp_path / "level_0" / "item_0.wav", dtype="float32")
    np.testing.assert_array_equal(song.audio, audio)
    assert (song.sample_rate, rate, song.level, len(audio)) == (RATE, RATE, 0, 601)
    assert song.alignment is None


def test_a_folder_is_continued_where_it_was_stopped(model, song, tmp_path):
    steps = sample_into(tmp_path / "a", model.loaded, model.request(**OPTIONS))
    assert not next(steps).finished
    steps.close()  # in the first window of the top level
    with np.load(tmp_path / "a" / "level_2" / "window_0.npz") as data:
        assert 0 < data["drawn"].shape[1] < 16
    again = model.sample(folder=tmp_path / "a", **OPTIONS)
    for level in range(3):
        np.testing.assert_array_equal(again.codes[level], song.codes[level])
    np.testing.assert_array_equal(again.audio, song.audio)
    assert (tmp_path / "a" / "index.html").exists()
    with pytest.raises(ConfigError, match="another job"):
        model.sample(folder=tmp_path / "a", **OPTIONS | {"seed": 6})


def test_streamed_pieces_are_the_songs_sound(model, song, tmp_path):
    pieces = list(model.stream(folder=tmp_path, **OPTIONS))
    np.testing.assert_allclose(np.concatenate(pieces), song.audio, atol=2**-15)
    again = list(model.stream(folder=tmp_path, **OPTIONS))  # finished: nothing is sampled
    np.testing.assert_array_equal(np.concatenate(again), song.audio)
    with pytest.raises(ConfigError, match="one song"):
        next(model.stream(count=2, **OPTIONS))


def test_several_songs_and_a_prompt(model, sound):
    songs = model.samples(prompt=sound, count=2, levels=2, **OPTIONS)
    given = model.encode(sound)[2]
    assert [len(x.codes[2]) for x in songs] == [38, 38] and len(given) == 31
    for one in songs:
        assert one.level == 2 and len(one.codes[0]) == 124  # given; the rest is not sampled
        np.testing.assert_array_equal(one.codes[2][:31], given)
    assert (songs[0].codes[2] != songs[1].codes[2]).any()
    with pytest.raises(ConfigError, match=r"use samples\(count="):
        model.sample(count=2, **OPTIONS)


def test_encode_and_decode_are_the_vq_vaes(model, sound):
    loaded, mono = model.loaded.vqvae, sound.mean(1)
    found = model.encode(sound)
    for level, hop in enumerate(HOPS):
        z = vqvae.encode(loaded.config, loaded.params, loaded.books, mono[None, :496, None], level)
        assert found[level].dtype == np.int32 and found[level].shape == (496 // hop,)
        np.testing.assert_array_equal(found[level], np.asarray(z)[0])
    whole = vqvae.decode(loaded.config, loaded.params, loaded.books, found[1][None], 1)
    decoded = model.decode(found[1], level=1)
    assert decoded.dtype == np.float32 and decoded.shape == (496,)
    np.testing.assert_allclose(decoded, np.clip(whole, -1, 1)[0, :, 0], atol=1e-5)
    resampled = model.encode(soxr.resample(mono, RATE, 2 * RATE), 2 * RATE)
    assert len(resampled[0]) == len(found[0])
    assert np.mean(resampled[0] == found[0]) > 0.5  # as good as the resampling


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(100, np.int16), "int16"),
        (np.zeros((2, 3, 4)), r"\(2, 3, 4\)"),
        (np.full(100, 2.0), "not in"),
        (np.full(100, np.nan), "not finite"),
        (np.zeros(15), "15 samples"),
    ],
)
def test_sound_that_cannot_be_encoded_is_refused(model, audio, message):
    with pytest.raises(ConfigError, match=message):
        model.encode(audio)


@pytest.mark.parametrize(
    ("found", "level", "message"),
    [
        (np.zeros(4), 0, "float64"),
        (np.full(4, 11), 0, "0 to 10"),
        (np.zeros((1, 4), int), 0, r"\(1, 4\)"),
        (np.zeros(4, int), 3, "level is 3"),
    ],
)
def test_codes_that_cannot_be_decoded_are_refused(model, found, level, message):
    with pytest.raises(ConfigError, match=message):
        model.decode(found, level)


def test_codes_of_half_an_encoder_output_are_refused(model):
    loaded = model.loaded.vqvae
    grouped = dataclasses.replace(loaded, config=dataclasses.replace(loaded.config, groups=2))
    with pytest.raises(ConfigError, match="There are 3 codes; this model makes sound of 2"):
        decode(grouped, np.zeros(3, int), 0)


def test_a_song_is_shown_and_saved(song, tmp_path):
    shown = song._repr_html_()
    assert "ella, jazz" in shown
    data = base64.b64decode(shown.split("base64,")[1].split('"')[0])
    sound, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == RATE
    np.testing.assert_array_equal(sound, song.audio)
    saved = song.save(tmp_path / "saved")
    assert saved == tmp_path / "saved" / "index.html" and "ella" in saved.read_text()
    np.testing.assert_array_equal(codes(tmp_path / "saved", 1)[0], song.codes[1])
    with pytest.raises(ConfigError, match="exists already"):
        song.save(tmp_path / "saved")


def test_mistakes_are_sentences(model):
    with pytest.raises(ConfigError, match="did you mean artist"):
        model.sample(artists="ella")
    with pytest.raises(DataError, match="nearest"):
        model.sample(artist="elllla")
    assert "8000 Hz" in repr(model)


def test_a_prior_of_another_vq_vae_is_refused(model, tmp_path):
    """Its codes would mean other sounds; nothing is sampled or written."""
    directory = model.loaded.directory
    foreign = PriorExperiment(model=tiny_model.TOP)
    tiny_model.save(tmp_path / "prior", foreign, {"fingerprint": "0123456789abcdef"})
    priors = directory.priors | {2: tmp_path / "prior"}
    write_model_dir(tmp_path / "model", directory.vqvae, priors, directory.labels(2))
    mixed = jukejax.load(tmp_path / "model")
    with pytest.raises(CheckpointError, match="learned codes of VQ-VAE 0123456789abcdef, but"):
        mixed.sample(folder=tmp_path / "song", **OPTIONS)
    assert not (tmp_path / "song").exists()


def test_keywords_are_the_fields_of_the_options_and_four_more():
    more = {"lyrics", "tracks", "prompt", "prompt_rate"}
    fields = {field.name for field in dataclasses.fields(Options)}
    assert set(Keywords.__annotations__) == fields | more

"""Decoding to 44.1 kHz stereo int16, and what is refused."""

import numpy as np
import pytest
import soundfile
import soxr
from sounds import RATE, sound, write_song

from data_pipeline import audio
from jukejax.errors import DataError


def decoded(path, **options):
    return np.concatenate(list(audio.decode(path, **options)))


def test_16_bit_stereo_comes_back_exactly(tmp_path):
    pcm = write_song(tmp_path / "a.wav", 3.3)
    np.testing.assert_array_equal(decoded(tmp_path / "a.wav"), pcm)


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_resampling_equals_one_shot(tmp_path, rate, channels):
    samples = sound(4.1, rate=rate, channels=channels).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    expected = soxr.resample(samples, rate, RATE).reshape(-1, channels)
    expected = np.broadcast_to(expected, (len(expected), 2))
    got = decoded(tmp_path / "a.wav")
    assert got.dtype == np.int16 and abs(len(got) - 4.1 * RATE) <= 1
    assert got.shape == expected.shape
    assert np.abs(got - expected * 32768).max() <= 0.51


def test_six_channels_at_96_khz_fold_down(tmp_path):
    rate, gains = 96_000, np.array([0.1, 0.2, 0.05, 0.6, 0.08, 0.04])
    samples = np.tile(gains, (2 * rate, 1))
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    got = decoded(tmp_path / "a.wav")[RATE // 2 : RATE]  # away from the edges of the filter
    half = 2**-0.5
    left, right = 0.1 + half * (0.05 + 0.08), 0.2 + half * (0.05 + 0.04)  # no LFE
    np.testing.assert_allclose(got / 32768, np.tile([left, right], (len(got), 1)), atol=1e-4)


@pytest.mark.parametrize(
    ("channel", "left", "right"), [(0, 1, 0), (1, 0.707, 0.707), (2, 0, 1), (3, 0.707, 0)]
)
def test_vorbis_has_its_centre_second(tmp_path, channel, left, right):
    samples = np.zeros((RATE, 6))
    samples[:, channel] = 0.5 * np.sin(np.arange(RATE) / 20)
    with soundfile.SoundFile(tmp_path / "a.ogg", "w", RATE, 6) as file:
        for start in range(0, RATE, 8192):
            file.write(samples[start : start + 8192])
    level = (decoded(tmp_path / "a.ogg") / 32768).std(axis=0) / samples.std(axis=0).max()
    np.testing.assert_allclose(level, [left, right], atol=0.02)


@pytest.mark.parametrize("ogg", [False, True])
@pytest.mark.parametrize("channels", range(1, 13))
def test_any_number_of_channels_reaches_both_sides(channels, ogg):
    weights = audio.downmix_matrix(channels, ogg)
    assert weights.shape == (channels, 2)
    np.testing.assert_allclose(weights[:, 0].sum(), weights[:, 1].sum())


def test_loud_samples_are_clipped(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile([2.0, -1.5], (RATE, 1)), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decoded(tmp_path / "a.wav")[7], [32767, -32768])


def write_ogg(path, **container):
    rate = 48_000 if container else RATE
    with soundfile.SoundFile(path, "w", rate, 2, format="OGG", **container) as file:
        samples = sound(3.0, rate=rate)
        for start in range(0, len(samples), 8192):
            file.write(samples[start : start + 8192])
    return path


def cut(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


@pytest.mark.parametrize("part", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("container", [{}, {"subtype": "OPUS"}])
def test_ogg_that_is_cut_short(tmp_path, part, container):
    path = write_ogg(tmp_path / "a.ogg", **container)
    assert len(decoded(path)) == 3 * RATE
    with pytest.raises(DataError, match=r"a\.ogg"):
        decoded(cut(path, part))


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_other_files_that_are_cut_short(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sound(4.0), RATE)
    assert abs(len(decoded(path)) - 4 * RATE) < 3000
    with pytest.raises(DataError, match="cut short"):
        decoded(cut(path, 0.7))


def test_ogg_damaged_in_the_middle_is_refused_or_whole(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, sound(4.0), RATE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 5000] = bytes(5000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged or cut short"):
        decoded(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(tmp_path, value):
    samples = sound(2.0)
    samples[RATE + 5, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a\.wav holds NaN or infinite"):
        decoded(tmp_path / "a.wav")


@pytest.mark.parametrize("content", [b"", b"these are words", b"RIFF\x00\x00\x00\x00WAVEfmt "])
def test_text_called_wav(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content * 40)
    with pytest.raises(DataError, match=r"a\.wav is not a sound file"):
        decoded(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.flac"])
def test_text_of_another_name_is_said_to_be_no_sound(tmp_path, name):
    (tmp_path / name).write_text("these are words")
    with pytest.raises(DataError, match=rf"{name} is not a sound .* \(Format not recognised\)"):
        decoded(tmp_path / name)


def test_silence_and_short_clips(tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.full((RATE * 2, 2), 9e-5), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match="silent"):
        decoded(tmp_path / "quiet.wav")
    soundfile.write(tmp_path / "short.wav", sound(0.2), RATE)
    with pytest.raises(DataError, match=r"0\.20 s long"):
        decoded(tmp_path / "short.wav")
    assert len(decoded(tmp_path / "short.wav", min_seconds=0.2)) == 0.2 * RATE
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), RATE)
    with pytest.raises(DataError, match=r"0\.00 s long"):
        decoded(tmp_path / "none.wav")


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_channels_of_opposite_phase_are_silence_to_a_model(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    samples = sound(2.0, channels=1).reshape(-1, 1)
    for sides in ([1, -1], [1, -0.97]):
        soundfile.write(path, samples * sides, RATE)
        with pytest.raises(DataError, match=r"opposite phase: their mean.* invert one channel"):
            decoded(path)
    for sides in ([1, 0], [1, -0.5]):  # their mean is a quarter as loud at least
        soundfile.write(path, samples * sides, RATE)
        assert abs(len(decoded(path)) - 2 * RATE) < 3000


@pytest.mark.parametrize("scale", [127.0, 32_767.0])
def test_floats_in_the_range_of_integers_are_refused(tmp_path, scale):
    path = tmp_path / "a.wav"
    samples = sound(2.0)
    samples *= 0.9 / np.abs(samples).max()
    soundfile.write(path, samples * scale, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"beyond full scale at .* as if they were integers"):
        decoded(path)
    with pytest.raises(DataError, match="beyond full scale"):
        audio.decode_part(path, RATE, 2 * RATE)
    soundfile.write(path, samples * 4, RATE, subtype="FLOAT")  # hot, but sound: clipped
    assert np.abs(decoded(path).astype(int)).max() >= 32767


def test_blocks_are_small_however_long_the_song(tmp_path):
    write_song(tmp_path / "a.wav", 20.0)
    assert max(map(len, audio.decode(tmp_path / "a.wav"))) <= audio.BLOCK


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_rate_that_no_music_has_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.full((600, 2), 0.1), 999)
    with pytest.raises(DataError, match="a header of 2 channels at 999 Hz"):
        audio.length(path)
    soundfile.write(path, np.full((600, 2), 0.1), 1000)
    assert audio.length(path, 1000) == 600

"""AAC, ALAC and WMA, read by FFmpeg: whole, exact in parts, and refused where they are damaged."""

import builtins

import mutagen
import numpy as np
import pytest
import soundfile
from ffmpeg_files import BLOCK, KINDS, write
from sounds import RATE, sound, write_song

from data_pipeline import audio
from data_pipeline.scan import scan_folder
from experiments.song_files import read_prompt
from jukejax.errors import DataError
from jukejax.presets import PRESETS


def decoded(path, **options):
    return np.concatenate(list(audio.decode(path, **options)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [RATE, 22_050])
@pytest.mark.parametrize("channels", [1, 2])
def test_all_of_a_file_is_decoded_and_parts_are_equal(tmp_path, kind, rate, channels):
    time = np.arange(5 * rate)[:, None] / rate
    wave = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time + np.arange(channels))
    path = write(tmp_path / f"a.{kind}", wave, rate)
    got = decoded(path)
    assert 0 <= len(got) - 5 * RATE < 0.15 * RATE or (kind == "wma" and len(got) > 4.8 * RATE)
    assert audio.length(path) == len(got)
    for start in (0, RATE, 3 * RATE + 7):
        part = audio.decode_part(path, start, start + 4000)
        assert np.abs(part.astype(int) - got[start : start + 4000]).max() <= (rate != RATE)
    if rate == RATE:  # the same sound, later by the delay of the codec
        twin = 32768 * wave[3 * RATE :, 0][:4000]
        errors = [(got[3 * RATE + d :, 0][:4000] - twin).std() for d in range(-4096, 4096)]
        assert min(errors) < 0.1 * twin.std()


def test_alac_is_exact(tmp_path):
    pcm = write_song(tmp_path / "a.wav", 2.0)
    path = write(tmp_path / "a.m4a", pcm / 32768, codec="alac")
    np.testing.assert_array_equal(decoded(path), pcm)


def test_six_channels_are_mixed_in_wav_order(tmp_path):
    wave = np.zeros((2 * RATE, 6))
    wave[:, 3] = sound(2.0, channels=1)[:, 0]  # the LFE
    wave[:, 0] = 0.5 * sound(2.0, seed=1, channels=1)[:, 0]
    got = decoded(write(tmp_path / "a.m4a", wave)).astype(float)
    assert got[:, 0].std() > 1000 > 20 * got[:, 1].std()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0.3, 0.97])
def test_a_file_that_is_cut_short_is_refused(tmp_path, kind, cut):
    # as downloads are cut: with the table of the samples at the start
    options = {"movflags": "faststart"} if kind == "m4a" else None
    path = write(tmp_path / f"a.{kind}", sound(20.0), options=options)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(DataError, match="cut short"):
        decoded(path)


def test_a_wma_that_ends_between_two_packets_is_refused(tmp_path):
    path = write(tmp_path / "a.wma", sound(20.0))
    data = path.read_bytes()
    packet = int.from_bytes(data[(at := data.find(bytes.fromhex("a1dcab8c"))) + 92 :][:4], "little")
    header = int.from_bytes(data[16:24], "little") + 50
    assert at > 0 and (len(data) - header) % packet == 0
    path.write_bytes(data[: header + packet * ((len(data) - header) // packet // 2)])
    with pytest.raises(DataError, match=r"cut short: .* of .* s are there"):
        decoded(path)


def test_joined_aac_is_read_to_its_end_and_not_at_two_rates(tmp_path):
    first = write(tmp_path / "a.aac", sound(2.0)).read_bytes()
    path = tmp_path / "b.aac"
    path.write_bytes(first + first)
    assert len(decoded(path)) >= 2 * len(decoded(tmp_path / "a.aac")) - BLOCK
    path.write_bytes(
        first + write(tmp_path / "c.aac", sound(2.0, rate=22_050), 22_050).read_bytes()
    )
    with pytest.raises(DataError, match=r"different sample rates|damaged"):
        decoded(path)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_a_sentence(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}", sound(2.0))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(40):
        turned = data.copy()
        for place in rng.integers(0, len(data), 30):
            turned[place] ^= 1 << rng.integers(8)
        path.write_bytes(turned)
        try:
            decoded(path)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_scan_takes_them_with_their_tags(tmp_path):
    for kind in ("m4a", "wma"):
        write(tmp_path / f"{kind}.{kind}", sound(1.0 if kind == "m4a" else 2.0))
    names = {"m4a": ("©ART", "©gen", "©lyr"), "wma": ("Author", "WM/Genre", "WM/Lyrics")}
    for kind, keys in names.items():
        tagged = mutagen.File(tmp_path / f"{kind}.{kind}")
        for key, value in zip(keys, ("Ann", "Folk", "la li"), strict=True):
            tagged[key] = [value]
        tagged.save()
    songs = list(scan_folder(tmp_path))
    assert [(x.id, x.artist, x.genres, x.lyrics) for x in songs] == [
        (kind, "Ann", ("Folk",), "la li") for kind in ("m4a", "wma")
    ]


def test_a_prompt_may_be_m4a(tmp_path):
    path = write(tmp_path / "a.m4a", sound(2.0))
    prompt = read_prompt(path, 1.0, PRESETS["vqvae"]().model)
    np.testing.assert_array_equal(prompt, decoded(path)[:RATE].mean(1, dtype=np.float32) / 32768)


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.m4a", sound(1.0))
    plain = builtins.__import__

    def without(name, *rest, **more):
        if name == "av":
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"pip install 'jukejax\[m4a\]'"):
        decoded(path)


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64"])
def test_kinds_whose_sound_is_not_counted_are_refused_with_the_conversion(tmp_path, kind):
    path = tmp_path / f"a.{kind.lower()}"
    soundfile.write(path, sound(2.0), RATE, format=kind)
    with pytest.raises(DataError, match=r"convert it to wav, .* \(ffmpeg -i a\.\w+ a\.flac\)"):
        decoded(path)

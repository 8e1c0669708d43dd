"""Files that hold more, or less, than their headers declare."""

import io
import os
import struct

import numpy as np
import pytest
import soundfile
from sounds import RATE, sound, write_lines, write_song

from data_pipeline import audio, mpeg, prepare
from data_pipeline.contents import PiecedFile, contents
from data_pipeline.quiet import captured_mpg123
from jukejax.errors import DataError

FRAME = 1152


def decoded(path):
    return np.concatenate(list(audio.decode(path)))


def mp3(samples, rate=RATE, mode="VARIABLE"):
    """The bytes of an MP3; its first frame is a tag with the number of frames."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="MP3", bitrate_mode=mode, compression_level=0.7)
    return file.getvalue()


def frames(data):
    return [place for place, _, _ in mpeg._frames(io.BytesIO(data), 0, len(data))]


def without_count(data):
    return data[frames(data)[1] :]


def with_count(data, count):
    place = data.find(b"Xing") + 8
    return data[:place] + struct.pack(">I", count) + data[place + 4 :]


def loud_and_soft(seconds=3.0):
    """Noise, then a soft tone: bitrates that differ by much."""
    noise = 0.3 * np.random.default_rng(0).standard_normal((int(seconds * RATE), 2))
    return np.concatenate([noise, 0.02 * sound(seconds)])


def id3(size):
    return b"ID3\4\0\0" + bytes([0, 0, size >> 7, size & 127]) + b"\xff" * size


@pytest.mark.parametrize("order", [1, -1])
def test_mp3_without_a_count_of_frames_is_read_to_its_end(tmp_path, order):
    path, twin = tmp_path / "a.mp3", tmp_path / "twin.mp3"
    data = mp3(loud_and_soft()[::order])
    twin.write_bytes(data)
    path.write_bytes(without_count(data))
    with soundfile.SoundFile(path) as file:
        assert abs(file.frames - 6 * RATE) > RATE  # what libsndfile believes
    got, expected = decoded(path), decoded(twin)
    assert len(expected) == 6 * RATE
    assert audio.length(path) == len(got) == (len(frames(data)) - 1) * FRAME - 529
    delay = 576  # of the encoder, which the tag would have told
    assert np.abs(got[delay : delay + RATE].astype(int) - expected[:RATE]).max() < 300
    for start in (0, 3 * RATE, 5 * RATE):
        part = audio.decode_part(path, start, start + RATE // 2)
        assert np.abs(part.astype(int) - got[start : start + RATE // 2]).max() < 300


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_of_constant_bitrate_is_read_as_it_is(tmp_path, rate, channels):
    data = mp3(sound(3.0, rate=rate, channels=channels), rate, "CONSTANT")
    (tmp_path / "a.mp3").write_bytes(without_count(data))
    assert contents(tmp_path / "a.mp3").pieces == ()
    samples, _ = soundfile.read(tmp_path / "a.mp3")
    assert len(samples) == (len(frames(data)) - 1) * (FRAME if rate > 30_000 else FRAME // 2)


@pytest.mark.parametrize("between", [b"", id3(3000), bytes(3000), b"TAG" + bytes(125) + id3(90)])
def test_joined_mp3_files_are_read_to_the_end_with_a_note(tmp_path, caplog, between):
    path = tmp_path / "a.mp3"
    first, second = mp3(sound(2.0)), mp3(loud_and_soft(1.0))
    path.write_bytes(id3(500) + first + between + second + b"TAG" + bytes(125))
    count = len(frames(first)) + len(frames(second)) - 2
    assert len(decoded(path)) == audio.length(path) == count * FRAME - 529
    assert caplog.messages == [
        f"{path} declares {len(frames(first)) - 1} MP3 frames and holds {count}; "
        "all of them are read"
    ]
    loud = decoded(path)[2 * RATE + 3000 : 3 * RATE].std()
    assert loud > 5 * decoded(path)[3 * RATE + 6000 :].std()  # the second file, in its order


def test_joined_mp3_files_of_different_rates_are_refused(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(sound(2.0)) + mp3(sound(2.0, rate=48_000), 48_000))
    with pytest.raises(DataError, match="sounds of different sample rates or channels"):
        decoded(path)


def test_mp3_whose_count_is_wrong(tmp_path):
    path = tmp_path / "a.mp3"
    data = mp3(loud_and_soft(1.0))
    count = len(frames(data)) - 1
    for declared in (1, count // 2, count - 2):
        path.write_bytes(with_count(data, declared))
        assert len(decoded(path)) == count * FRAME - 529
        path.unlink()
    path.write_bytes(with_count(data, count + 2))
    with pytest.raises(DataError, match=f"cut short: {count} of {count + 2} frames"):
        decoded(path)


def wav(pcm, riff=None, data=None, behind=b"", **container):
    """The bytes of a WAV whose lengths of file and sound are replaced."""
    file = io.BytesIO()
    soundfile.write(file, pcm, RATE, format="WAV", **container)
    out = bytearray(file.getvalue())
    if riff is not None:
        out[4:8] = struct.pack("<I", riff)
    if data is not None:
        out[out.find(b"data") + 4 : out.find(b"data") + 8] = struct.pack("<I", data)
    return bytes(out) + behind


LIST = b"LIST" + struct.pack("<I", 12) + b"INFOIART\0\0\0\0"


@pytest.mark.parametrize(
    ("riff", "data", "note"),
    [
        (None, None, False),
        (0, None, False),
        (0xFFFFFFFF, 0xFFFFFFFF, False),
        (0x80000024, 0x80000000, False),
        (0, 0, True),
        (None, 0, True),
        (None, 44_100 * 4, True),
        (44_100 * 4 + 36, 44_100 * 4 + 2, True),
    ],
)
def test_wav_is_read_to_its_end_whatever_it_declares(tmp_path, caplog, riff, data, note):
    path = tmp_path / "a.wav"
    pcm = write_song(path, 3.0)
    path.write_bytes(wav(pcm, riff, data))
    assert audio.length(path) == len(pcm)
    np.testing.assert_array_equal(decoded(path), pcm)
    part = audio.decode_part(path, 2 * RATE, 2 * RATE + 500)
    np.testing.assert_array_equal(part, pcm[2 * RATE :][:500])
    assert ("all of them are read" in caplog.text) == note


@pytest.mark.parametrize(
    "behind", [LIST, LIST[:-3], bytes(100_000), b"TAG" + b"x" * 125, b"ID3\4" + b"x" * 999, b"end"]
)
def test_what_follows_the_sound_of_a_wav_is_no_sound(tmp_path, behind):
    path = tmp_path / "a.wav"
    pcm = write_song(path, 3.0)
    path.write_bytes(wav(pcm, behind=behind))
    np.testing.assert_array_equal(decoded(path), pcm)


def test_bytes_behind_a_wav_are_left_out_with_a_note(tmp_path, caplog):
    path = tmp_path / "a.wav"
    pcm = write_song(path, 3.0)
    path.write_bytes(wav(pcm, behind=bytes(range(1, 251)) * 8))
    np.testing.assert_array_equal(decoded(path), pcm)
    assert caplog.messages == [f"{path} has 2,000 bytes behind its sound, which are left out"]


def test_rf64_with_a_short_length(tmp_path):
    path = tmp_path / "a.wav"
    pcm = write_song(path, 3.0)
    soundfile.write(path, pcm, RATE, format="RF64")
    data = path.read_bytes()
    assert audio.length(path) == len(pcm)
    place = data.find(b"ds64") + 16
    short = struct.pack("<Q", RATE * 4)
    path.write_bytes(data[:place] + short + data[place + 8 :])
    np.testing.assert_array_equal(decoded(path), pcm)


def flac(samples, total=None, rate=RATE):
    """The bytes of a FLAC whose number of samples is replaced."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC")
    out = bytearray(file.getvalue())
    if total is not None:
        out[22:26] = struct.pack(">I", total)
    return bytes(out)


@pytest.mark.parametrize("seconds", [1.0, 1.7, 13.0])
@pytest.mark.parametrize("around", [(b"", b""), (id3(300), b"TAG" + bytes(125))])
@pytest.mark.parametrize("total", [None, 0, RATE // 2])
def test_flac_is_read_to_its_end_whatever_it_declares(tmp_path, caplog, seconds, around, total):
    path = tmp_path / "a.flac"
    pcm = write_song(tmp_path / "b.wav", seconds)
    path.write_bytes(around[0] + flac(pcm, total) + around[1])
    assert audio.length(path) == len(pcm)
    np.testing.assert_array_equal(decoded(path), pcm)
    part = audio.decode_part(path, RATE - 9000, RATE)
    np.testing.assert_array_equal(part, pcm[RATE - 9000 : RATE])
    assert caplog.messages == (
        [f"{path} declares {total:,} FLAC samples and holds {len(pcm):,}; all of them are read"]
        if total
        else []
    )


def test_flac_cut_short_whatever_it_declares(tmp_path):
    for total in (None, 0, RATE * 9):
        path = tmp_path / f"{total}.flac"
        path.write_bytes(flac(sound(3.0), total)[:-5000])
        with pytest.raises(DataError, match="cut short"):
            decoded(path)


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100, 48_000, 96_000, 12_340])
def test_flac_whose_header_declares_another_rate_than_its_frames(tmp_path, rate):
    path = tmp_path / "a.flac"
    data = bytearray(flac(sound(9.0), rate=rate))
    path.write_bytes(data)
    decoded(path)
    data[20] ^= 1 << 5  # of the sample rate
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"another sample rate than {rate} Hz"):
        decoded(path)


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_joined_flac_or_ogg_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sound(1.5), RATE)
    data = path.read_bytes()
    assert len(decoded(path)) == 1.5 * RATE
    path.write_bytes(data + data)
    with pytest.raises(DataError, match=r"holds several .*, one after another"):
        decoded(path)


def test_notes_are_remarks_of_the_report(tmp_path):
    pcm = write_song(tmp_path / "a.wav", 3.0)
    (tmp_path / "a.wav").write_bytes(wav(pcm, 0, 0))
    write_song(tmp_path / "b.wav", 2.0, seed=1)
    lines = [{"id": x, "audio": f"{x}.wav", "artist": x, "genres": ["g"]} for x in "ab"]
    manifest = write_lines(tmp_path / "songs.jsonl", lines)
    report = prepare.build(manifest, tmp_path / "out", show_progress=False)
    assert report.seconds == 5.0
    (remark,) = [line for line in report.remarks if "declares" in line]
    assert remark == "a: declares 0 bytes of sound and holds 529,200; all of them are read"


def test_a_file_of_pieces_reads_as_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    file = PiecedFile(tmp_path / "a", (b"head", range(10, 20), b"", range(50, 53)))
    expected = b"head" + bytes(range(10, 20)) + bytes(range(50, 53))
    assert file.read() == expected
    for place in range(len(expected) + 1):
        assert file.seek(place - len(expected), io.SEEK_END) == place == file.tell()
        assert file.read() == expected[place:]
    file.close()
    assert file._file.closed


def test_damaged_mp3_frames_are_a_warning_and_not_lines_on_the_screen(tmp_path, caplog, capfd):
    path = tmp_path / "a.mp3"
    data = bytearray(mp3(sound(3.0)))
    for place in frames(data)[20:40]:
        data[place + 6 : place + 30] = bytes([255]) * 24  # the side information
    # a comment of 3 bytes, which libmpg123 reports
    path.write_bytes(b"ID3\4\0\0\0\0\1\0COMM\0\0\0\3\0\0\1en".ljust(138, b"\0") + data)
    assert len(decoded(path)) == 3 * RATE
    (message,) = set(caplog.messages)
    assert message.startswith(f"{path} has damaged MP3 frames at 0.0 s or later (")
    out, err = capfd.readouterr()
    assert out == err == ""


def test_what_others_print_in_the_meantime_is_kept(capfd):
    problems = []
    with captured_mpg123(problems):
        os.write(2, b"a real error\n[src/libmpg123/layer3.c:f():1] error: bad frame\n")
    assert capfd.readouterr().err == "a real error\n" and problems == ["bad frame"]


def test_a_file_that_is_cut_short_is_said_once(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(sound(3.0))[:-5000])
    with pytest.raises(DataError) as error:
        decoded(path)
    assert str(error.value).count(str(path)) == 1

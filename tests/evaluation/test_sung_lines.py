"""The bundled lines to sing, sung by a tiny model."""

import itertools

import pytest
import tiny_model

from data_pipeline.render import lines as render_lines
from data_pipeline.sung_lines import FOLDER, bundled_lines
from experiments.evaluate import lines as command
from jukejax.config import Track, TracksConfig
from jukejax.sampling.sample_dir import read_job
from jukejax.tunes import read_midi, sung

LINES = bundled_lines()
SUNG = [sung(line.words, read_midi(line.tune)) for line in LINES]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of the phones and pitches of the lines."""
    kinds = (
        Track(name, tuple(sorted({what for s in SUNG for what, _, _ in s[name]})))
        for name in ("phones", "notes")
    )
    tracks = TracksConfig(tuple(kinds), parts=3, width=8, depth=2)
    return tiny_model.write(tmp_path_factory.mktemp("model"), tracks=tracks)


def sing(model, out, *more):
    command.main(
        ["--model", str(model), "--out", str(out), "--seconds", "0.05", "--count", "2", *more]
    )


def test_every_line_has_a_note_for_each_syllable_and_ends_within_the_sample():
    assert len(LINES) == 20 and len({line.artist for line in LINES}) == 6
    for line, tracks in zip(LINES, SUNG, strict=True):
        tune = read_midi(line.tune)
        assert len(tracks["notes"]) == len(tune) and tune[-1].end < command.Lines.seconds
        for (_, _, end), (_, start, _) in itertools.pairwise(tracks["phones"]):
            assert end <= start + 1e-3


def test_the_bundled_files_are_those_of_the_generator(tmp_path):
    render_lines.write(tmp_path)
    made, kept = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (tmp_path, FOLDER)
    )
    assert made == kept and len(kept) == 21


def test_lines_are_sampled_with_their_words_and_notes_on_a_page(model, tmp_path, capsys):
    sing(model, tmp_path, "--artist", "Ella")
    assert "2 songs; open" in capsys.readouterr().out
    for number in range(2):
        (item,) = read_job(tmp_path / f"line_{number:02d}" / "job.json")[1].items
        assert item.artist == "Ella" and item.lyrics == LINES[number].words
        assert {track.name: track.events for track in item.tracks} == SUNG[number]
    assert (tmp_path / "site" / "index.html").is_file()
    with pytest.raises(SystemExit, match="has samples of another job"):
        sing(model, tmp_path, "--artist", "Ella", "--seed", "1")


def test_what_cannot_be_sung_is_refused(model, tiny_folder, tmp_path):
    for path, more, why in (
        (model, (), "Flite SLT"),
        (model, ("--count", "21"), "there are 20 lines"),
        (tiny_folder, ("--artist", "Ella"), "trained without tracks"),
    ):
        with pytest.raises(SystemExit, match=why):
            sing(path, tmp_path / "out", *more)

"""The explorer's files: what is found, what a site holds, and that only what is new is made."""

import json
import os
import re
import shutil

import numpy as np
import pytest

from experiments.evaluate import explorer as command
from jukejax.config import ConfigError
from jukejax.evaluation.pages import player
from jukejax.evaluation.pages.explorer import make_site
from jukejax.evaluation.pages.sample_page import write_page


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory):
    page, count, problems = make_site([runs], tmp_path_factory.mktemp("out") / "site")
    assert (count, problems) == (6, [])
    return page.parent


def rows_of(site):
    text = (site / "index.js").read_text()
    assert text.isascii()
    return json.loads(text.removeprefix("const INDEX = ").removesuffix(";\n"))


def item_of(site, row):
    text = (site / "items" / row["id"] / "item.js").read_text()
    before = f'Explorer.loaded("{row["id"]}", '
    return json.loads(text.removeprefix(before).removesuffix(");\n"))


def find(site, **wanted):
    return next(r for r in rows_of(site) if all(r[key] == value for key, value in wanted.items()))


def test_rows_say_what_was_found(site):
    rows = rows_of(site)
    assert [row["kind"] for row in rows] == ["sample"] * 4 + ["reconstruction"] * 2
    assert {(row["model"], row["step"]) for row in rows[:4]} == {
        ("runs/demo/model", 220),
        ("other", 440),
    }
    assert {row["place"] for row in rows} == {
        "run first item 0", "run first item 1", "run second item 0", "run second item 1", "",
    }  # fmt: skip
    assert rows[-1]["step"] == 100 and rows[-1]["seconds"] == 4.0
    assert rows[0]["lyrics"].endswith("Clementine")
    assert list(rows[-1]["systems"]) == ["original", "2", "1", "0"]
    assert rows[-1]["systems"]["original"] == "original"
    same = [row for row in rows if row["artist"] == "The Lanterns"]
    assert same[0]["prompt"] == same[1]["prompt"] != rows[-1]["prompt"]
    assert len({row["id"] for row in rows}) == 6


def test_an_item_has_its_sounds_and_its_own_part_of_the_job(site, runs):
    row = find(site, artist="<b>Söns</b> & Co", step=220)
    folder, item = site / "items" / row["id"], item_of(site, row)
    for level in (0, 1, 2):
        wav = folder / f"level_{level}.wav"
        assert wav.read_bytes() == (runs / f"first/level_{level}/item_1.wav").read_bytes()
        assert item["tracks"][str(level)]["wav"] == str(wav.relative_to(site))
        amplitude = 0.1 * (level + 1)  # of a sine
        assert item["tracks"][str(level)]["rms"] == pytest.approx(amplitude / 2**0.5, rel=1e-2)
    assert (folder / "job.json").read_bytes() == (runs / "first/job.json").read_bytes()
    assert "<b>Söns" not in item["html"] and "&lt;b&gt;Söns" in item["html"]
    shown = item["html"].split("<pre")[1]
    assert "The Lanterns" not in shown and "Söns" in shown
    for name in re.findall(r'(?:src|href)="([^"]+)"', item["html"]):
        assert (site / name).exists()


def test_a_second_time_only_what_is_new_is_made(runs, make_samples, tmp_path, monkeypatch):
    site, more = tmp_path / "site", tmp_path / "more"
    make_site([runs], site)
    made = []
    draw = player.draw
    monkeypatch.setattr(player, "draw", lambda folder, *rest: made.append(0) or draw(folder, *rest))
    make_samples(more, [("New", ["jazz"])])
    make_site([runs, more], site)
    assert len(made) == 1
    wav = more / "level_0" / "item_0.wav"
    shutil.copy(more / "level_2" / "item_0.wav", wav.with_suffix(".new"))
    os.replace(wav.with_suffix(".new"), wav)
    make_site([runs, more], site)
    assert len(made) == 2
    row = find(site, artist="New")
    assert (site / "items" / row["id"] / "level_0.wav").read_bytes() == wav.read_bytes()
    make_site([more], site)
    assert len(made) == 2 and [r["artist"] for r in rows_of(site)] == ["New"]
    assert len(list((site / "items").iterdir())) == 1


def test_a_site_inside_the_runs_does_not_show_itself(make_samples, tmp_path):
    make_samples(tmp_path / "a", [("A", [])])
    for _ in range(2):
        assert make_site([tmp_path], tmp_path / "site")[1:] == (1, [])


def test_what_cannot_be_shown_is_named_and_the_rest_shown(make_samples, tmp_path):
    for name in ("good", "damaged", "empty", "unaligned"):
        make_samples(tmp_path / name, [(name, [])], aligned=name == "unaligned")
    (tmp_path / "damaged/level_1/item_0.wav").write_bytes(b"RIFF")
    (tmp_path / "unaligned/level_2/item_0.alignment.npz").write_bytes(b"PK")
    for wav in (tmp_path / "empty").rglob("*.wav"):
        wav.unlink()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/job.json").write_text('{"title": 1, "items": 3, "levels": []}')
    (tmp_path / "odd/sounds.json").write_text("{")
    page, count, problems = make_site([tmp_path, tmp_path / "gone"], tmp_path / "site")
    assert count == 1 and [row["artist"] for row in rows_of(page.parent)] == ["good"]
    parts = (
        "gone is not a folder",
        "odd/job.json",
        "odd/sounds.json",
        "damaged",
        "empty",
        "unaligned",
    )
    assert len(problems) == len(parts)
    for part in parts:
        assert any(part in problem for problem in problems), part


def test_nothing_to_show_and_a_folder_of_something_else(tmp_path, runs):
    with pytest.raises(ConfigError, match="No samples or reconstructions"):
        make_site([tmp_path], tmp_path / "site")
    with pytest.raises(ConfigError, match="choose another --out"):
        make_site([runs], runs / "first")
    assert "index.html" not in os.listdir(runs / "first")


def test_the_command(runs, tmp_path, capsys):
    command.main([str(runs), "--out", str(tmp_path / "site")])
    assert "6 songs; open" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="choose another --out"):
        command.main([str(runs), "--out", str(runs)])


def test_the_page_of_samples_shows_words_and_attention(make_samples, tmp_path):
    folder = make_samples(tmp_path / "a", [("A", [])], aligned=True)
    html = write_page(folder).read_text("utf-8")
    assert re.findall(r'data-start="([\d.]+)"[^>]*>([^<]+)<', html) == [
        ("0.5", "Oh"), ("1.0", "my"), ("1.5", "darling"), ("3.0", "Clementine"),
    ]  # fmt: skip
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", html)
    assert 'src="level_2/item_0.attention.png"' in html and "(layer 3, head 1)" in html
    assert (folder / "level_2/item_0.attention.png").exists()


def test_attention_lies_at_its_time(tmp_path):
    import matplotlib.image

    weights = np.zeros((4, 8), np.float16)
    weights[[0, 1, 2, 3], [0, 2, 4, 7]] = 0.2
    alignment = player.Alignment(weights, np.array([1.0, 2.0, 3.0, 4.0]), [])
    player.draw_attention(alignment, 10.0, tmp_path / "a.png")
    image = matplotlib.image.imread(tmp_path / "a.png")[..., :3].sum(-1)
    bright = image > 2.5
    assert image.shape == (8, player.FRAMES)
    seconds = (np.arange(player.FRAMES) + 0.5) / player.FRAMES * 10
    for row, start in ((0, 1.0), (2, 2.0), (4, 3.0), (7, 4.0)):
        assert np.array_equal(bright[row], (seconds >= start) & (seconds < start + 1))
    assert not bright[[1, 3, 5, 6]].any()


def test_words_are_found_in_the_lyrics():
    lyrics, timed = player.find_words("Oh my, oh MY", [["oh", 0, 1], ["gone", 1, 2], ["my", 3, 4]])
    assert timed == [("oh", 0, 1, 0, 2), ("my", 3, 4, 3, 5)]
    assert [p.text for p in player.cut_lyrics(lyrics, timed)] == ["Oh", " ", "my", ", oh MY"]
    lyrics, timed = player.find_words("", [["a", 0, 1], ["b", 1, 2]])
    assert (lyrics, [t[3:] for t in timed]) == ("a b", [(0, 1), (2, 3)])
    assert player.cut_lyrics(*player.find_words("x", [["", 0, 1]])) == [player.Piece("x")]


def test_the_outline_spans_a_sound():
    sound = np.concatenate([np.zeros(4800), np.full(4800, 0.5), np.full(4800, -0.25)])
    points = [tuple(map(int, p.split())) for p in player.outline(sound, 0.5)[1:-1].split("L")]
    upper, lower = points[: player.WAVE], points[player.WAVE :][::-1]
    assert {y for x, y in upper if x < 159} == {50} and {y for x, y in upper if 161 < x < 318} == {
        2
    }
    assert {y for x, y in lower if x > 322} == {74}
    assert player.outline(np.zeros(0), 0.0) == ""

"""The listening page: its structure, harmless text, levels still to come, and its pictures."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jukejax.evaluation.pages.sample_page import write_page
from jukejax.evaluation.pages.templates import clock, time_ticks

soundfile = pytest.importorskip("soundfile")

NASTY = "<script>alert(1)</script> & \"Söns\" 'x' 🎷 \ud83d"
VOID = {"meta", "link", "img", "input", "path", "rect"}


class Page(HTMLParser):
    """Collects elements as (tag, attributes) and text by tag, and checks that tags close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text.strip() for name, text in self.texts if name == tag and text.strip()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sample directory: two items, the bottom level sampled for the first one only."""
    monkeypatch.setattr("jukejax.evaluation.pages.player.FRAMES", 40)
    job: dict[str, Any] = {
        "title": "Two songs",
        "model": "demo_prior",
        "seed": 7,
        "seconds": 1.5,
        "sample_rate": 44_100,
        "created": "2026-11-23T16:05:00+00:00",
        "items": [
            {"artist": "The Lanterns", "genres": ["pop", "jazz"], "lyrics": "one\ntwo\n"},
            {"artist": NASTY, "genres": ["<b>rock</b>"], "lyrics": f"{NASTY}\n</div></script>"},
        ],
        "levels": [
            {"level": 2, "name": "top", "hop": 128, "tokens": 516, "seconds_to_sample": 83.2},
            {"level": 1, "name": "middle", "hop": 32, "tokens": 2067, "seconds_to_sample": 310.0},
            {"level": 0, "name": "bottom", "hop": 8, "tokens": 8268, "seconds_to_sample": 4123.0},
        ],
    }
    for level, temperature in zip(job["levels"], (0.97, 0.98, 0.99), strict=True):
        level["temperature"] = temperature
    (tmp_path / "job.json").write_text(json.dumps(job))
    rng = np.random.default_rng(0)
    for level, item in [(2, 0), (1, 0), (0, 0), (2, 1), (1, 1)]:
        (tmp_path / f"level_{level}").mkdir(exist_ok=True)
        sound = rng.normal(size=66_150 if level else 33_075) * 0.1
        soundfile.write(tmp_path / f"level_{level}" / f"item_{item}.wav", sound, 44_100)
    return tmp_path


def test_structure(folder: Path) -> None:
    path = write_page(str(folder))
    assert path == folder / "index.html"
    page = Page(path.read_text("utf-8"))
    assert page.text("title") == page.text("h1") == ["Two songs"]
    assert len(page.all("article")) == 2
    assert page.all("article")[0]["data-seconds"] == "1.5"
    figures = [(f["data-level"], f["data-seconds"]) for f in page.all("figure")]
    first, second = figures[:3], figures[3:]
    assert first == [("2", "1.5"), ("1", "1.5"), ("0", "0.75")]
    assert second == [("2", "1.5"), ("1", "1.5"), ("0", "0.0")]
    sounds = [audio["src"] for audio in page.all("audio")]
    assert sounds == [f"level_{level}/item_0.wav" for level in (2, 1, 0)] + [
        f"level_{level}/item_1.wav" for level in (2, 1)
    ]
    pictures = page.all("img")
    assert [picture["src"] for picture in pictures] == [s.replace("wav", "png") for s in sounds]
    assert pictures[2]["style"] == "width: 50.0%"
    assert all((folder / str(name)).exists() for name in sounds)
    assert all((folder / str(picture["src"])).exists() for picture in pictures)
    assert page.text("li") == ["pop", "jazz", "<b>rock</b>"]
    assert "one\ntwo" in page.text("div")
    cells = page.text("td")
    assert cells[:5] == ["top", "128", "516", "0.97", "1m23s"]
    assert "jukejax sample --job job.json --out again" in page.text("pre")
    assert "23 November 2026, 16:05" in page.text("b")


def test_candidates_have_the_numbers_and_commands_that_continue_from_them(folder: Path) -> None:
    assert "compose" not in write_page(folder).read_text("utf-8")  # not a composed song
    node = folder / "my song" / "node_12"
    node.mkdir(parents=True)
    job = json.loads((folder / "job.json").read_text())
    for levels in (job["levels"], job["levels"][:1]):
        (node / "job.json").write_text(json.dumps(job | {"levels": levels}))
        page = Page(write_page(node).read_text("utf-8"))
        facts = [text for tag, text in page.texts if tag in ("b", "span")]
        assert facts.count("node ") == 2 and facts.count("12") == 2
        assert [facts[i + 1] for i, text in enumerate(facts) if text == "item "] == ["0", "1"]
        for item, text in enumerate(page.text("pre")[:2]):
            chosen = f"--song '{folder}/my song' --node 12 --item {item}"
            assert text.startswith(f"jukejax compose extend {chosen} --seconds ")
            assert text.endswith(f"\njukejax compose upsample {chosen}") == (len(levels) == 1)


def test_everything_has_a_name_for_those_who_cannot_see(folder: Path) -> None:
    page = Page(write_page(folder).read_text("utf-8"))
    assert all(picture["alt"] for picture in page.all("img"))
    for tag in ("audio", "input"):
        assert all(element.get("aria-label") for element in page.all(tag))
    assert all(b.get("aria-label") or b["class"] == "pick" for b in page.all("button"))
    assert [html["lang"] for html in page.all("html")] == ["en"]


def test_text_is_harmless(folder: Path) -> None:
    page = Page(write_page(folder).read_text("utf-8"))
    assert len(page.all("script")) == 2  # its own
    assert page.all("b") and all("class" in b or not b for b in page.all("b"))
    shown = page.text("h2")[1]
    assert shown.startswith("<script>alert(1)</script> & \"Söns\" 'x' 🎷")
    assert any(text.endswith("</div></script>") for text in page.text("div"))
    handlers = [name for _, attributes in page.elements for name in attributes if name[:2] == "on"]
    assert handlers == []


def test_page_needs_nothing_but_its_folder(folder: Path) -> None:
    html = write_page(folder).read_text("utf-8")
    assert not re.search(r"https?://|fetch\(|@import|import\(|type=.module|url\(", html)
    for _, attributes in Page(html).elements:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value == "data:," or (folder / value).exists()


def test_a_level_to_come_says_so_and_arrives(folder: Path) -> None:
    page = Page(write_page(folder).read_text("utf-8"))
    assert page.text("div").count("not sampled yet") == 1
    picks = [button for button in page.all("button") if button["class"] == "pick"]
    assert ["disabled" in pick for pick in picks] == [False] * 5 + [True]
    soundfile.write(folder / "level_0" / "item_1.wav", np.zeros(66_150), 44_100)
    page = Page(write_page(folder).read_text("utf-8"))
    assert "not sampled yet" not in page.text("div")
    assert (folder / "level_0" / "item_1.png").exists()


def test_pictures_are_drawn_again_only_for_new_sounds(folder: Path) -> None:
    write_page(folder)
    pictures = sorted(folder.glob("level_*/*.png"))
    for picture in pictures:
        picture.write_bytes(b"kept")
    wav = folder / "level_2" / "item_1.wav"
    newer = pictures[0].stat().st_mtime + 10
    os.utime(wav, (newer, newer))
    write_page(folder)
    kept = {str(p.relative_to(folder)) for p in pictures if p.read_bytes() == b"kept"}
    assert kept == {f"level_{level}/item_0.png" for level in (0, 1, 2)}


def test_nothing_sampled_and_few_details(tmp_path: Path) -> None:
    job = {"title": "t", "items": [{}], "levels": [{"level": 0}, {"level": 1, "name": "top"}]}
    (tmp_path / "job.json").write_text(json.dumps(job))
    page = Page(write_page(tmp_path).read_text("utf-8"))
    assert page.text("div").count("not sampled yet") == 2
    assert page.text("h2")[0] == "Song 1"
    assert [figure["data-level"] for figure in page.all("figure")] == ["1", "0"]
    assert "disabled" in next(b for b in page.all("button") if b["class"] == "play")


def test_an_empty_sound(folder: Path) -> None:
    for wav in folder.glob("level_*/item_1.wav"):
        soundfile.write(wav, np.zeros(0), 44_100)
    page = Page(write_page(folder).read_text("utf-8"))
    assert page.all("article")[1]["data-seconds"] == "0.0"


def test_errors_say_what_to_do(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(FileNotFoundError, match="jukejax sample"):
        write_page(tmp_path_factory.mktemp("empty"))
    (folder / "level_2" / "item_0.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"item_0\.wav cannot be read"):
        write_page(folder)
    (folder / "job.json").write_text('{"title": "x", "items": []}')
    with pytest.raises(ValueError, match="no field 'levels'"):
        write_page(folder)
    (folder / "job.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged: it is not JSON"):
        write_page(folder)


def test_clock_and_ticks() -> None:
    assert [clock(s) for s in (0, 9.9, 205)] == ["0:00", "0:09", "3:25"]
    assert time_ticks(0.0) == []
    assert time_ticks(12.0)[:2] == [(0.0, "0:00"), (2 / 12, "0:02")]
    assert time_ticks(0.3)[-1][1] in ("0.2 s", "0.3 s")
    for seconds in (0.01, 1.0, 61.0, 240.0, 90_000.0):
        assert 1 <= len(time_ticks(seconds)) <= 7

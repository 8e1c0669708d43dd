"""Lyric windows centre on the words that are sung, where a song has the times of its words."""

import json

import numpy as np
import pytest
from batches import prior

from data_pipeline.code_loader import code_windows
from jukejax.text import lyrics
from jukejax.text.word_times import word_times

TEXT = "Oh, my\nBonnie lies"
WORDS = (("oh", 1.0, 2.0), ("My", 2.0, 3.0), ("Bonnie!", 5.0, 8.0), ("lies", 8.0, 9.0))


@pytest.mark.parametrize(
    "seconds, token",
    [
        (0.0, 0),  # before the first word: its first letter
        (1.0, 0),
        (1.5, 1),  # "Oh," is tokens 0 to 3
        (2.5, 5),  # "my" is 4 to 6
        (4.0, 6),  # between two words
        (5.0, 7),
        (6.5, 10),  # "Bonnie" is 7 to 13
        (99.0, 18),
    ],
)
def test_token_sung_at_a_time(seconds, token):
    assert word_times(TEXT, WORDS, "v2").token(seconds) == token


def test_words_that_the_lyrics_lack_are_passed_over():
    words = (*WORDS[:2], ("blue", 3.0, 4.0), *WORDS[2:])
    assert word_times(TEXT, words, "v2").token(6.5) == 10
    assert word_times(TEXT, [("blue", 3.0, 4.0)], "v2") is None
    assert word_times("", WORDS, "v2") is None


def test_windows_of_the_loader_centre_on_the_sung_word(codes_set, tmp_path):
    """All words of song c are sung in its last second: earlier windows see the text's start."""
    folder = codes_set[0]
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    rows = [json.loads(line) for line in (folder / "songs.jsonl").read_text().splitlines()]
    song = next(row for row in rows if row["id"] == "c")
    del song["crc32"]
    song["words"] = [
        [word, 5.0 + i / 60, 5.0 + (i + 1) / 60] for i, word in enumerate(song["lyrics"].split())
    ]
    (tmp_path / "songs.jsonl").unlink()
    (tmp_path / "songs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    n, config = 40, prior(2, 344, lyric_tokens=40)  # 1 s

    def windows(where):
        batches = code_windows(where, config, None, split="train", batch_size=1)
        return {(int(b["song"][0]), int(b["offset"][0])): b["lyrics"][0] for b in batches}

    aligned, linear = windows(tmp_path), windows(folder)
    index, tokens = song["index"], lyrics.encode(song["lyrics"])
    duration = 344 * 128
    for (which, offset), found in aligned.items():
        if which != index:
            np.testing.assert_array_equal(found, linear[which, offset])
            continue
        middle = (offset + duration / 2) / 44_100
        sung = 0.0 if middle < 5 else (middle - 5) * len(tokens)
        start = int(np.clip(round(sung) - n // 2, 0, len(tokens) - n))
        assert (
            min(
                abs(s - start)
                for s in range(len(tokens) - n + 1)
                if np.array_equal(tokens[s : s + n], found)
            )
            <= 4
        )  # spaces between words are sung in no time
    assert any(
        not np.array_equal(found, linear[key]) for key, found in aligned.items() if key[0] == index
    )

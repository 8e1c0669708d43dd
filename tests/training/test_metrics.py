"""Metrics: valid JSON for all values, no step twice after a resume, the time left."""

import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from jukejax.formatting import format_seconds
from jukejax.training.metrics import MetricsWriter, Progress, read_metrics


def lines(workdir: Path) -> list[dict]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (workdir / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_lines_have_step_time_and_values(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "run") as writer:
        writer.scalars(1, {"loss": np.float32(0.5), "accuracy": np.array(1)})
        writer.scalars(2, {"loss": math.nan, "norm": math.inf, "low": -math.inf})
    first, second = lines(tmp_path / "run")
    assert list(first) == ["step", "time", "loss", "accuracy"]
    assert first["step"] == 1 and first["loss"] == 0.5 and first["time"] > 1e9
    assert (second["loss"], second["norm"], second["low"]) == ("nan", "inf", "-inf")
    back = read_metrics(tmp_path / "run" / "metrics.jsonl")[1]
    assert math.isnan(back["loss"]) and back["norm"] == math.inf and back["low"] == -math.inf


def test_a_line_is_flushed_at_once(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.scalars(1, {"loss": 1.0})
    assert len(lines(tmp_path)) == 1
    writer.close()
    writer.close()


@pytest.mark.parametrize("torn", [b"", b'{"step": 5, "ti', b'{"step": 9, "time": 1}', b"\xff\n"])
def test_resume_drops_later_steps_and_a_torn_line(tmp_path: Path, torn: bytes) -> None:
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 5):
            writer.scalars(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    with MetricsWriter(tmp_path, resume_step=2) as writer:
        assert [record["step"] for record in lines(tmp_path)] == [1, 2]
        writer.scalars(3, {"loss": -3.0})
    assert [(r["step"], r["loss"]) for r in lines(tmp_path)] == [(1, 1), (2, 2), (3, -3)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_without_resume_lines_are_added(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "time": 1}'
    )  # complete, without a line end
    with MetricsWriter(tmp_path) as writer:
        writer.scalars(2, {})
    assert [record["step"] for record in lines(tmp_path)] == [1, 2]


def test_damage_inside_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"st\n{"step": 2, "time": 1}\n')
    with pytest.raises(ValueError, match="Line 1 of"):
        MetricsWriter(tmp_path, resume_step=1)


@pytest.mark.parametrize("value", ['"high"', "[1]", "true", "NaN", "null", "1e999"])
def test_a_value_that_is_no_number_is_damage(tmp_path: Path, value: str) -> None:
    text = f'{{"step": 1, "time": 1, "loss": {value}}}\n{{"step": 2, "time": 1, "loss": "nan"}}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match="Line 1 of"):
        MetricsWriter(tmp_path, resume_step=2)


def test_missing_file_reads_as_empty(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_wrong_values_are_errors(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match="'step'"):
            writer.scalars(1, {"step": 1.0})
        with pytest.raises(ValueError, match="reduce"):
            writer.scalars(1, {"loss": np.zeros(2)})
        with pytest.raises(ValueError, match="one channel"):
            writer.audio(1, "sound", np.zeros((2, 10)), 44_100)
        with pytest.raises(ValueError, match="uint8"):
            writer.image(1, "picture", np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    assert lines(tmp_path) == []


def test_tensorboard_holds_every_step_once_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboardX")
    # With this module TensorBoard does not import TensorFlow, which takes seconds.
    notf = "tensorboard.compat.notf"
    monkeypatch.setitem(sys.modules, notf, types.ModuleType(notf))
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    rng = np.random.default_rng(0)
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.scalars(step, {"loss": step})
        writer.audio(1, "sound", rng.normal(size=4410), 44_100)
        writer.image(1, "picture", rng.integers(0, 255, (8, 9, 3), dtype=np.uint8))
    with MetricsWriter(tmp_path, resume_step=3) as writer:
        writer.scalars(4, {"loss": 40.0})
        writer.scalars(5, {"loss": math.nan})
    board = module.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    values = {event.step: event.value for event in board.Scalars("loss")}
    assert len(board.Scalars("loss")) == 5
    assert values[3] == 3 and values[4] == 40 and math.isnan(values[5])
    (sound,), (picture,) = board.Audio("sound"), board.Images("picture")
    assert (sound.sample_rate, sound.length_frames) == (44_100, 4410)
    assert (picture.height, picture.width) == (8, 9)


def test_progress_uses_a_sliding_window() -> None:
    now, said = [0.0], []
    progress = Progress(1000, said.append, window=2, clock=lambda: now[0])
    now[0] = 500.0  # compilation
    progress.start(100)
    now[0] = 560.0  # slow first steps
    progress.update(110, {})
    now[0] = 565.0
    progress.update(120, {})
    now[0] = 570.0
    progress.update(130, {"loss": np.float32(0.123), "bits": 4.0})
    assert said[0] == "step 110/1000  6 s/it  1h29m left"
    assert said[2] == "step 130/1000  2 it/s  7m15s left  loss 0.123  bits 4"
    assert len(said) == 3


def test_progress_with_no_time_passed_and_at_the_end() -> None:
    now, said = [0.0], []
    progress = Progress(10, said.append, clock=lambda: now[0])
    progress.start(0)
    progress.update(0, {"loss": math.nan})
    now[0] = 5.0
    progress.update(10, {})
    assert said == ["step 0/10  loss nan", "step 10/10  2 it/s  0s left"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.4, "0s"), (59.6, "1m00s"), (275, "4m35s"), (7380, "2h03m"), (273600, "3d04h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text

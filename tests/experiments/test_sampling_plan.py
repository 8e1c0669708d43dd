"""What the sampling command says before it samples: windows, memory, time."""

import pytest
from tiny_model import sample

from experiments.sample import Command, run
from jukejax.config import ConfigError

pytestmark = pytest.mark.usefixtures("quick")
DRAWN = {"hop_fraction": (0.5, 0.5, 0.5), "temperature": (3.0, 3.0, 3.0)}
BATCH = {"artist": "ella", "genre": ("jazz",), **DRAWN}
SECONDS = 0.0751  # 600.8 samples: 38 codes of the top level, cut to 601 samples


def test_a_plan_names_windows_memory_and_time_and_makes_nothing(model, tmp_path, capsys):
    out = tmp_path / "out"
    options = {"seconds": SECONDS, "count": 3, "max_batch": 2, **BATCH}
    assert run(Command(out=out, model=model, plan=True, **options)) is None
    text = capsys.readouterr().out
    assert not out.exists()
    assert "3 songs of 0.0751 s" in text
    assert "level 2: 38 tokens a song, 2 + 1 sampled at once" in text
    assert "level 0: 152 tokens a song" in text
    top = text[: text.index("level 1")]
    assert "1 window  given 0 made 16: tokens 0 to 16" in top
    assert "2 windows given 8 made 8 each: tokens 16 to 32" in top
    assert "1 window  given 10 made 6: tokens 32 to 38" in top
    assert "at best" in text and "MiB" in text


def test_a_job_that_cannot_fit_says_so_before_it_starts(model, tmp_path, monkeypatch):
    from jukejax.sampling import planning

    monkeypatch.setattr(planning, "free_memory", lambda: 5_000)
    with pytest.raises(
        ConfigError, match=r"takes about .* MiB, but .* free; give a --max-batch below 8"
    ):
        sample(tmp_path / "a", model=model, count=8, **BATCH)
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(planning, "free_memory", lambda: 10**9)
    sample(tmp_path / "b", model=model, seconds=0.004, **BATCH)

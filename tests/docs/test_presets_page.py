"""The hours on the page of presets are those of the stored plans."""

from __future__ import annotations

import json
import re
from typing import Any

from pages import ROOT

from jukejax import presets

ROW = re.compile(
    r"^\| `(\w+)` \| ([\w:]+) \((\d+)\) \| (.*) \| ([\d.]+) of \d+ \| ([\d.]+) (hours|days) \|$",
    re.M,
)
OPTION = re.compile(r"--([\w.-]+) (\w+)")


def kept_plans() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (ROOT / "experiments/plans").glob("*.json")]


def test_kept_plans_of_training_count_the_evaluation() -> None:
    trained = [plan for plan in kept_plans() if plan["what"] == "train"]
    assert {plan["preset"] for plan in trained} >= {"vqvae", "upsampler_level_0", "prior_5b"}
    for plan in trained:
        assert plan["evaluation"]["peak"] > 0, plan["topology"]
        assert plan["evaluation"]["fits"] or not plan["fits"], plan["topology"]


def test_least_times_are_those_of_the_plans() -> None:
    plans = kept_plans()
    rows = ROW.findall((ROOT / "docs/presets.md").read_text())
    assert len(rows) == 16
    for name, topology, devices, text, peak, time, unit in rows:
        options = dict(OPTION.findall(text))
        config = presets.get(name).train
        batch = int(options.get("train.batch", config.batch))
        (plan,) = [
            plan for plan in plans
            if (plan["preset"], plan["topology"], plan["what"]) == (name, topology, "train")
            and (plan["batch"], plan["slices"]) == (batch, 1)
        ]  # fmt: skip
        assert plan["mesh"]["fsdp"] == int(options.get("mesh.fsdp", 1)), name
        assert plan["remat"] == options.get("model.remat", plan["remat"] and "layer"), name
        assert plan["devices"] == int(devices), name
        assert abs(plan["memory"]["peak"] / 2**30 - float(peak)) <= 0.06, name
        seconds = plan["step_s"] * config.steps * config.batch / batch
        least = float(time) * {"hours": 3600, "days": 86400}[unit]
        assert abs(least - seconds) <= 0.04 * seconds, (name, topology, seconds / 86400)

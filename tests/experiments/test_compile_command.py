"""The command that plans a pod: its table is kept up to date, its plans say what they should."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import compile as compile_command
from experiments.compile import FOLDER
from jukejax import costs, locks
from jukejax.config import ConfigError
from jukejax.planning import aot, plans, table
from jukejax.planning.table import CHEAP, ENTRIES, Entry, load
from jukejax.planning.text import render

ROOT = Path(__file__).parents[2]
DEMO = ("demo_prior", "--model.labels.artists", "8", "--model.labels.genres", "8")


def run(*arguments):
    """Exit code, output and errors of the command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.compile", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


# --- the kept table -------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [e for e in ENTRIES if load(e, FOLDER)], ids=lambda e: e.name)
def test_a_kept_plan_is_of_its_entry(entry):
    plan, experiment = load(entry, FOLDER), entry.experiment()
    assert (plan["preset"], plan["topology"], plan["slices"]) == (
        entry.preset, entry.topology, entry.slices,
    )  # fmt: skip
    assert plan["parameters"] == costs.parameters(experiment)
    assert render(plan)
    if entry.windows is None:
        assert plan["batch"] == experiment.train.batch
        assert plan.get("accumulate", 1) == experiment.train.accumulate
        assert plan["flops_per_step"] == plan["batch"] * costs.train_flops(experiment)
    if plan["fits"]:
        assert plan["memory"]["peak"] < plan["memory"]["chip"]
        longest = max(plan["bounds_s"].values())
        assert plan.get("step_s", plan.get("token_s")) == longest


def test_the_table_is_made_of_the_kept_plans():
    assert (FOLDER / "README.md").read_text() == table.markdown(FOLDER)
    assert {p.stem for p in FOLDER.glob("*.json")} <= {entry.name for entry in ENTRIES}
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("what", ["plans", "shardings"])
def test_two_at_once_are_refused(what, tmp_path, monkeypatch):
    monkeypatch.setattr(compile_command, "FOLDER", tmp_path)
    with locks.writing(tmp_path), pytest.raises(SystemExit, match="is being written by process"):
        compile_command.main([what])
    assert not list(tmp_path.iterdir())


def test_only_changed_programs_are_made_again(tmp_path, monkeypatch):
    plan = load(CHEAP[0], FOLDER)
    monkeypatch.setattr(table, "ENTRIES", CHEAP[:1])
    made, said = [], []

    def make(entry, kept):
        made.append(entry.name)
        return kept if kept and kept["fingerprint"] == "new" else {**plan, "fingerprint": "new"}

    monkeypatch.setattr(Entry, "plan", make)
    for _ in range(2):
        table.regenerate(tmp_path, [], said.append)
    assert made == [CHEAP[0].name] * 2
    assert [line.split(": ")[1] for line in said] == ["compiled", "unchanged"]
    assert load(CHEAP[0], tmp_path)["fingerprint"] == "new"
    with pytest.raises(ConfigError, match="no plan 'x'"):
        table.regenerate(tmp_path, ["x"], said.append)


def test_a_plan_that_does_not_fit_says_what_is_missing_and_what_would_help():
    entry = Entry("prior_5b_lyrics", "v5e:16x16", fsdp=64)
    plan = load(entry, FOLDER)
    text = render(plan)
    assert not plan["fits"]
    assert f"{plan['memory']['short'] / costs.GIB:.2f} GiB are missing" in text
    assert "would help: --train.batch 256" in text


def test_fit_gives_the_plan_of_the_largest_batch(monkeypatch):
    def make(target):
        batch = target.experiment.train.batch
        peak = costs.GIB + batch * costs.GIB // 80
        chip = 15 * costs.GIB
        memory = {"arguments": costs.GIB, "temporaries": peak - costs.GIB, "peak": peak}
        short = {"short": peak - chip} if peak > chip else {}
        return {"fits": not short, "memory": {**memory, "chip": chip, **short}, "batch": batch}

    monkeypatch.setattr(plans, "make", make)
    topology = aot.Topology("v5e:16x16", 1, costs.CHIPS["v5e"], [None] * 256)
    said = []
    experiment = Entry("prior_5b_lyrics", "v5e:16x16", fsdp=64).experiment()
    plan = plans.fit(plans.Target("prior_5b_lyrics", experiment, topology), said.append)
    assert plan["batch"] == 4 * 256  # 1 + 12.8 of 15 GiB; five examples a device want 17
    assert "batch 1280: peak 17.00 GiB, does not fit" in said


# --- real compiles --------------------------------------------------------------------------------

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install 'jukejax[aot]'"
)


@pytest.mark.aot
@needs_libtpu
@pytest.mark.parametrize("entry", CHEAP, ids=lambda e: e.name)
def test_kept_plans_have_not_drifted(entry):
    kept = load(entry, FOLDER)
    here = aot.versions(aot.topology(entry.topology))
    if here.items() - kept["versions"].items():
        pytest.skip(f"kept with {kept['versions']}, here are {here}")
    code, _, errors = run("plans", entry.name)
    assert code == 0, errors
    fresh = load(entry, FOLDER)
    (FOLDER / f"{entry.name}.json").write_text(json.dumps(kept, indent=2) + "\n")
    (FOLDER / "README.md").write_text(table.markdown(FOLDER))
    assert fresh == kept, "run `jukejax compile plans` and commit what changed."


@pytest.mark.aot
@needs_libtpu
def test_plans_of_the_command():
    sizes = ("--mesh.data", "1", "--mesh.fsdp", "4", "--train.batch", "8")
    code, out, errors = run(*DEMO, "--topology", "v5e:2x2", *sizes, "--json")
    assert code == 0, errors
    plan = json.loads(out)
    assert plan["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}
    # parameters, average and two moments in float32 are split over four devices
    assert plan["memory"]["arguments"] >= 16 * plan["parameters"] // 4
    assert plan["collectives"]["all-gather"]["bytes"] > 0
    assert 0 < plan["mfu_ceiling"] < 1
    # apart from recomputation, the program's FLOPs are those of arithmetic, and of padded tiles
    assert plan["compiled_flops"] * 4 <= 1.3 * plan["flops_per_step"]


@pytest.mark.aot
@needs_libtpu
def test_two_slices():
    sizes = ("--mesh.data", "2", "--mesh.fsdp", "4", "--train.batch", "8")
    code, out, errors = run(*DEMO, "--topology", "v5e:2x2", "--slices", "2", *sizes, "--json")
    assert code == 0, errors
    plan = json.loads(out)
    assert (plan["devices"], plan["slices"]) == (8, 2)
    # gradients cross the network once: what a device stores of the parameters, in float32 at most
    crossing = plan["collectives"]["between slices"]["bytes"]
    assert 0.3 * plan["parameters"] < crossing < 2 * plan["parameters"]
    assert plan["bounds_s"]["network"] == pytest.approx(crossing / 3.125e9)


@pytest.mark.aot
@needs_libtpu
def test_a_step_that_does_not_fit():
    wide = ("--model.n-ctx", "8192", "--model.blocks", "128", "--model.attn-order", "0")
    code, out, errors = run(*DEMO, "--topology", "v5e:1x1", *wide, "--train.batch", "64")
    assert code == 1, errors
    assert "DOES NOT FIT" in out
    assert "would help: --train.batch 63" in out


@pytest.mark.aot
@needs_libtpu
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*DEMO, "--topology", "v5e:9x99"), "libtpu refuses it"),
        ((*DEMO, "--topology", "v5e:2x2", "--what", "decode", "--fit"), "leave out --what decode"),
        (("demo_vqvae", "--topology", "v5e:2x2", "--what", "decode"), "is no prior"),
    ],
)
def test_errors_are_sentences(arguments, message):
    code, _, errors = run(*arguments)
    assert code == 1
    assert errors.startswith("error: ")
    assert message in errors

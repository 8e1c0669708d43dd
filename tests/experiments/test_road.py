"""The whole road by its real commands: sound files -> records -> models -> a song -> figures.

Each command is a process of its own, as its users run it; one of each kind is stopped on the way.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.slow

VQVAE = (
    "--model.width 4 --model.depth 1 --model.emb-width 4 --model.codes 32 --samples 2048 "
    "--train.batch 4 --train.steps 8 --optimizer.decay-steps 8 --train.log-every 2 "
    "--train.evaluate-every 4 --train.checkpoint-every 100"
)
PRIOR = (
    "--model.codes 32 --model.n-ctx 64 --model.blocks 8 --model.width 16 --train.batch 4 "
    "--train.steps 6 --optimizer.decay-steps 6 --train.log-every 2 --train.evaluate-every 3"
)
SMALL = {
    "demo_prior": "--model.depth 4 --model.lyrics.tokens 16 --model.lyrics.blocks 4",
    "demo_upsampler_level_1": "--model.depth 3 --model.upper.width 8",
    "demo_upsampler_level_0": "--model.depth 3 --model.upper.width 8",
}


def command(*arguments, check=True):
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def interrupt(seconds, *arguments):
    """Runs a command and presses Ctrl-C when its first line of progress is out, or later."""
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    line = [sys.executable, "-m", *map(str, arguments)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    return first, process.returncode


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A folder with everything up to the trained model."""
    folder = tmp_path_factory.mktemp("road")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(4):
        t = np.arange(44_100 * 3) / 44_100
        tone = 0.3 * np.sin(2 * np.pi * 110 * (i + 1) * t) + 0.05 * rng.normal(size=t.size)
        soundfile.write(folder / f"song{i}.wav", tone, 44_100)
        split = "test" if i == 3 else "train"
        line = {"id": f"s{i}", "audio": f"song{i}.wav", "artist": "Sine 🎸", "genres": ["tone"]}
        lines.append(json.dumps({**line, "lyrics": f"la la {i}", "split": split}))
    (folder / "songs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command(
        "experiments.prepare", "build", "--manifest", folder / "songs.jsonl",
        "--out", folder / "songs",
    )  # fmt: skip
    train = ["experiments.train", "demo_vqvae", "--data", folder / "songs", "--workdir"]
    slow = [*VQVAE.split(), "--train.steps", "100000"]
    first, code = interrupt(1.0, *train, folder / "stopped", *slow)
    assert first.startswith("step 2/") and code == 130
    command(*train, folder / "vqvae", *VQVAE.split())
    command(
        "experiments.encode", "--vqvae", folder / "vqvae", "--data", folder / "songs",
        "--out", folder / "codes",
    )  # fmt: skip
    for preset, extra in SMALL.items():
        command(
            "experiments.train", preset, "--data", folder / "codes", "--workdir", folder / preset,
            *PRIOR.split(), *extra.split(),
        )  # fmt: skip
    priors = dict(zip("210", SMALL, strict=True))
    model = {
        "vqvae": "../vqvae",
        "priors": {level: f"../{preset}" for level, preset in priors.items()},
        "labels": "../codes/labels.json",
    }
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text(json.dumps(model))
    return folder


def sample(road, out, *more):
    words = road / "words.txt"
    words.write_text("la la la")
    return command(
        "experiments.sample", "--model", road / "model", "--out", road / out, "--artist", "sine 🎸",
        "--genre", "tone", "--lyrics", words, "--seconds", "0.4", "--seed", "3", *more,
        check=False,
    )  # fmt: skip


def test_stopped_training_had_saved_and_goes_on(road):
    steps = sorted(int(p.name) for p in (road / "stopped" / "checkpoints").iterdir())
    records = [json.loads(line) for line in (road / "stopped" / "metrics.jsonl").open()]
    done = command(
        "experiments.train", "demo_vqvae", "--data", road / "songs", "--workdir",
        road / "stopped", *VQVAE.split(), "--train.steps", str(steps[-1] + 4),
    )  # fmt: skip
    assert records[-1]["step"] <= steps[-1]
    assert f"step {steps[-1] + 4}/{steps[-1] + 4}" in done.stdout


def test_another_model_in_the_same_workdir_is_refused(road):
    done = command(
        "experiments.train", "demo_vqvae", "--data", road / "songs", "--workdir", road / "vqvae",
        *VQVAE.split(), "--model.width", "8", check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "another model" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_song_at_every_level_and_a_page(road):
    done = sample(road, "song")
    assert done.returncode == 0, done.stderr
    job = json.loads((road / "song" / "job.json").read_text())
    for level in job["levels"]:
        audio, rate = soundfile.read(road / "song" / f"level_{level['level']}" / "item_0.wav")
        assert rate == 44_100 and len(audio) == 0.4 * rate <= level["tokens"] * level["hop"]
        assert np.isfinite(audio).all()
    assert "sine 🎸" in (road / "song" / "index.html").read_text()

    again = command(
        "experiments.sample", "--job", road / "song" / "job.json", "--out", road / "again"
    )
    assert "Listen" in again.stdout
    for level in (0, 1, 2):
        a, b = (np.load(road / d / f"level_{level}" / "codes.npz") for d in ("song", "again"))
        np.testing.assert_array_equal(a["codes"], b["codes"])


def test_unknown_labels_are_named(road):
    done = sample(road, "other", "--artist", "sine")
    assert done.returncode == 1 and "sine 🎸" in done.stderr and "Traceback" not in done.stderr


def test_evaluation_reads_all_of_it_and_computes_once(road):
    line = [
        "experiments.evaluate", "all", "--model", road / "model", "--songs", road / "songs",
        "--codes", road / "codes", "--out", road / "evaluation", "--json",
    ]  # fmt: skip
    found = json.loads(command(*line).stdout.splitlines()[-1])
    assert [row["level"] for row in found["likelihood"]["levels"]] == [2, 1, 0]
    assert all(0 < row["used"] <= 1 for row in found["reconstruction"]["levels"])
    assert "not computed again" in command(*line).stdout

"""All commands in a row: sound files -> records -> models -> a song -> figures.

The commands run in this process, but for one that is stopped by Ctrl-C and one as users start it.
"""

import json
import signal
import subprocess
import sys

import numpy as np
import processes
import pytest
import soundfile

from experiments import cli
from experiments.demo import summary
from jukejax import exit_codes

pytestmark = pytest.mark.slow

VQVAE = (
    "--model.width 4 --model.depth 1 --model.emb-width 4 --model.codes 32 --samples 2048 "
    "--train.batch 8 --train.steps 8 --optimizer.decay-steps 8 --train.log-every 2 "
    "--train.evaluate-every 4 --train.checkpoint-every 100"
)
PRIOR = (
    "--model.codes 32 --model.n-ctx 64 --model.blocks 8 --model.width 16 --train.batch 8 "
    "--train.steps 6 --optimizer.decay-steps 6 --train.log-every 2 --train.evaluate-every 3"
)
SMALL = {
    "demo_prior": "--model.depth 4 --model.lyrics.tokens 16 --model.lyrics.blocks 4",
    "demo_upsampler_level_1": "--model.depth 3 --model.upper.width 8",
    "demo_upsampler_level_0": "--model.depth 3 --model.upper.width 8",
}


def run(*arguments):
    cli.run_command(*map(str, arguments))


def refused(*arguments):
    """The sentence that a command ends with."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    return stop.value.code


def stop_training(arguments):
    """Trains in a process of its own, and presses Ctrl-C at the first line of progress."""
    line = [sys.executable, "-m", "experiments", *map(str, arguments), "--train.steps", "100000"]
    environment = processes.environment(8, PYTHONUNBUFFERED=1)
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert next(process.stdout).startswith("vqvae: a VQ-VAE of ")
        steps = (line for line in process.stdout if line.startswith("step "))
        assert next(steps).startswith("step 2/")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == exit_codes.STOPPED


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A folder with everything up to the trained model; training the VQ-VAE was stopped once."""
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
    (folder / "words.txt").write_text("la la la")
    songs, codes, vqvae = folder / "songs", folder / "codes", folder / "vqvae"
    run("prepare", "build", "--manifest", folder / "songs.jsonl", "--out", songs)
    train = ["train", "demo_vqvae", "--data", songs, "--workdir", vqvae, *VQVAE.split()]
    stop_training(train)
    stopped = saved_steps(vqvae)[-1]
    assert json.loads(last_line(vqvae / "metrics.jsonl"))["step"] <= stopped
    run(*train, "--train.steps", stopped + 4)
    run("encode", "--vqvae", vqvae, "--data", songs, "--out", codes)
    for preset, extra in SMALL.items():
        workdir = folder / preset
        run("train", preset, "--data", codes, "--workdir", workdir, *PRIOR.split(), *extra.split())
    run(
        "model", "make", "--vqvae", vqvae, "--priors", *(folder / preset for preset in SMALL),
        "--labels", codes / "labels.json", "--out", folder / "model",
    )  # fmt: skip
    (folder / "stopped").write_text(str(stopped))
    return folder


def saved_steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


def last_line(path):
    return path.read_text().splitlines()[-1]


def request(road, out, *more):
    return [
        "sample", "--model", road / "model", "--out", road / out, "--artist", "sine 🎸",
        "--genre", "tone", "--lyrics", road / "words.txt", "--seconds", 0.4, "--seed", 3, *more,
    ]  # fmt: skip


def test_training_stopped_by_ctrl_c_continues(road):
    stopped = int((road / "stopped").read_text())
    records = [json.loads(line) for line in (road / "vqvae" / "metrics.jsonl").open()]
    steps = [record["step"] for record in records if "train/gradient_norm" in record]
    assert steps[0] == 2 and steps[-1] == stopped + 4 and steps == sorted(set(steps))
    assert saved_steps(road / "vqvae")[-1] == stopped + 4


def test_another_model_in_the_same_workdir_is_refused(road):
    workdir = ["--data", road / "songs", "--workdir", road / "vqvae"]
    assert "another model" in refused(
        "train", "demo_vqvae", *workdir, *VQVAE.split(), "--model.width", 8
    )


def test_a_song_at_every_level_and_a_page(road, capsys):
    line = [sys.executable, "-m", "experiments", *map(str, request(road, "song"))]
    environment = processes.environment(8)
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    job = json.loads((road / "song" / "job.json").read_text())
    for level in job["levels"]:
        audio, rate = soundfile.read(road / "song" / f"level_{level['level']}" / "item_0.wav")
        assert rate == 44_100 and len(audio) == 0.4 * rate <= level["tokens"] * level["hop"]
        assert np.isfinite(audio).all()
    assert "sine 🎸" in (road / "song" / "index.html").read_text()

    run("sample", "--job", road / "song" / "job.json", "--out", road / "again")
    assert "Listen" in capsys.readouterr().out
    for level in (0, 1, 2):
        a, b = (np.load(road / d / f"level_{level}" / "codes.npz") for d in ("song", "again"))
        np.testing.assert_array_equal(a["codes"], b["codes"])


def test_unknown_labels_are_named(road):
    assert "sine 🎸" in refused(*request(road, "other", "--artist", "sine"))


def test_evaluation_reads_all_of_it_and_computes_once(road, capsys):
    line = [
        "evaluate", "all", "--model", road / "model", "--songs", road / "songs",
        "--codes", road / "codes", "--out", road / "evaluation", "--json",
    ]  # fmt: skip
    run(*line)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["level"] for row in figures["likelihood"]["levels"]] == [2, 1, 0]
    assert all(0 < row["used"] <= 1 for row in figures["reconstruction"]["levels"])
    run(*line)
    assert "not computed again" in capsys.readouterr().out
    table = summary(road / "evaluation").splitlines()  # what the demo prints of it
    assert len(table) == 4 and table[1].startswith("2 (top)") and " dB " in table[1]

"""Are batches the same for any number of hosts, and how fast are they read?

Determinism: digests of the examples of each step, read by 1, 2, 4 and 8 shards, gone on with from a
later step, and in two new processes with another hash seed and locale. Throughput: the loaders
beside the bare cost of their parts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import loader, records, windows
from data_pipeline.code_loader import code_batches
from data_pipeline.codes import codes_info
from jukejax.config import (
    ConfigError,
    LabelsConfig,
    LyricsConfig,
    PriorConfig,
    from_dict,
    to_dict,
)
from jukejax.formatting import table
from jukejax.text.labels import Vocabulary

PLANS = Path(__file__).parents[1] / "plans"
SHARDS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Command:
    """Digests of batches by shard count and process; speed of the audio and the code loader."""

    songs: Path
    """A prepared data set."""
    codes: Path
    """Its codes."""
    samples: int = 396_900
    """Of an audio chunk: 9 seconds at 44.1 kHz."""
    n_ctx: int = 8192
    """Codes of a window of the top level."""
    lyric_tokens: int = 512
    """Of a window."""
    batch: int = 16
    """Examples of a step; a multiple of 8."""
    steps: int = 6
    """Steps that are digested."""
    seconds: float = 5.0
    """For each measurement of speed."""
    plan: str = "prior_5b_lyrics-v5p_4x4x8-remat_dots-batch_256"
    """A compiled plan (experiments/plans): its step is what loading is measured against."""
    host_devices: int = 4
    """Devices that a host of that plan feeds; 4 chips of a v5p."""
    json: bool = False
    """Print the result as one JSON object too."""


def make(options: dict[str, Any], start_step: int = 0, rows: Any = None) -> Iterator[Any]:
    """The audio or code loader that `options` describe, a JSON value."""
    given = dict(options)
    kind, folder = given.pop("kind"), given.pop("folder")
    if kind == "audio":
        return loader.audio_batches(folder, start_step=start_step, rows=rows, **given)
    config = from_dict(PriorConfig, given.pop("config"))
    names = Vocabulary.load(Path(folder) / "labels.json")
    return code_batches(folder, config, names, start_step=start_step, rows=rows, **given)


def example_digests(batches: Iterator[Any], steps: int) -> list[list[str]]:
    """A digest of every example of the next steps."""
    out = []
    for batch in itertools.islice(batches, steps):
        names = sorted(batch)
        rows = range(len(batch[names[0]]))
        parts = ([batch[name][row].tobytes() for name in names] for row in rows)
        out.append([hashlib.sha256(b"".join(part)).hexdigest() for part in parts])
    return out


def whole_digest(steps: list[list[str]]) -> str:
    """One digest of the multisets of examples of all steps."""
    return hashlib.sha256(json.dumps([sorted(step) for step in steps]).encode()).hexdigest()[:16]


def by_shards(options: dict[str, Any], steps: int, count: int) -> str:
    """`whole_digest` of the steps as `count` hosts read them."""
    parts = np.split(np.arange(options["batch_size"]), count)
    found = [example_digests(make(options, rows=part.tolist()), steps) for part in parts]
    return whole_digest([[*itertools.chain(*step)] for step in zip(*found, strict=True)])


def resumed(options: dict[str, Any], steps: int) -> bool:
    """Whether going on from each later step gives the same batches, example by example."""
    whole = example_digests(make(options), steps)
    return all(example_digests(make(options, k), 1) == whole[k : k + 1] for k in range(1, steps))


def in_process(options: dict[str, Any], steps: int, **environment: str) -> str:
    """`whole_digest` as a new process finds it."""
    program = (
        "import json, sys; from experiments.benchmark import loader as l; a = json.loads("
        "sys.argv[1]); print(l.whole_digest(l.example_digests(l.make(a[0]), a[1])), flush=True); "
        "import os; os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps([options, steps])],
        env=os.environ | environment, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(f"A process that was to read batches failed: {done.stderr[-500:]}")
    return done.stdout.split()[-1]


def determinism(options: dict[str, Any], steps: int) -> dict[str, Any]:
    """Digests by shard count and process; whether all agree and resuming is exact."""
    found = {f"{n} shards": by_shards(options, steps, n) for n in SHARDS}
    found["process A"] = in_process(options, steps, PYTHONHASHSEED="1", LC_ALL="C", TZ="UTC")
    found["process B"] = in_process(
        options, steps, PYTHONHASHSEED="2", LC_ALL="C.UTF-8", TZ="Asia/Tokyo"
    )
    same = len(set(found.values())) == 1
    return {"digests": found, "same": same, "resumes": resumed(options, steps)}


def rate(once: Callable[[], Any], amount: float, seconds: float) -> float:
    """`amount` a second, for as many calls as fit into `seconds` after a first one."""
    once()
    began, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds or not calls:
        once()
        calls += 1
    return calls * amount / spent


def audio_speed(options: dict[str, Any], sample_rate: int, seconds: float) -> dict[str, float]:
    """Seconds of sound a second: the loader, and its parts one after the other."""
    samples, batch = options["samples"], options["batch_size"]
    music = batch * samples / sample_rate
    reader = loader.AudioReader(options["folder"], "train", samples)
    plan = windows.Windows(reader.lengths, samples)
    rng = np.random.default_rng(0)
    items = rng.integers(0, plan.total, (64, batch))
    places = itertools.cycle([plan.locate(i, rng.uniform(-0.5, 0.5, batch)) for i in items])
    tf = records.tensorflow()
    song, start = next(places)
    pcm = reader.read(song, start)
    left = tf.constant(rng.uniform(size=(batch, 1)), tf.float32)
    tensor = tf.constant(pcm)
    per = records.SEGMENT

    def gather() -> Any:
        song, start = next(places)
        stop = np.minimum(start + samples, reader.lengths[song])
        return windows.gather(reader.source, reader.firsts[song], start, stop, per)

    batches = make(options)
    return {
        "loader": rate(lambda: next(batches), music, seconds),
        "records": rate(gather, music, seconds),
        "records and crop": rate(lambda: reader.read(*next(places)), music, seconds),
        "downmix to float": rate(lambda: loader.mix(tf, tensor, left), music, seconds),
        "memory copy": rate(pcm.copy, music, seconds),
    }


def code_speed(options: dict[str, Any], command: Command) -> dict[str, Any]:
    """Tokens a second, and the share of a training step that they take of a host's time."""
    tokens = options["batch_size"] * command.n_ctx
    batches = make(options)
    speed = rate(lambda: next(batches), tokens, command.seconds)
    path = PLANS / f"{command.plan}.json"
    if not path.is_file():
        raise ConfigError(f"There is no plan {path}; name one of experiments/plans.")
    plan = json.loads(path.read_text())
    share = plan["tokens_per_step"] * command.host_devices / plan["devices"] / speed
    return {
        "tokens_per_s": speed,
        "plan": command.plan,
        "step_s": plan["step_s"],
        "hosts": plan["devices"] // command.host_devices,
        "host_tokens_per_step": plan["tokens_per_step"] * command.host_devices // plan["devices"],
        "share_of_step": share / plan["step_s"],
    }


def run(command: Command) -> dict[str, Any]:
    """All of it."""
    if command.batch % max(SHARDS):
        raise ConfigError(f"batch is {command.batch}; give a multiple of {max(SHARDS)}.")
    shared = {"split": "train", "batch_size": command.batch, "seed": 0}
    audio = {"kind": "audio", "folder": str(command.songs.resolve()), **shared}
    audio["samples"] = command.samples
    top = len(codes_info(command.codes).hops) - 1
    codes = {"kind": "codes", "folder": str(command.codes.resolve()), **shared}
    config = PriorConfig(
        level=top, n_ctx=command.n_ctx, labels=LabelsConfig(),
        lyrics=LyricsConfig(tokens=command.lyric_tokens),
    )  # fmt: skip
    codes |= {"config": to_dict(config), "label_dropout": 0.1}
    sample_rate = records.split_songs(command.songs, "train")[0].sample_rate
    return {
        "cores": len(os.sched_getaffinity(0)),
        "steps": command.steps,
        "batch": command.batch,
        "audio": determinism(audio, command.steps),
        "codes": determinism(codes, command.steps),
        "audio_speed": audio_speed(audio, sample_rate, command.seconds),
        "code_speed": code_speed(codes, command),
    }


def _said(found: dict[str, Any], name: str) -> str:
    return found["digests"][name] if name in found["digests"] else ("no", "yes")[found[name]]


def lines(found: dict[str, Any]) -> list[str]:
    audio, codes = found["audio"], found["codes"]
    names = (*audio["digests"], "resumes", "same")
    rows = [(name, *(_said(x, name) for x in (audio, codes))) for name in names]
    speed = found["code_speed"]
    return [
        f"Examples of {found['steps']} steps of {found['batch']}, in any order within a step:",
        table(("read by", "audio", "codes"), rows),
        "",
        f"Audio on {found['cores']} cores; seconds of sound a second:",
        table(("part", "x real time"), [(k, f"{v:,.0f}") for k, v in found["audio_speed"].items()]),
        "",
        f"Codes: {speed['tokens_per_s']:,.0f} tokens/s. One of {speed['hosts']} hosts reads "
        f"{speed['host_tokens_per_step']:,} tokens a step of at least {speed['step_s']:.2f} s "
        f"({speed['plan']}): {100 * speed['share_of_step']:.2f}% of it.",
    ]

"""How fast batches are read: the audio loader and its parts, and the code loader.

jukejax benchmark loader --songs runs/demo/songs --codes runs/demo/codes
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
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
    PriorExperiment,
    TrainConfig,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.formatting import table
from jukejax.text.labels import Vocabulary

PLANS = Path(__file__).parents[1] / "plans"


@dataclass(frozen=True)
class Command:
    """Speed of the audio and the code loader."""

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
    """Examples of a step."""
    seconds: float = 5.0
    """For each measurement."""
    plan: str = "prior_5b_lyrics-v5p_4x4x8-remat_dots-batch_256"
    """A compiled plan (experiments/plans), whose step loading is compared with."""
    host_devices: int = 4
    """Devices that a host of that plan feeds; 4 chips of a v5p."""


def rate(once: Callable[[], Any], amount: float, seconds: float) -> float:
    """`amount` a second, over the calls that fit into `seconds` after a first one."""
    once()
    began, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds or not calls:
        once()
        calls += 1
    return calls * amount / spent


def audio_speed(command: Command) -> dict[str, float]:
    """Seconds of sound a second: the loader, and its parts one after the other."""
    samples, batch = command.samples, command.batch
    reader = loader.AudioReader(str(command.songs), "train", samples)
    music = batch * samples / records.split_songs(command.songs, "train")[0].sample_rate
    plan = windows.Windows(reader.lengths, samples)
    rng = np.random.default_rng(0)
    items = rng.integers(0, plan.total, (64, batch))
    places = itertools.cycle([plan.locate(i, rng.uniform(size=batch)) for i in items])
    tf = records.tensorflow()
    pcm = reader.read(*next(places))
    left = tf.constant(rng.uniform(size=(batch, 1)), tf.float32)
    tensor = tf.constant(pcm)

    def gather() -> Any:
        song, start = next(places)
        stop = np.minimum(start + samples, reader.lengths[song])
        return windows.gather(reader.source, reader.firsts[song], start, stop, records.SEGMENT)

    experiment = VQVAEExperiment(
        VQVAEConfig(downs=(0,), multipliers=(1,)), samples, train=TrainConfig(batch=batch)
    )
    batches = loader.audio_batches(command.songs, experiment, split="train")
    parts: dict[str, Callable[[], Any]] = {
        "loader": lambda: next(batches),
        "records": gather,
        "records and crop": lambda: reader.read(*next(places)),
        "downmix to float": lambda: loader.mix(tf, tensor, left),
        "memory copy": pcm.copy,
    }
    return {name: rate(part, music, command.seconds) for name, part in parts.items()}


def code_speed(command: Command) -> dict[str, Any]:
    """Tokens a second, and the share of a training step that they take of a host's time."""
    path = PLANS / f"{command.plan}.json"
    if not path.is_file():
        raise ConfigError(f"There is no plan {path}; name one of experiments/plans.")
    plan = json.loads(path.read_text())
    config = PriorConfig(
        level=len(codes_info(command.codes).hops) - 1, n_ctx=command.n_ctx, labels=LabelsConfig(),
        lyrics=LyricsConfig(tokens=command.lyric_tokens),
    )  # fmt: skip
    experiment = PriorExperiment(config, label_dropout=0.1, train=TrainConfig(batch=command.batch))
    names = Vocabulary.load(command.codes / "labels.json")
    batches = code_batches(command.codes, experiment, names, split="train")
    speed = rate(lambda: next(batches), command.batch * command.n_ctx, command.seconds)
    tokens = plan["tokens_per_step"] * command.host_devices // plan["devices"]
    return {
        "tokens_per_s": speed,
        "plan": command.plan,
        "step_s": plan["step_s"],
        "hosts": plan["devices"] // command.host_devices,
        "host_tokens_per_step": tokens,
        "share_of_step": tokens / speed / plan["step_s"],
    }


def run(command: Command) -> dict[str, Any]:
    """The speed of both loaders."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "audio_speed": audio_speed(command),
        "code_speed": code_speed(command),
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures to print."""
    audio, codes = figures["audio_speed"], figures["code_speed"]
    return [
        f"Audio on {figures['cores']} cores; seconds of sound a second:",
        table(("part", "x real time"), [(name, f"{x:,.0f}") for name, x in audio.items()]),
        "",
        f"Codes: {codes['tokens_per_s']:,.0f} tokens/s. One of {codes['hosts']} hosts reads "
        f"{codes['host_tokens_per_step']:,} tokens a step of at least {codes['step_s']:.2f} s "
        f"({codes['plan']}): {codes['share_of_step']:.2%} of it.",
    ]

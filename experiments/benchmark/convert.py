"""Files of a published size through `jukejax convert`, each way, every byte compared.

jukejax benchmark convert --preset prior_5b_lyrics --folder /tmp/convert

It needs four times the file's size on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.benchmark.timing import measured, spent
from jukejax import presets
from jukejax.config import ConfigError, PriorExperiment
from jukejax.interop import openai, openai_settings, torch_files
from jukejax.interop.tensors import Source

CONVERT = "experiments.convert"


@dataclass(frozen=True)
class Command:
    """Import and export files of a published size: time, memory, and whether all bytes return."""

    folder: Path
    """Gets the files; must not exist yet. Nothing is deleted."""
    preset: str = "prior_5b_lyrics"
    """A prior; layers' matrices are written as float16, as they were trained."""
    vqvae_preset: str = "vqvae"
    """The VQ-VAE beside it."""


def write_random(preset: str, path: Path) -> None:
    """A file in OpenAI's layout with the preset's settings and random numbers."""
    experiment = openai.published(presets.get(preset), preset)
    config = experiment.model
    block = np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)

    def source(name: str, shape: tuple[int, ...], seed: int) -> Source:
        dtype = "<f2" if name.endswith(".w") else "<f4"
        return Source(shape, dtype, lambda: np.resize(np.roll(block, seed * 7919), shape))

    sources = {
        name: source(name, shape, i)
        for i, (name, shape) in enumerate(openai.preset_tensors(preset).items())
        if name not in openai.shared(config)
    }
    hps = openai_settings.settings(experiment)
    torch_files.write(path, sources, openai.shared(config), hps, step=1)


def differing(before: Path, after: Path) -> tuple[int, int]:
    """Tensors of two checkpoints: how many, and how many differ in any bit."""
    a, b = (torch_files.read(path).tensors for path in (before, after))
    wrong = sum(
        name not in b or a[name].read().tobytes() != b[name].read().tobytes()
        for name in tqdm(a, desc=f"compare {before.name}", unit="tensor")
    )
    return len(a), wrong + len(b.keys() - a.keys())


def run(command: Command) -> dict[str, Any]:
    """Writes, imports, exports, compares."""
    if command.folder.exists():
        raise ConfigError(f"{command.folder} exists; choose another --folder.")
    prior = presets.get(command.preset)
    if not isinstance(prior, PriorExperiment):
        raise ConfigError(f"--preset {command.preset} is no prior.")
    level = prior.model.level
    files, model, back = (command.folder / name for name in ("files", "model", "back"))
    names = ("vqvae.pth.tar", f"prior_level_{level}.pth.tar")
    for preset, name in zip((command.vqvae_preset, command.preset), names, strict=True):
        write_random(preset, files / name)
    vqvae, weights = (str(files / name) for name in names)
    form = ["--format", "openai"]
    into = measured(
        CONVERT, ["import", *form, "--vqvae", vqvae, "--prior", weights, "--out", str(model)]
    )
    out = measured(CONVERT, ["export", *form, "--model", str(model), "--out", str(back)])
    tensors, wrong = (
        sum(counts) for counts in zip(*(differing(files / n, back / n) for n in names), strict=True)
    )
    return {
        "preset": command.preset,
        "file_gib": (files / names[1]).stat().st_size / 2**30,
        "import": into,
        "export": out,
        "tensors": tensors,
        "tensors_that_differ": wrong,
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures to print."""
    return [
        f"{figures['preset']}: a file of {figures['file_gib']:.2f} GiB",
        *(spent(way, figures[way]) for way in ("import", "export")),
        f"  {figures['tensors']} tensors, of which {figures['tensors_that_differ']} differ",
    ]

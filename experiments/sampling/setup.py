"""A job against its model: what each level needs, checked before anything is made."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from data_pipeline.labels import Vocabulary
from experiments.sampling.labels import check_labels, describer
from jukejax.config import ConfigError, PriorConfig, VQVAEConfig
from jukejax.model_dir import LoadedVQVAE, ModelDir, weights_name
from jukejax.parallel.mesh import Mesh
from jukejax.sampling.cascade import Describe
from jukejax.sampling.draw import Control
from jukejax.sampling.job import Item, Job
from jukejax.sampling.memory import Memory, level_memory
from jukejax.sampling.plan import Window, plan_windows


@dataclass(frozen=True)
class LevelSetup:
    """One level of a job."""

    config: PriorConfig
    windows: tuple[Window, ...]
    describes: tuple[Describe, ...]  # a batch each
    controls: tuple[Control, ...]  # a batch each
    weights: str  # what tells them from others'
    held: str = "float32"  # what their matrices are held in

    @property
    def level(self) -> int:
        return self.config.level

    @property
    def ratio(self) -> int:
        """Codes of this level per code above."""
        return self.config.upper.ratio if self.config.upper else 1

    def memory(self, batch: int, mesh: Mesh) -> Memory:
        return level_memory(self.config, mesh, batch, self.held)


def level_name(level: int, levels: int) -> str:
    """The paper's name of a level."""
    return "bottom" if level == 0 else "top" if level == levels - 1 else "middle"


def describe_level(job: Job, config: VQVAEConfig, setup: LevelSetup, samples: int) -> dict:
    """What job.json says of a level."""
    level = setup.level
    return {
        "level": level,
        "name": level_name(level, config.levels),
        "hop": config.hops[level],
        "tokens": samples // config.hops[level],
        "temperature": job.temperature[level],
        "hop_fraction": job.hop_fraction[level],
        "seconds_to_sample": None,
        "weights": setup.weights,
    }


def check_levels(job: Job, count: int) -> list[int]:
    """The levels to make, top first.

    Raises:
      ConfigError: one is not there, one has no codes above it to be made from, or an option that
        is given a level each has another number of values.
    """
    for drawn in (job, *job.items):
        for name in ("temperature", "top_k", "top_p", "hop_fraction", "given"):
            values = getattr(drawn, name, ())
            optional = drawn is not job or name in ("top_k", "top_p", "given")
            if len(values) != count and (values or not optional):
                raise ConfigError(
                    f"{name} has {len(values)} values, but the model has {count} levels; "
                    "give one a level, bottom first."
                )
    for level in job.levels:
        if not 0 <= level < count:
            raise ConfigError(f"levels holds {level}, but the model's are 0 to {count - 1}.")
    return sorted(set(job.levels or range(count)), reverse=True)


def control(job: Job, items: tuple[Item, ...], level: int) -> Control:
    """How a batch of items is drawn: an item's own, or else the job's."""

    def column(name: str, none: Any, dtype: Any) -> Any:
        own = [getattr(item, name) or getattr(job, name) for item in items]
        if not any(own):
            return None
        return jnp.asarray([[values[level] if values else none] for values in own], dtype)

    return Control(
        column("temperature", 1.0, jnp.float32),
        column("top_k", 0, jnp.int32),
        column("top_p", 1.0, jnp.float32),
    )


def _some(describe: Describe, some: slice, offset: int) -> dict[str, np.ndarray]:
    """The label arrays of some of the items."""
    return {name: x[some] for name, x in describe(offset).items()}


def set_up(job: Job, folder: ModelDir, model: LoadedVQVAE) -> list[LevelSetup]:
    """The levels to make, top first; all that can be wrong is found here.

    Raises:
      ConfigError, CheckpointError, DataError: what is asked for cannot be made by this model.
    """
    vqvae = model.config
    samples = job.samples(vqvae.sample_rate, vqvae.hops[-1])
    out = []
    for level in check_levels(job, vqvae.levels):
        config, note = folder.prior_config(level)
        labelled = config.labels is not None
        vocabulary = Vocabulary.load(folder.labels(level)) if labelled else Vocabulary.build([], [])
        check_labels(config, note, vocabulary, folder)
        describe = describer(config, vocabulary, job, samples)
        out.append(
            LevelSetup(
                config,
                plan_windows(
                    samples // config.hop,
                    config.n_ctx,
                    job.hop_fraction[level],
                    config.upper.ratio if config.upper else 1,
                    job.given[level] if job.given else 0,
                ),
                tuple(functools.partial(_some, describe, some) for some in job.batches()),
                tuple(control(job, job.items[some], level) for some in job.batches()),
                weights_name(model, note),
                job.weights,
            )
        )
    return out

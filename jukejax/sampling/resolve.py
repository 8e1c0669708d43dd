"""A job against its model: what each level needs, checked before anything is made."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jukejax.config import ConfigError, PriorConfig, VQVAEConfig
from jukejax.model_dir import LoadedVQVAE, ModelDir, weights_name
from jukejax.parallel.mesh import Mesh
from jukejax.sampling.cascade import Describe
from jukejax.sampling.draw import Control
from jukejax.sampling.job import Item, Job
from jukejax.sampling.labels import check_labels, describer
from jukejax.sampling.loop import on_device
from jukejax.sampling.memory import Memory, level_memory
from jukejax.sampling.plan import Plan, plan_rounds
from jukejax.text.labels import Vocabulary


@dataclass(frozen=True)
class LevelSetup:
    """One level of a job."""

    config: PriorConfig
    plan: Plan
    batches: tuple[slice, ...]  # of items
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

    def largest(self, songs: int) -> int:
        """Of so many songs, those of the largest batch."""
        return min(max(some.stop - some.start for some in self.batches), songs)

    def rows(self, songs: int) -> int:
        """Windows that are filled at once: songs of the largest batch, times chains."""
        return self.largest(songs) * self.plan.chains

    def memory(self, songs: int, mesh: Mesh) -> Memory:
        return level_memory(self.config, mesh, self.largest(songs), self.held, self.plan.chains)


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


def plan_level(job: Job, config: PriorConfig, samples: int) -> Plan:
    """The windows of a level of a job; levels with codes above are cut into chains, if asked."""
    return plan_rounds(
        samples // config.hop,
        config.n_ctx,
        job.hop_fraction[config.level],
        config.upper.ratio if config.upper else 1,
        job.given[config.level] if job.given else 0,
        job.parallel_segments if config.upper else 1,
    )


def unlabelled(job: Job, vqvae: VQVAEConfig, priors: dict[int, PriorConfig]) -> list[LevelSetup]:
    """The levels to make, top first, with what shapes alone tell: enough for a plan."""
    samples, out = job.samples(vqvae.sample_rate, vqvae.hops[-1]), []
    for level in check_levels(job, vqvae.levels):
        config = on_device(priors[level])
        plan = plan_level(job, config, samples)
        batches = tuple(job.batches(plan.chains))
        out.append(LevelSetup(config, plan, batches, (), (), "", job.weights))
    return out


def set_up(job: Job, folder: ModelDir, model: LoadedVQVAE) -> list[LevelSetup]:
    """The levels to make, top first; all that can be wrong is found here.

    Raises:
      ConfigError, CheckpointError, DataError: what is asked for cannot be made by this model.
    """
    vqvae = model.config
    samples = job.samples(vqvae.sample_rate, vqvae.hops[-1])
    found = {level: folder.prior_config(level) for level in check_levels(job, vqvae.levels)}
    out = []
    for setup in unlabelled(job, vqvae, {level: config for level, (config, _) in found.items()}):
        config, (_, note) = setup.config, found[setup.level]
        labelled = config.labels is not None
        names = folder.labels(config.level) if labelled else None
        vocabulary = Vocabulary.load(names) if names else Vocabulary.build([], [])
        check_labels(config, note, vocabulary, folder)
        describe = describer(config, vocabulary, job, samples)
        out.append(
            dataclasses.replace(
                setup,
                describes=tuple(functools.partial(_some, describe, x) for x in setup.batches),
                controls=tuple(control(job, job.items[x], config.level) for x in setup.batches),
                weights=weights_name(model, note),
            )
        )
    return out

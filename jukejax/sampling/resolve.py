"""A request against its model: what each level needs, checked before anything is sampled."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jukejax.config import ConfigError, PriorConfig, VQVAEConfig
from jukejax.model_dir import LoadedModel, weights_name
from jukejax.parallel.mesh import Mesh
from jukejax.sampling.conditions import Conditions, check_labels, job_conditions
from jukejax.sampling.draw import Control
from jukejax.sampling.job import Item, Job
from jukejax.sampling.loop import on_device
from jukejax.sampling.memory import Memory, level_memory
from jukejax.sampling.plan import Plan, plan_rounds
from jukejax.sampling.request import Request
from jukejax.text.labels import Vocabulary


@dataclass(frozen=True)
class Level:
    """All that sampling a level needs; nothing behind it reads a model directory or a name.

    Attributes:
      plan: its windows.
      batches: the songs that are sampled together.
      conditions: of all songs; None where only the models' shapes are known.
      controls: how codes are drawn, per batch.
      weights: what identifies the weights that sample it.
      storage: of their matrices, one of `job.WEIGHTS`.
      guided: whether a song takes a second row, without its tracks.
    """

    config: PriorConfig
    plan: Plan
    batches: tuple[slice, ...]
    conditions: Conditions | None = None
    controls: tuple[Control, ...] = ()
    weights: str = ""
    storage: str = "float32"
    guided: bool = False

    @property
    def level(self) -> int:
        return self.config.level

    @property
    def ratio(self) -> int:
        """Codes of this level per code above."""
        return self.config.upper.ratio if self.config.upper else 1

    @property
    def largest(self) -> int:
        """Songs of the largest batch."""
        return max(batch.stop - batch.start for batch in self.batches)

    def memory(self, mesh: Mesh) -> Memory:
        rows = self.largest * (1 + self.guided)
        return level_memory(self.config, mesh, rows, self.storage, self.plan.chains)


def level_name(level: int, levels: int) -> str:
    """The paper's name of a level."""
    return "bottom" if level == 0 else "top" if level == levels - 1 else "middle"


def check_levels(job: Job, count: int) -> list[int]:
    """The levels to sample, top first.

    Raises:
      ConfigError: the model has no such level, or an option with a value per level has another
        number of values.
    """
    for drawn in (job, *job.items):
        for name in ("temperature", "top_k", "top_p", "hop_fraction", "given"):
            values = getattr(drawn, name, ())
            optional = drawn is not job or name in ("top_k", "top_p", "given")
            if values == getattr(Job, name, None) and count < len(values):
                continue  # the defaults are of three levels; a model with fewer reads the first
            if len(values) != count and (values or not optional):
                raise ConfigError(
                    f"{name} has {len(values)} values, but the model has {count} levels; "
                    "give one a level, bottom first."
                )
    for level in job.levels:
        if not 0 <= level < count:
            raise ConfigError(f"levels has {level}, but the model's are 0 to {count - 1}.")
    return sorted(set(job.levels or range(count)), reverse=True)


def control(job: Job, items: tuple[Item, ...], level: int, guided: bool = False) -> Control:
    """How the codes of a batch are drawn: as each item says, or else as the job does."""

    def column(name: str, none: Any, dtype: Any) -> Any:
        own = [getattr(item, name) or getattr(job, name) for item in items]
        if not any(own):
            return None
        return jnp.asarray([[values[level] if values else none] for values in own], dtype)

    return Control(
        column("temperature", 1.0, jnp.float32),
        column("top_k", 0, jnp.int32),
        column("top_p", 1.0, jnp.float32),
        jnp.full((len(items), 1), job.guidance, jnp.float32) if guided else None,
    )


def plan_level(job: Job, config: PriorConfig, samples: int) -> Plan:
    """The windows of a level of a job; upsampled levels are cut into chains, if asked for."""
    return plan_rounds(
        samples // config.hop,
        config.n_ctx,
        job.hop_fraction[config.level],
        config.step,
        job.given[config.level] if job.given else 0,
        job.parallel_segments if config.upper else 1,
    )


def resolve_shapes(job: Job, vqvae: VQVAEConfig, priors: dict[int, PriorConfig]) -> list[Level]:
    """The levels to sample, top first, as far as configs determine them: enough for a plan."""
    samples, levels = job.samples(vqvae.sample_rate, vqvae.block), []
    for number in check_levels(job, vqvae.levels):
        config = on_device(priors[number])
        plan = plan_level(job, config, samples)
        batches = tuple(job.batches(plan.chains))
        guided = config.tracks is not None and job.guidance > 0
        levels.append(Level(config, plan, batches, storage=job.weights, guided=guided))
    return levels


def resolve(request: Request, model: LoadedModel) -> list[Level]:
    """The levels to sample, top first; whatever is wrong with a request is found here.

    Names become ids, lyrics tokens, seconds windows.

    Raises:
      ConfigError, CheckpointError, DataError: this model cannot sample the request.
    """
    job, directory, vqvae = request.job, model.directory, model.vqvae
    samples = job.samples(vqvae.config.sample_rate, vqvae.config.block)
    priors = {
        number: directory.checked_config(vqvae, number)
        for number in check_levels(job, vqvae.config.levels)
    }
    levels = []
    configs = {number: config for number, (config, _) in priors.items()}
    every = resolve_shapes(job, vqvae.config, configs)
    for level in every:
        config, note = level.config, priors[level.level][1]
        if config.labels:
            vocabulary = Vocabulary.load(directory.labels(config.level))
            check_labels(config, note, vocabulary, directory)
        else:
            vocabulary = Vocabulary.build([], [])
        conditions = job_conditions(config, vocabulary, job, samples)
        controls = tuple(
            control(job, job.items[x], config.level, level.guided) for x in level.batches
        )
        mark = weights_name(vqvae, note)
        levels.append(
            dataclasses.replace(level, conditions=conditions, controls=controls, weights=mark)
        )
    if job.guidance and not any(level.guided for level in every):
        raise ConfigError("guidance is for priors that read tracks; no level to sample has one.")
    return levels

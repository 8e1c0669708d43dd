"""VQ-VAE, prior and renderer as tasks: the pure functions that one training loop calls.

A task's `extra` is state without gradients: codebooks and loudness for the VQ-VAE, {} for a prior,
the frozen encoder and codebook for a renderer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jukejax.config import (
    Experiment,
    PriorConfig,
    PriorExperiment,
    RendererConfig,
    RendererExperiment,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.models import bottleneck, discriminators, lora, prior, renderer, vqvae
from jukejax.models.bottleneck import Codebook
from jukejax.models.renderer import Frozen
from jukejax.training import adversarial, rounding
from jukejax.training.losses import Bandwidth, bandwidth, vqvae_loss

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def microbatches(batch: Any, parts: int) -> Any:
    """Arrays (B, ...) as (parts, B / parts, ...), for `lax.map` and `lax.scan`.

    A microbatch is every `parts`-th row, so that each device splits the rows that it has.
    """

    def cut(x: jax.Array) -> jax.Array:
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, batch)


def joined(values: Any, rows: int) -> Any:
    """Values per example of microbatches of `rows` rows: (parts, rows * n, ...) -> (B * n, ...).

    In the order of the batch; n values per example.
    """

    def join(x: jax.Array) -> jax.Array:
        each = x.reshape(len(x), rows, -1, *x.shape[2:])
        return each.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    return jax.tree.map(join, values)


class Task(NamedTuple):
    """The pure functions of one kind of model."""

    init: Callable[[jax.Array], Any]  # key -> boxed parameters
    example: Callable[[int], Batch]  # batch size -> zeros in the shapes of a batch
    extra: Callable[[jax.Array, Any, Batch], Any]  # key, parameters, first batch -> extra
    adopt: Callable[[Any, Batch], Any]  # another run's extra, first batch -> extra
    loss: Callable[[Any, Any, Batch], tuple[jax.Array, tuple[Metrics, Any]]]
    evaluate: Callable[[Any, Any, Batch], Metrics]  # of held-out batches
    update: Callable[[jax.Array, Any, Any], tuple[Any, Metrics]]  # key, extra, aux -> extra


class VQVAEExtra(NamedTuple):
    """State of a VQ-VAE without gradients."""

    books: tuple[Codebook, ...]
    width: Bandwidth


def vqvae_task(config: VQVAEConfig, samples: int, parts: int = 1) -> Task:
    """A VQ-VAE on batches {"audio": (B, S, 1) float32}; S is `samples`.

    The first batch, which codebooks are drawn from, is encoded in `parts` microbatches.
    """

    def to_vectors(params: Any, audio: jax.Array, level: int) -> jax.Array:
        """(B * T, E), all encoder outputs of a batch."""

        def encode(part: jax.Array) -> jax.Array:
            return vqvae.to_vectors(config, params, part, level).reshape(-1, config.emb_width)

        if parts == 1:
            return encode(audio)
        return joined(lax.map(encode, microbatches(audio, parts)), len(audio) // parts)

    def extra(key: jax.Array, params: Any, batch: Batch) -> VQVAEExtra:
        books = []
        for level in range(config.levels):
            vectors = to_vectors(params, batch["audio"], level)
            key_level = jax.random.fold_in(key, level)
            books.append(bottleneck.first_codes(key_level, vectors, config.codes, config.groups))
        return VQVAEExtra(tuple(books), bandwidth(batch["audio"]))

    def adopt(other: VQVAEExtra, batch: Batch) -> VQVAEExtra:
        samples = batch["audio"].shape[0] * batch["audio"].shape[1]
        books = [
            bottleneck.restored_book(book.codes, samples / hop)
            for book, hop in zip(other.books, config.hops, strict=True)
        ]
        return VQVAEExtra(tuple(books), bandwidth(batch["audio"]))

    def loss(params: Any, state: VQVAEExtra, batch: Batch) -> Any:
        return vqvae_loss(config, params, state.books, state.width, batch["audio"])

    def evaluate(params: Any, state: VQVAEExtra, batch: Batch) -> Metrics:
        quantized = replace(config, unquantized=0.0)
        return vqvae_loss(quantized, params, state.books, state.width, batch["audio"])[1][0]

    def update(key: jax.Array, state: VQVAEExtra, assigned: Any) -> tuple[VQVAEExtra, Metrics]:
        books: list[Codebook] = []
        metrics: Metrics = {}
        for level, (book, batch) in enumerate(zip(state.books, assigned, strict=True)):
            key_level = jax.random.fold_in(key, level)
            new, stats = bottleneck.learn(config, key_level, book, batch)
            metrics |= {f"level_{level}/{name}": value for name, value in stats.items()}
            books.append(new)
        return state._replace(books=tuple(books)), metrics

    return Task(
        init=lambda key: vqvae.init_params(config, key),
        example=lambda n: {"audio": jnp.zeros((n, samples, 1))},
        extra=extra,
        adopt=adopt,
        loss=loss,
        evaluate=evaluate,
        update=update,
    )


def prior_task(config: PriorConfig, noise: bool = False) -> Task:
    """A prior on batches as `jukejax.models.prior` describes them; training has noise or not."""

    def example(n: int) -> Batch:
        batch = prior.example_batch(config, n)
        return batch | {"context": batch["codes"]} if noise else batch

    def loss(params: Any, extra: Any, batch: Batch) -> Any:
        total, metrics = prior.prior_loss(config, params, batch)
        return total, (metrics, None)

    return Task(
        init=lambda key: prior.init_params(config, key),
        example=example,
        extra=lambda key, params, batch: {},
        adopt=lambda other, batch: {},
        loss=loss,
        evaluate=lambda params, extra, batch: prior.prior_loss(config, params, batch)[1],
        update=lambda key, extra, aux: (extra, {}),
    )


def renderer_task(config: RendererConfig, samples: int) -> Task:
    """A renderer on batches {"audio": (B, S, 1) float32}; S is `samples`.

    A new run gets its frozen encoder and codes from a VQ-VAE (`Run.extra`). Those of `extra` here
    are random: they have the shapes, for restoring, planning and measuring speed.
    """

    def init(key: jax.Array) -> Any:
        parts = {adversarial.RENDERER: renderer.init_params(config, key)}
        if config.loss.adversarial:
            key = jax.random.fold_in(key, 1)
            parts[adversarial.DISCRIMINATORS] = discriminators.init_params(config, key)
        return parts

    def extra(key: jax.Array, params: Any, batch: Batch) -> Frozen:
        v = config.vqvae
        params = nn.unbox(vqvae.init_params(v, key))
        codes = jax.random.normal(key, (v.codes * v.groups, v.emb_width))
        books = [bottleneck.restored_book(codes, 1.0)] * v.levels
        return renderer.freeze(config, params, books)

    def loss(params: Any, frozen: Frozen, batch: Batch) -> Any:
        total, metrics = adversarial.renderer_loss(config, params, frozen, batch["audio"])
        return total, (metrics, None)

    def evaluate(params: Any, frozen: Frozen, batch: Batch) -> Metrics:
        params = params[adversarial.RENDERER]
        metrics = adversarial.measures(config, params, frozen, batch["audio"])[1]
        return {"loss": metrics["mel"], **metrics}

    return Task(
        init=init,
        example=lambda n: {"audio": jnp.zeros((n, samples, 1))},
        extra=extra,
        adopt=lambda other, batch: other,
        loss=loss,
        evaluate=evaluate,
        update=lambda key, extra, aux: (extra, {}),
    )


def adapter_task(base: Task, rank: int, dtype: str) -> Task:
    """Adapters of a prior: its own weights, stored in `dtype`, are extra["base"], not trained."""

    def weights(params: Any, extra: Any) -> Any:
        return lora.beside(extra["base"], params)

    def init(key: jax.Array) -> Any:
        shapes = nn.unbox(jax.eval_shape(base.init, key))
        return lora.init(key, jax.tree.map(lambda x: jnp.zeros(x.shape), shapes), rank)

    return base._replace(
        init=init,
        extra=lambda key, params, batch: {"base": rounding.stored(base.init(key), dtype)},
        adopt=lambda other, batch: other,
        loss=lambda params, extra, batch: base.loss(weights(params, extra), {}, batch),
        evaluate=lambda params, extra, batch: base.evaluate(weights(params, extra), {}, batch),
        update=lambda key, extra, aux: (extra, {}),
    )


def make_task(experiment: Experiment) -> Task:
    """The task of an experiment."""
    if isinstance(experiment, VQVAEExperiment):
        return vqvae_task(experiment.model, experiment.samples, experiment.train.accumulate)
    if isinstance(experiment, RendererExperiment):
        return renderer_task(experiment.model, experiment.samples)
    assert isinstance(experiment, PriorExperiment)
    task = prior_task(experiment.model, experiment.context_noise > 0)
    if experiment.lora:
        return adapter_task(task, experiment.lora, experiment.train.state_dtype)
    return task

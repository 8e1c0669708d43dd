"""VQ-VAE and prior as tasks: the pure functions that one training loop calls.

A task's `extra` is state without gradients: codebooks and loudness for the VQ-VAE, {} for a prior.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jukejax.config import (
    Experiment,
    PriorConfig,
    PriorExperiment,
    VQVAEConfig,
    VQVAEExperiment,
)
from jukejax.models import bottleneck, prior, vqvae
from jukejax.models.bottleneck import Codebook
from jukejax.training.losses import Bandwidth, bandwidth, vqvae_loss

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class Task(NamedTuple):
    """The pure functions of one kind of model."""

    init: Callable[[jax.Array], Any]  # key -> boxed parameters
    example: Callable[[int], Batch]  # batch size -> zeros in the shapes of a batch
    extra: Callable[[jax.Array, Any, Batch], Any]  # key, parameters, first batch -> extra
    adopt: Callable[[Any, Batch], Any]  # another run's extra, first batch -> extra
    loss: Callable[[Any, Any, Batch], tuple[jax.Array, tuple[Metrics, Any]]]
    update: Callable[[jax.Array, Any, Any], tuple[Any, Metrics]]  # key, extra, aux -> extra


class VQVAEExtra(NamedTuple):
    """State of a VQ-VAE without gradients."""

    books: tuple[Codebook, ...]
    width: Bandwidth


def vqvae_task(config: VQVAEConfig, samples: int) -> Task:
    """A VQ-VAE on batches {"audio": (B, S, 1) float32}; S is `samples`."""

    def extra(key: jax.Array, params: Any, batch: Batch) -> VQVAEExtra:
        books = []
        for level in range(config.levels):
            x = vqvae.to_vectors(config, params, batch["audio"], level)
            vectors = x.reshape(-1, config.emb_width)
            key_level = jax.random.fold_in(key, level)
            books.append(bottleneck.first_codes(key_level, vectors, config.codes))
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
        update=update,
    )


def prior_task(config: PriorConfig) -> Task:
    """A prior on batches as `jukejax.models.prior` describes them."""

    def loss(params: Any, extra: Any, batch: Batch) -> Any:
        total, metrics = prior.prior_loss(config, params, batch)
        return total, (metrics, None)

    return Task(
        init=lambda key: prior.init_params(config, key),
        example=lambda n: prior.example_batch(config, n),
        extra=lambda key, params, batch: {},
        adopt=lambda other, batch: {},
        loss=loss,
        update=lambda key, extra, aux: (extra, {}),
    )


def make_task(experiment: Experiment) -> Task:
    """The task of an experiment."""
    if isinstance(experiment, VQVAEExperiment):
        return vqvae_task(experiment.model, experiment.samples)
    assert isinstance(experiment, PriorExperiment)
    return prior_task(experiment.model)

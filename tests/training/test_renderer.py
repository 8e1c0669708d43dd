"""Renderer training: losses by hand, who gets which gradient, what stays frozen, exact resume."""

import functools
import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jukejax.config import (
    MeshConfig,
    OptimizerConfig,
    RendererConfig,
    RendererExperiment,
    RendererLoss,
    TrainConfig,
    VQVAEConfig,
)
from jukejax.models import bottleneck, discriminators, renderer, vqvae
from jukejax.models.discriminators import Judged
from jukejax.models.renderer import Frozen
from jukejax.parallel.mesh import make_mesh
from jukejax.training import adversarial
from jukejax.training.checkpoint import Checkpoints, load_experiment, open_existing
from jukejax.training.loop import Run, begin, train
from jukejax.training.optimizer import make_optimizer, optimizer_of
from jukejax.training.step import abstract_state
from jukejax.training.tasks import make_task

CODES = VQVAEConfig(
    sample_rate=8000, downs=(2, 1), multipliers=(1, 1), width=4, depth=1, emb_width=3, codes=8
)
MODEL = RendererConfig(
    vqvae=CODES, level=1, width=4, depth=3, dilation_growth=2, dilation_cycle=2, hop=4,
    synthesis=16, discriminators=(128,), channels=2,
)  # fmt: skip
EXPERIMENT = RendererExperiment(
    model=MODEL, samples=1024,
    optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=0, clip=1e-3),
    train=TrainConfig(
        steps=4, batch=2, ema_decay=0.5, log_every=1, evaluate_every=2, evaluate_batches=1,
        checkpoint_every=4,
    ),
)  # fmt: skip
ALONE = replace(EXPERIMENT, model=replace(MODEL, loss=RendererLoss(adversarial=0.0, features=0.0)))


def batch(step):
    audio = np.random.default_rng(step).normal(size=(2, 1024, 1))
    return {"audio": (0.3 * audio).astype(np.float32)}


def batches(step):
    return map(batch, itertools.count(step))


@pytest.fixture(scope="module")
def frozen():
    params = oracle.random_params(lambda key: vqvae.init_params(CODES, key), seed=1)
    books = [
        bottleneck.restored_book(np.random.default_rng(i).normal(size=(8, 3)), 1.0) for i in (0, 1)
    ]
    return renderer.freeze(MODEL, params, books)


@pytest.fixture(scope="module")
def params():
    judges = jax.jit(functools.partial(discriminators.init_params, MODEL))(jax.random.key(0))
    judges = jax.tree.map(lambda x: x + 0.02, judges)  # at biases of 0 silence is on a kink
    player = functools.partial(renderer.init_params, MODEL)
    return {"renderer": oracle.random_params(player, scale=0.3), "discriminators": judges}


def judged(*shapes, seed):
    rng = np.random.default_rng(seed)
    return [
        Judged(rng.normal(size=(2, 3, n)), tuple(rng.normal(size=(2, 3, n, 2)) for _ in range(2)))
        for n in shapes
    ]


def test_hinge_losses_and_feature_matching_by_hand():
    real, rendered = judged(4, 5, seed=0), judged(4, 5, seed=1)
    pairs = list(zip(real, rendered, strict=True))
    wanted = np.mean(
        [np.maximum(0, 1 - r.logits).mean() + np.maximum(0, 1 + f.logits).mean() for r, f in pairs]
    )
    assert adversarial.discriminator_loss(real, rendered) == pytest.approx(wanted, rel=1e-6)
    wanted = np.mean([np.maximum(0, 1 - f.logits).mean() for f in rendered])
    assert adversarial.adversarial_loss(rendered) == pytest.approx(wanted, rel=1e-6)
    wanted = np.mean(
        [
            np.abs(a[i] - b[i]).mean() / np.abs(a[i]).mean()
            for r, f in pairs
            for a, b in zip(r.features, f.features, strict=True)
            for i in range(2)
        ]
    )
    assert adversarial.feature_matching(real, rendered) == pytest.approx(wanted, rel=1e-5)


def test_a_discriminator_is_what_its_definition_says():
    """Spectra of windows cut by hand, and convolutions tap by tap."""
    sound = np.random.default_rng(0).normal(size=(1, 256)).astype(np.float32)
    net = discriminators.Discriminator(128, 2, "float32")
    p = oracle.random_params(lambda key: net.init(key, sound)["params"], scale=1.0, seed=2)
    found = jax.jit(lambda x: net.apply({"params": p}, x))(sound)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(128) / 128)
    padded = np.pad(sound[0], 48)  # windows are centred on hops of 32
    spectra = [np.fft.rfft(padded[32 * i :][:128] * hann)[:64] for i in range(8)]
    z = np.array(spectra) / np.sqrt((hann**2).sum())
    x = np.stack([z.real, z.imag], -1)  # (F, N, 2)

    def layer(name, x, dilation=1):
        kernel = p[f"{name}_kernel"] * p[f"{name}_gain"]
        kernel = kernel / np.sqrt((p[f"{name}_kernel"] ** 2).sum((0, 1, 2)))
        h, w = kernel.shape[:2]
        high, wide = dilation * (h // 2), w // 2
        y = np.pad(x, ((high, high), (wide, wide), (0, 0)))
        out = np.zeros((*x.shape[:2], kernel.shape[-1]))
        for i, j in itertools.product(range(h), range(w)):
            out += y[i * dilation :][: x.shape[0], j:][:, : x.shape[1]] @ kernel[i, j]
        return out + p[f"{name}_bias"]

    def leaky(x):
        return np.where(x > 0, x, 0.2 * x)

    features = [leaky(layer("in", x))]
    for i, dilation in enumerate((1, 2, 4)):
        before = features[-1]
        pairs = np.concatenate([before[:, ::2], before[:, 1::2]], -1)
        features.append(leaky(layer(f"halve_{i}", pairs, dilation)))
    features.append(leaky(layer("mix", features[-1])))
    for one, other in zip(found.features, features, strict=True):
        np.testing.assert_allclose(one[0], other, atol=1e-5)
    np.testing.assert_allclose(found.logits[0], layer("out", features[-1])[..., 0], atol=1e-5)
    assert found.logits.shape == (1, 8, 8)
    assert np.std(found.logits) > 0.1


def test_a_renderer_is_what_its_definition_says(params):
    p = params["renderer"]
    x = np.random.default_rng(0).normal(size=(2, 9, 3)).astype(np.float32)
    found = jax.jit(lambda x: renderer.apply(MODEL, p, x))(x)
    h = oracle.resnet(p["resnet_0"], oracle.conv(p["in"], x, pad=1), (1, 2, 1), 3**-0.5)
    h = oracle.conv_up(p["up_1"], np.maximum(h, 0))
    h = np.maximum(oracle.resnet(p["resnet_1"], h, (1, 2, 1), 3**-0.5), 0)
    expected = vqvae.sound(4, jnp.asarray(oracle.conv(p["out"], h, pad=1)))
    assert found.shape == (2, 72, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.std(expected) > 1e-2


def gradient(config, params, frozen):
    """The gradient of the summed loss on a batch."""

    def loss(p):
        return adversarial.renderer_loss(config, p, frozen, batch(0)["audio"])[0]

    return jax.jit(jax.grad(loss))(params)


def assert_alike(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-6), a, b)


def norm(tree):
    return float(np.sqrt(sum((np.asarray(x) ** 2).sum() for x in jax.tree.leaves(tree))))


def test_renderer_and_discriminators_get_the_gradients_of_their_own_losses(params, frozen):
    """The gradient of the sum, against two functions that each know one player's loss alone."""
    found = gradient(MODEL, params, frozen)
    x = jnp.asarray(batch(0)["audio"])
    judges = params["discriminators"]

    def of_renderer(p):
        y, metrics = adversarial.measures(MODEL, p, frozen, x)
        real = discriminators.judge(MODEL, judges, x[..., 0])
        rendered = discriminators.judge(MODEL, judges, y)
        total = 15.0 * metrics["mel"] + adversarial.adversarial_loss(rendered)
        return total + 5.0 * adversarial.feature_matching(real, rendered)

    def of_discriminators(p):
        y = adversarial.measures(MODEL, params["renderer"], frozen, x)[0]
        real, rendered = (discriminators.judge(MODEL, p, s) for s in (x[..., 0], y))
        return adversarial.discriminator_loss(real, rendered)

    assert_alike(found["renderer"], jax.jit(jax.grad(of_renderer))(params["renderer"]))
    assert_alike(found["discriminators"], jax.jit(jax.grad(of_discriminators))(judges))
    assert norm(found["discriminators"]) > 1e-3


def test_discriminators_alone_move_the_renderer(params, frozen):
    config = replace(MODEL, loss=RendererLoss(mel=0.0, features=0.0))
    assert norm(gradient(config, params, frozen)["renderer"]) > 1e-3


@pytest.fixture(scope="module")
def runs(tmp_path_factory, frozen):
    """(workdir, final state) of a run, and of one in two parts."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    out = []
    for name, stops in (("at_once", (4,)), ("in_parts", (2, 4))):
        workdir = tmp_path_factory.mktemp(name)
        for steps in stops:
            part = replace(EXPERIMENT, train=replace(EXPERIMENT.train, steps=steps))
            run = Run(part, mesh, workdir, batches, lambda: batches(9), extra=frozen, log=[].append)
            state = train(run)
        out.append((workdir, jax.tree.map(np.asarray, state)))
    return out


def test_a_resumed_run_is_an_uninterrupted_one_bit_for_bit(runs):
    (_, one), (_, other) = runs
    assert one.step == other.step == 4
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert norm(jax.tree.map(np.subtract, one.params, one.ema)) > 0


def test_encoder_and_codes_stay_as_they_are(runs, frozen):
    workdir, state = runs[0]
    experiment, _ = load_experiment(workdir)
    abstract = abstract_state(make_task(experiment), experiment, make_mesh(MeshConfig()))
    with open_existing(workdir) as checkpoints:
        extra = checkpoints.restore({"extra": abstract.extra})["extra"]
    for found in (state.extra, extra):
        assert isinstance(found, Frozen)
        jax.tree.map(np.testing.assert_array_equal, found, frozen)


def test_each_player_has_its_own_optimizer_and_clipping(params):
    """One player's gradient, however large, does not change the other's step."""
    grads = jax.tree.map(jnp.sin, params)
    optimizer = optimizer_of(EXPERIMENT, params)
    state = optimizer.init(params)
    huge = {**grads, "discriminators": jax.tree.map(lambda g: 1e6 * g, grads["discriminators"])}
    found, _ = optimizer.update(huge, state, params)
    alone = make_optimizer(EXPERIMENT.optimizer)
    player = params["renderer"]
    expected, _ = alone.update(grads["renderer"], alone.init(player), player)
    assert_alike(found["renderer"], expected)


def test_without_adversary_nothing_of_it_is_built_or_stored(frozen, tmp_path):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    short = replace(ALONE, train=replace(ALONE.train, steps=1))
    state = train(Run(short, mesh, tmp_path, batches, extra=frozen, log=[].append))
    assert set(state.params) == {"renderer"}
    with open_existing(tmp_path) as checkpoints:
        assert set(checkpoints.ema_shapes()) == {"renderer"}
    # an adversarial run may start from it, with new discriminators
    run = Run(EXPERIMENT, mesh, tmp_path / "new", batches, start_from=tmp_path)
    started, _ = begin(run, Checkpoints(run.workdir))
    jax.tree.map(np.testing.assert_array_equal, started.params["renderer"], state.ema["renderer"])
    jax.tree.map(np.testing.assert_array_equal, started.extra, frozen)
    judges = started.params["discriminators"]
    jax.tree.map(np.testing.assert_array_equal, judges, started.ema["discriminators"])
    assert np.std(judges["window_128"]["in_kernel"]) > 0.5

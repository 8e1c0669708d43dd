"""The whole set of the reference's files; JUKEJAX_GOLDEN names their folder."""

import gzip
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import (
    FOLDER,
    GOLDEN,
    PRIORS,
    arrays,
    assert_within,
    batch,
    check_forward,
    check_samples,
    check_steps,
    open_prior,
    open_vqvae,
    optional,
    published_vqvae,
)
from windows import on_one_device

from jukejax import presets
from jukejax.config import OptimizerConfig, ReconstructionLoss, VQVAEConfig, VQVAEExperiment
from jukejax.interop import importing, openai, torch_files
from jukejax.models import bottleneck, vqvae
from jukejax.models.bottleneck import restored_book
from jukejax.models.conditioners import timing_bins
from jukejax.models.prior import prior_loss
from jukejax.sampling import cascade
from jukejax.sampling.draw import Control
from jukejax.sampling.loop import make_loop
from jukejax.sampling.plan import plan_rounds
from jukejax.training import checkpoint
from jukejax.training.losses import Bandwidth, vqvae_loss
from jukejax.training.optimizer import make_optimizer, schedule

pytestmark = GOLDEN
PUBLISHED = (
    "vqvae",
    "upsampler_level_0",
    "upsampler_level_1",
    "prior_5b",
    "prior_5b_lyrics",
    "prior_1b_lyrics",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_published_files(name):
    with gzip.open(FOLDER.parent / "state_dicts.json.gz") as file:
        wanted = {k: tuple(v) for k, v in json.load(file)[name].items()}
    config = presets.get(name).model
    table = openai.vqvae_entries if name == "vqvae" else openai.prior_entries
    assert openai.expected(config, table(config)) == wanted


@pytest.mark.parametrize("name", PRIORS)
def test_prior(name):
    config, params = open_prior(FOLDER / "openai" / f"{PRIORS[name]}.pth.tar")
    data = arrays(f"prior_{name}")
    check_forward(name, config, params, data)
    check_samples(name, config, params, data)


@pytest.mark.parametrize("name", PRIORS)
def test_cached_logits(name):
    config, params = open_prior(FOLDER / "openai" / f"{PRIORS[name]}.pth.tar")
    check_steps(name, config, params, arrays(f"prior_{name}"))


@pytest.mark.parametrize("name", ["5b/vqvae", "extra/vqvae_small", *PRIORS.values()])
def test_every_tensor_comes_back(name):
    """Into our layout and back, bit for bit, float16 too."""
    file = torch_files.read(FOLDER / "openai" / f"{name}.pth.tar")
    vq = VQVAEExperiment(VQVAEConfig())
    opened = importing.open_vqvae(file) if "vqvae" in name else importing.open_prior(file, vq)
    seen, wrong = set(openai.shared(opened.experiment.model)), 0
    for entry in opened.entries:
        leaf = openai.gather(entry, file.tensors)
        for i, tensor in enumerate(entry.names):
            was = file.tensors[tensor].read()
            seen.add(tensor)
            back = np.ascontiguousarray(openai.scatter(entry, leaf, i), was.dtype)
            wrong += back.tobytes() != was.tobytes()
    assert seen == file.tensors.keys()
    assert_within(f"round trip {name}: of {len(seen)} tensors, differ", wrong, 0)


@pytest.mark.parametrize("name", PRIORS)
def test_gradients_of_a_prior(name):
    """The norm of every tensor's gradient."""
    config, params = open_prior(FOLDER / "openai" / f"{PRIORS[name]}.pth.tar")
    data = arrays(f"prior_{name}")
    inputs = batch(config, data["z"], optional(data, "y"), optional(data, "z_cond"))
    loss, grads = jax.value_and_grad(lambda p: prior_loss(config, p, inputs)[0])(params)
    assert_within(f"{name} training loss", abs(float(loss) / float(data["train/loss"]) - 1), 1e-5)
    check_gradients(name, openai.prior_entries(config), grads, data, "train/grad_norm/")


def check_gradients(case, entries, grads, data, prefix):
    errors = {}
    for entry in entries:
        if entry.path[0] == openai.BOOKS:
            continue
        leaf = np.asarray(checkpoint.at(grads, entry.path), np.float64)
        for i, name in enumerate(entry.names):
            wanted = float(data[prefix + name])
            found = np.linalg.norm(openai.scatter(entry, leaf, i).ravel())
            errors[name] = abs(found / wanted - 1)
    assert errors.keys() == {k.removeprefix(prefix) for k in data.files if k.startswith(prefix)}
    assert_within(f"{case} gradient norms of {len(errors)} tensors", max(errors.values()), 1e-4)


@pytest.mark.parametrize("mode", ["uniform", "greedy"])
def test_cascade(mode, monkeypatch):
    """Three levels, window by window, as the published program samples a song."""
    data = arrays("e2e")
    vq, vq_params, books = published_vqvae()
    upper = None
    for level, (name, fraction) in {
        2: ("1b_lyrics", 0.125), 1: ("up1", 0.5), 0: ("up0", 0.5)
    }.items():  # fmt: skip
        config, params = open_prior(FOLDER / "openai" / f"{PRIORS[name]}.pth.tar")
        wanted = data[f"{mode}/z_{level}"]
        recorded = np.nan_to_num(data[f"{mode}/u_{level}"], nan=0.5)  # by position

        def uniforms(seed, items, level, first, count, recorded=recorded):
            here = recorded[:, first : first + count]
            return jnp.asarray(np.pad(here, ((0, 0), (0, count - here.shape[1]))), jnp.float32)

        def describe(offset, config=config, level=level):
            start = offset // config.hop
            labels = batch(config, 0, data[f"{mode}/y_l{level}_w{start}"], 0)
            return {k: v for k, v in labels.items() if k not in ("codes", "upper")}

        monkeypatch.setattr(cascade, "_uniforms", uniforms)
        step = config.upper.ratio if config.upper else 1
        plan = plan_rounds(wanted.shape[1], config.n_ctx, fraction, step)
        temperature = 0.98 if mode == "uniform" else 1e-6
        control = Control(jnp.float32(temperature))
        mesh, params = on_one_device(params)
        loop = make_loop(config, mesh, params, 2, control)
        placed = loop.place(params)
        made_by = cascade.Sampler(config, loop, placed, plan, describe, 0, np.arange(2), control)
        nothing = cascade.begin(np.zeros_like(wanted))
        *_, (upper, _, _) = cascade.sample_level(made_by, nothing, upper)
        assert_within(
            f"cascade {mode} level {level}: tokens that differ", (upper != wanted).sum(), 0
        )
        if mode == "uniform":
            sound = vqvae.decode(vq, vq_params, books, jnp.asarray(upper), level)[..., 0]
            error = np.abs(np.asarray(sound) - data[f"uniform/x_{level}"]).max()
            assert_within(f"cascade sound {level}", error, 1e-5)


@pytest.mark.parametrize("name", ["5b/vqvae", "extra/vqvae_small"])
def test_vqvae_codes_and_sound(name):
    config, params, books = open_vqvae(FOLDER / "openai" / f"{name}.pth.tar")
    data = arrays(name.split("/")[1])
    for level in range(config.levels):
        z = vqvae.encode(config, params, books, jnp.asarray(data["audio"]), level)
        differ = (np.asarray(z) != data[f"z_{level}"]) & (data[f"z_margin_{level}"] >= 1e-4)
        assert_within(f"{name} codes {level} that differ", differ.sum(), 0)
        sound = vqvae.decode(config, params, books, jnp.asarray(data[f"z_{level}"]), level)
        assert_within(
            f"{name} sound {level}", np.abs(np.asarray(sound) - data[f"dec_{level}"]).max(), 1e-5
        )


def run_loss(loss):
    config, params, books = published_vqvae()
    data = arrays("vqvae")
    width = Bandwidth(*(jnp.float32(data[f"bandwidth/{k}"]) for k in ("l1", "l2", "spec")))
    config = replace(config, loss=loss)
    return config, vqvae_loss(config, params, books, width, jnp.asarray(data["audio"]))


@pytest.mark.parametrize("kind", ["l1", "l2", "linf", "lmix"])
def test_vqvae_losses(kind):
    data = arrays("vqvae")
    weights = {"l1": (1, 0, 0), "l2": (0, 1, 0), "linf": (0, 0, 1), "lmix": (0, 1, 0.02)}[kind]
    loss = ReconstructionLoss(**dict(zip(("l1", "l2", "linf"), map(float, weights), strict=True)))
    config, (total, (metrics, _)) = run_loss(loss)

    def compare(name, value):
        wanted = float(data[f"eval/{kind}/absspec/{name}"])
        assert_within(f"vqvae {kind} {name}", abs(float(value) / wanted - 1), 1e-5)

    compare("loss", total)
    levels = range(config.levels)
    for level in levels:
        compare(f"multispectral_loss_l{level + 1}", metrics[f"level_{level}/multispectral"])
    compare("commit_loss", sum(metrics[f"level_{level}/commit"] for level in levels))
    for name in ("l1_loss", "l2_loss", "linf_loss", "spectral_convergence"):
        compare(name, metrics[f"level_0/{name.removesuffix('_loss')}"])
    for level in levels:
        of = {name: metrics[f"level_{level}/{name}"] for name in ("l1", "l2", "linf")}
        mixed = sum(getattr(loss, name) * value for name, value in of.items())
        compare(f"recons_loss_l{level + 1}", mixed)


def test_spectral_losses():
    """The plain one, and its relative variant, which is the spectral convergence."""
    data = arrays("vqvae")
    config, (_, (metrics, _)) = run_loss(ReconstructionLoss(spectral=1.0))
    for variant, name in (("absspec", "spectral"), ("relspec", "spectral_convergence")):
        for level in range(config.levels):
            wanted = float(data[f"eval/lmix/{variant}/spectral_loss_l{level + 1}"])
            error = abs(float(metrics[f"level_{level}/{name}"]) / wanted - 1)
            assert_within(f"vqvae {variant} {level}", error, 1e-5)


def test_codebook_update():
    data = arrays("vqvae")
    _, _, books = published_vqvae()
    config, (_, (_, chosen)) = run_loss(ReconstructionLoss())
    samples = data["audio"].shape[1]
    for case, threshold in (("A", 0.0), ("B", 1.0)):
        for level, (old, seen) in enumerate(zip(books, chosen, strict=True)):
            tokens = {"A": samples // config.hops[level], "B": config.codes}[case]
            book = restored_book(np.asarray(old.codes), tokens)  # one item a step, as it has it
            np.testing.assert_array_equal(book.counts, data[f"{case}/k_elem_before_{level}"])
            fresh = jnp.asarray(data[f"B/k_rand_{level}"])
            new = bottleneck.update(book, seen.vectors, seen.codes, fresh, 0.99, threshold)
            found = {"k_elem": new.counts, "k_sum": new.sums, "k": new.codes}
            for name, value in found.items():
                key = f"{case}/{name}_{level}"
                if key in data.files:
                    assert_within(
                        f"codebook {key}", np.abs(np.asarray(value) - data[key]).max(), 1e-5
                    )


def test_gradients_of_the_vqvae():
    config, params, books = published_vqvae()
    data = arrays("vqvae")
    width = Bandwidth(*(jnp.float32(data[f"bandwidth/{k}"]) for k in ("l1", "l2", "spec")))
    audio = jnp.asarray(data["audio"])
    config = replace(config, loss=ReconstructionLoss())
    grads = jax.grad(lambda p: vqvae_loss(config, p, books, width, audio)[0])(params)
    check_gradients("vqvae", openai.vqvae_entries(config), grads, data, "A/grad_norm/")


@pytest.mark.parametrize(("case", "b2", "decay"), [("wd0", 0.999, 0.0), ("wd01", 0.925, 0.01)])
def test_optimizer(case, b2, decay):
    """Eight updates with clipping at 1, some of gradients a hundred times too long."""
    data = arrays("optim")
    config = OptimizerConfig(
        kind="jukebox", learning_rate=3e-3, b2=b2, weight_decay=decay, warmup_steps=0
    )
    optimizer = make_optimizer(config)
    params = ema = jnp.asarray(data["p0"])
    state = optimizer.init(params)
    errors = []
    for t, gradient in enumerate(data["grads"]):
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        ema = 0.9 * ema + 0.1 * params
        errors.append(np.abs(np.asarray(params) - data[f"{case}/p"][t]).max())
        errors.append(np.abs(np.asarray(ema) - data[f"{case}/ema"][t]).max())
    assert_within(f"optimizer {case}: parameters and averages", max(errors), 1e-6)


@pytest.mark.parametrize(
    ("case", "more"),
    [
        ("default", {}),
        ("linear", {"decay": "linear", "decay_start": 300, "decay_steps": 200}),
        ("gamma", {"learning_rate": 6e-4, "warmup_steps": 50, "decay": "step", "decay_steps": 150}),
    ],
)
def test_schedules(case, more):
    wanted = arrays("optim")[f"lr/{case}"]
    found = schedule(OptimizerConfig(**more))(np.arange(len(wanted)))
    assert_within(
        f"schedule {case}, over its peak", np.abs(found - wanted).max() / wanted.max(), 1e-6
    )


def test_timing_bins():
    data = arrays("timing")
    wrong = bins_seen = 0
    for case in json.loads((FOLDER / "npz/timing.json").read_text()):
        if "raises" in case:
            continue
        config = presets.get(case["model"]).model
        labels = config.labels
        assert (labels.timing_bins, labels.min_seconds, labels.max_seconds, config.n_ctx) == (
            case["t_bins"], case["min_duration"], case["max_duration"], case["n_time"],
        )  # fmt: skip
        total, offset = (jnp.asarray([case[k]]) for k in ("total_length", "offset"))
        found = jax.jit(timing_bins, static_argnums=0)(config, total, offset)
        key = f"{case['model']}/{case['i']}"
        for name, bins in zip(("total", "absolute", "relative"), found, strict=True):
            wanted = data[f"{key}/{name}"]
            wrong += (np.asarray(bins)[0] != wanted).sum()
            bins_seen += wanted.size
    assert_within(f"timing: of {bins_seen} bins, differ", wrong, 0)

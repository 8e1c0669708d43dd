"""Priors of every kind against float64: logits, losses, and what depends on what."""

import functools

import jax
import numpy as np
import oracle
import pytest

from jukejax.config import LabelsConfig, LyricsConfig, PriorConfig, UpperConfig
from jukejax.models.prior import Prior, collected, init_params, prior_loss, token_bits
from jukejax.sampling.alignment import head_weights

T, ROWS, WIDTH, CODES, E = 12, 4, 8, 7, 4
LABELS = LabelsConfig(
    artists=4, genres=6, max_genres=2, timing_bins=5, min_seconds=0.0, max_seconds=20.0
)
BASE = {
    "n_ctx": T, "hop": 10, "sample_rate": 100, "width": WIDTH, "blocks": ROWS, "codes": CODES,
    "heads": 2, "attn_ratio": 0.5,
}  # fmt: skip
R, C, P = "row", "column", "previous_row"
KINDS = {
    # no labels: a learned start token
    "plain": (PriorConfig(**BASE, depth=1, attn_order=0), ["dense"]),
    "groups": (PriorConfig(**BASE, depth=1, attn_order=0, groups=3), ["dense"]),
    "upsampler": (
        PriorConfig(
            **BASE, depth=3, attn_order=2, labels=LABELS, upper=UpperConfig(width=4, depth=1)
        ),
        [R, C, P],
    ),
    "encoder": (
        PriorConfig(
            **BASE, depth=4, attn_order=6, labels=LABELS, tied_output=False,
            lyrics=LyricsConfig(tokens=E, width=8, depth=1, blocks=2, attn_order=0, heads=1),
        ),
        [R, C, P, "cross"],
    ),
    "prefix": (
        PriorConfig(
            **BASE, depth=16, attn_order=12, labels=LABELS,
            lyrics=LyricsConfig(tokens=E, alphabet="v3", prefix=True, loss_fraction=0.3),
        ),
        [R, C, P] * 5 + ["prime"],
    ),
}  # fmt: skip


def make_batch(config):
    """A window and copies: copy 1 + j has another code j, copy 1 + T + j another character j."""
    rng = np.random.default_rng(0)
    n = 1 + T + (E if config.lyrics else 0)
    codes = np.repeat(rng.integers(0, CODES, (1, T)), n, 0)
    codes[1 + np.arange(T), np.arange(T)] += 1
    batch = {"codes": codes % CODES}
    if config.labels:
        batch |= {"artist": np.full(n, 2), "genres": np.full((n, 2), [3, -1])}
        batch |= {"total_length": np.full(n, 700), "offset": np.full(n, 250)}
    if config.upper:
        batch["upper"] = np.repeat(rng.integers(0, CODES, (1, T // 4)), n, 0)
    if config.lyrics:
        lyrics = np.repeat(rng.integers(0, 78, (1, E)), n, 0)
        lyrics[1 + T + np.arange(E), np.arange(E)] += 1
        batch["lyrics"] = lyrics
    return {name: x.astype(np.int32) for name, x in batch.items()}


@pytest.fixture(scope="module")
def run():
    """kind -> parameters, batch, logits, lyric logits, bits of tokens, (loss, metrics)."""

    @functools.cache
    def run(kind):
        config = KINDS[kind][0]
        params = oracle.random_params(lambda key: init_params(config, key), scale=0.5)
        batch = make_batch(config)

        @jax.jit
        def everything(params, batch):
            logits, conditions = Prior(config).apply({"params": params}, batch)
            bits = token_bits(config, params, batch)
            return logits, conditions.lyric_logits, bits, prior_loss(config, params, batch)

        return params, batch, *everything(params, batch)

    return run


def timing(p):
    """Timing embeddings of 120 samples from 250 on in a song of 700, with tables of 5 bins."""
    positions = [250 + 10 * i for i in range(T)]
    absolute = p["absolute_position"][[5 * x // 2000 for x in positions]]
    relative = p["relative_position"][[5 * x // 700 for x in positions]]
    return (p["total_length"][5 * 700 // 2000] + absolute + relative)[None]


def expected_stack(kind, p, batch):
    """What goes into the stack, by the published rules, in float64.

    Layers, input (B, L, W), how many positions `prime` sees, lyric states, the lyrics encoder's
    logits, and what is added to the input.
    """
    config = KINDS[kind][0]
    encoded = lyric_logits = add = None
    n, visible, tokens = len(batch["codes"]), 0, batch["codes"]
    start = p["labels"]["artist"][2] + p["labels"]["genre"][3] if config.labels else p["start"][0]
    if kind == "upsampler":
        u = p["upper"]
        x = oracle.conv(u["convolutions"]["in"], u["token"][batch["upper"]], pad=1)
        for i in range(2):
            x = oracle.resnet(u["convolutions"][f"resnet_{i}"], x, [1])
            x = oracle.conv_up(u["convolutions"][f"up_{i}"], x)
        add = oracle.layer_norm(u["norm"], x)
    if kind in ("encoder", "prefix"):
        add = timing(p["labels"])
    if kind == "encoder":
        e = p["lyric_encoder"]
        x = np.concatenate([np.repeat(e["start"][None], n, 0), e["token"][batch["lyrics"]]], 1)
        layers = oracle.unrolled(e["stack"], ((1, ("dense",)),))
        x, _ = oracle.stack(layers, x[:, :E] + e["position"], 1, 2)
        encoded = oracle.layer_norm(e["norm"], oracle.dense(e["project"], x))
        lyric_logits = encoded @ e["output"].T
    if kind == "prefix":
        tokens = np.concatenate([batch["lyrics"], 79 + batch["codes"]], 1)
        add = np.concatenate([np.zeros((1, E, WIDTH)), add], 1)
        visible = 8  # (4 // 4 + 1) * 4: four characters and the first four codes
    if kind == "groups":  # a table for each of the three places in a group
        tokens = tokens + CODES * (np.arange(T) % 3)
    x = np.concatenate([np.repeat(start[None, None], n, 0), p["token"][tokens][:, :-1]], 1)
    x = x + p["position"] + (0 if add is None else add)
    if kind == "groups":
        x[:, 3:] += p["token"][tokens][:, :-3] @ p["earlier"].astype(np.float64)
    layers = oracle.unrolled(p["stack"], config.runs)
    assert [pattern for pattern, _ in layers] == KINDS[kind][1]
    return layers, x, visible, encoded, lyric_logits, add


def expected_logits(kind, p, batch):
    """Logits (B, L, K) and those of the lyrics encoder."""
    config = KINDS[kind][0]
    layers, x, visible, encoded, lyric_logits, add = expected_stack(kind, p, batch)
    h, _ = oracle.stack(layers, x, 2, ROWS, visible, encoded)
    if not config.tied_output:
        return h @ np.asarray(p["output"], np.float64), lyric_logits
    logits = (h if add is None else h + add) @ p["token"].T.astype(np.float64)
    if kind == "groups":
        logits = np.stack([logits[:, i, i % 3 * CODES :][:, :CODES] for i in range(T)], 1)
    return logits, lyric_logits


def bits_of(logits, targets):
    """Bits of each target, in float64."""
    logits = logits - logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, targets[..., None], -1)[..., 0] / np.log(2)


@pytest.mark.parametrize("kind", KINDS)
def test_logits(run, kind):
    params, batch, logits, lyric_logits, *_ = run(kind)
    expected, expected_lyrics = expected_logits(kind, params, batch)
    columns = 79 + CODES if kind == "prefix" else CODES
    assert logits.shape == (len(batch["codes"]), T + (E if kind == "prefix" else 0), columns)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    if kind == "encoder":
        np.testing.assert_allclose(lyric_logits, expected_lyrics, rtol=1e-3, atol=1e-3)
    else:
        assert lyric_logits is None


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_bits_weighted_by_length(run, kind):
    _, batch, logits, lyric_logits, bits, (loss, metrics) = run(kind)
    logits = np.asarray(logits, np.float64)
    lyrics = None
    if kind == "prefix":
        music = bits_of(logits[:, E:], 79 + batch["codes"])
        lyrics = bits_of(logits[:, :E], batch["lyrics"])
    else:
        music = bits_of(logits, batch["codes"])
    if kind == "encoder":
        lyrics = bits_of(np.asarray(lyric_logits, np.float64), batch["lyrics"])
    np.testing.assert_allclose(bits["music"], music, rtol=1e-5, atol=1e-5)
    assert float(metrics["bits_music"]) == pytest.approx(music.mean(), rel=1e-5)
    expected = music.mean()
    if lyrics is not None:
        np.testing.assert_allclose(bits["lyrics"], lyrics, rtol=1e-5, atol=1e-5)
        assert float(metrics["bits_lyrics"]) == pytest.approx(lyrics.mean(), rel=1e-5)
        fraction = {"encoder": 0.4, "prefix": 0.3}[kind]
        expected = fraction * lyrics.mean() * E / (E + T) + music.mean() * T / (E + T)
    assert float(loss) == float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
    assert set(bits) == ({"music"} if lyrics is None else {"music", "lyrics"})


@pytest.mark.parametrize("kind", ["encoder", "prefix"])
def test_codes_are_predicted_from_the_context_where_there_is_one(run, kind):
    params, batch, logits, *_ = run(kind)
    codes = batch["codes"][::-1]
    noisy = batch | {"codes": codes, "context": batch["codes"]}
    found = jax.jit(functools.partial(token_bits, KINDS[kind][0]))(params, noisy)
    music, first = np.asarray(logits, np.float64), 0
    if kind == "prefix":
        music, first = music[:, E:], 79
    np.testing.assert_allclose(found["music"], bits_of(music, first + codes), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_depend_on_the_codes_before_them_alone(run, kind):
    _, _, logits, lyric_logits, *_ = run(kind)
    logits = np.asarray(logits)
    changed = (logits[1 : 1 + T] != logits[:1]).any(-1)  # (j, L)
    if kind == "prefix":
        assert not changed[:, :E].any()  # lyrics come first: no code tells of them
        changed = changed[:, E:]
    assert not np.tril(changed).any()
    assert changed[np.arange(T - 1), np.arange(1, T)].all()
    if kind == "encoder":
        assert (np.asarray(lyric_logits[1 : 1 + T]) == np.asarray(lyric_logits[:1])).all()


@pytest.mark.parametrize("kind", ["encoder", "prefix"])
def test_music_depends_on_the_lyrics(run, kind):
    _, _, logits, lyric_logits, *_ = run(kind)
    logits = np.asarray(logits)
    changed = (logits[1 + T :] != logits[:1]).any(-1)  # (E, L)
    if kind == "prefix":
        assert changed[:, E:].any(0).all()
        assert not np.tril(changed[:, :E]).any()
        assert changed[:, -1].all()
    else:
        # state i of the encoder has seen characters before i, so the last one is never read
        assert changed[: E - 1].all()
        assert not changed[E - 1].any()
        own = (np.asarray(lyric_logits[1 + T :]) != np.asarray(lyric_logits[:1])).any(-1)
        assert not np.tril(own).any()


@pytest.mark.parametrize("kind", ["encoder", "prefix"])
def test_attention_to_lyrics_is_the_softmax_of_queries_and_keys(run, kind):
    config = KINDS[kind][0]
    params, batch, *_ = run(kind)
    some = {name: x[:2] for name, x in batch.items()}
    layers, x, visible, encoded, *_ = expected_stack(kind, params, some)
    before, (pattern, p) = layers[:-1], layers[-1]
    h, _ = oracle.stack(before, x, 2, ROWS, visible)
    h = oracle.layer_norm(p["norm_0"], h)
    if pattern == "cross":
        q, k = oracle.dense(p["qkv"], h), np.split(oracle.dense(p["encoder_kv"], encoded), 2, -1)[0]
    else:
        q, k, _ = np.split(oracle.dense(p["qkv"], h), 3, axis=-1)
    kept_layers = jax.jit(collected, static_argnums=(0, 3))(config, params, some, "lyrics")
    assert [found is None for found in kept_layers] == [True] * len(before) + [False]
    width = q.shape[-1] // 2
    for head in range(2):
        cut = slice(head * width, (head + 1) * width)
        scores = q[..., cut] @ k[..., cut].swapaxes(1, 2) / np.sqrt(width)
        if kind == "prefix":
            scores = np.where(oracle.mask("prime", 1, E + T, visible), scores, -np.inf)[:, E:]
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = (weights / weights.sum(-1, keepdims=True))[..., :E]
        found = head_weights(config, kept_layers[-1], head)
        assert found.shape == (2, T, E)
        np.testing.assert_allclose(found, weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["upsampler", "prefix"])
def test_kept_means_are_of_the_layers_outputs_over_music(run, kind):
    config = KINDS[kind][0]
    params, batch, *_ = run(kind)
    some = {name: x[:2] for name, x in batch.items()}
    layers, x, visible, encoded, *_ = expected_stack(kind, params, some)
    found = jax.jit(collected, static_argnums=(0, 3))(config, params, some, "mean")
    assert len(found) == len(layers)
    for depth in (1, len(layers)):
        h, _ = oracle.stack(layers[:depth], x, 2, ROWS, visible, encoded)
        np.testing.assert_allclose(
            found[depth - 1], h[:, config.prefix_len :].mean(1), rtol=1e-3, atol=1e-3
        )


def test_untied_output_has_its_own_matrix():
    config = KINDS["encoder"][0]
    params = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    assert params["output"].unbox().shape == (WIDTH, CODES)
    tied = jax.eval_shape(lambda key: init_params(KINDS["plain"][0], key), jax.random.key(0))
    assert set(tied) == {"token", "position", "start", "stack"}

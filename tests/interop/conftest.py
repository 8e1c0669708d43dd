"""A small model as OpenAI's files, as ours, and as HuggingFace's directory."""

import pytest
from openai_files import write_release
from small_model import PRIORS, VQVAE, export, run


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """Files in OpenAI's layout, matrices of layers in float16."""
    return write_release(tmp_path_factory.mktemp("files"), VQVAE, PRIORS)


@pytest.fixture(scope="session")
def there(released, tmp_path_factory):
    """The model of `released`, and a directory of HuggingFace's made from it."""
    folder = tmp_path_factory.mktemp("there")
    priors = [path for name, path in released.items() if name != "vqvae"]
    run(
        "import", "--format", "openai", "--vqvae", released["vqvae"], "--prior", *priors,
        "--out", folder / "model",
    )  # fmt: skip
    export(folder / "model", folder / "directory")
    return folder


@pytest.fixture(scope="session")
def directory(there):
    return there / "directory"

"""The installed wheel, outside the checkout: its console script, library and data files."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from experiments.__main__ import COMMANDS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PIP_NO_INDEX")  # setuptools builds it, fetched by pip
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (path,) = folder.glob("jukejax-*.whl")
    site = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, path], check=True)
    return path


def run(wheel, *command):
    """Output of a Python program that finds the wheel's packages first, in an empty folder."""
    place = wheel.parent / "elsewhere"
    place.mkdir(exist_ok=True)
    site = wheel.parent / "site"
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=place, capture_output=True, text=True,
        env={"PYTHONPATH": str(site), "PATH": "", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_console_script_lists_and_runs_commands(wheel):
    script = wheel.parent / "site" / "bin" / "jukejax"
    code, text = run(wheel, script, "--help")
    assert code == 0 and all(f"  {name} " in text for name in COMMANDS)
    code, text = run(wheel, script, "model", "show", "nothing")
    assert code == 1 and text.startswith("error: nothing is not a model directory")
    assert run(wheel, script, "trian")[0] == 2


def test_the_library_and_the_demo_s_songs_are_those_of_the_wheel(wheel):
    code, text = run(
        wheel, "-c", "import data_pipeline, jukejax; print(jukejax.__file__, jukejax.load.__name__)"
    )
    assert code == 0 and text.split() == [
        f"{wheel.parent / 'site' / 'jukejax'}/__init__.py",
        "load",
    ]
    code, text = run(
        wheel, "-c",
        "from experiments.demo import steps; from pathlib import Path; "
        "command = next(c for _, c in steps(Path('out')) if '--manifest' in c); "
        "print(command[command.index('--manifest') + 1])",
    )  # fmt: skip
    assert code == 0 and Path(text.strip()).is_file()
    assert Path(text.strip()).is_relative_to(wheel.parent)


def test_every_data_file_that_the_code_reads_is_in_the_wheel(wheel):
    listed = subprocess.run(
        ["git", "ls-files", "jukejax", "data_pipeline"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert len(listed) > 100
    assert set(listed) <= set(zipfile.ZipFile(wheel).namelist())

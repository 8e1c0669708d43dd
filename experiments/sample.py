"""Make songs: sample all levels top to bottom, decode each, and write a page to listen to.

jukejax sample --model runs/demo/model --out runs/demo/sample \\
    --artist "Flite RMS" --genre hymn --lyrics words.txt --seconds 6 --seed 0

--prompt song.wav continues a sound, --continue-from SAMPLE a sample, --upsample SAMPLE samples its
lower levels, --plan only prints what would be sampled (with --presets, for models known by their
presets alone). Codes are saved every few seconds; after an interruption the same command continues
and makes the same song. --mesh.tensor 4 splits one stream over four devices, --mesh.data a batch of
songs. Levels conditioned on lyrics also get an alignment from the most monotonic attention head;
`--job DIR/job.json --out DIR` adds it to an older sample.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

from experiments import cli
from experiments.song_files import SongFiles, check_files, song_request
from jukejax.config import ConfigError, MeshConfig
from jukejax.sampling.job import Drawing, Job, Options, only

COMMON = (
    "model", "out", "artist", "genre", "lyrics", "tune", "seconds", "seed", "temperature",
    "prompt", "continue_from", "upsample", "plan",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Command(SongFiles, Options):
    """Sample songs from a model directory.

    Example: jukejax sample --model runs/demo/model --out my_song --artist "Flite RMS" --genre hymn
    """

    out: Path
    """Gets codes, sounds, pictures, job.json and index.html."""
    model: Path | None = None
    """A model directory (model.json)."""
    job: Path | None = None
    """A job.json to sample again, with --model where the model has moved, and --levels; no other
    options are supported with it."""
    stream: bool = False
    """Begin lower levels as soon as the codes above them are sampled; keeps all priors in memory.
    """
    plan: bool = False
    """Print windows, memory and a time estimate, and sample nothing."""
    presets: tuple[str, ...] = ()
    """With --plan, in place of a model: presets of a VQ-VAE and of a prior per level."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """tensor splits weights and caches, for one song; data splits a batch of many. Not stored in
    the job: the same batch on the same mesh makes the same song; on another mesh, rounding may
    change a token."""


def print_plan_of_presets(command: Command) -> None:
    """What --plan --presets prints."""
    from jukejax.parallel.mesh import make_mesh
    from jukejax.sampling.planning import plan_presets

    only(command, Command(out=command.out), "model", "job", "prompt", "continue_from", "upsample",
         why="cannot be combined with --presets")  # fmt: skip
    if not command.plan:
        raise ConfigError("Presets have no weights, so nothing can be sampled; give --plan.")
    mesh = make_mesh(command.mesh)
    print(plan_presets(command.presets, command, mesh, command.out, command.stream))


def model_path(command: Command) -> Path | str:
    """The model that is named, or the one of the job or sample that is named."""
    from jukejax.sampling.sample_dir import read_job

    if command.job:
        kept = ("out", "model", "job", "levels", "stream", "plan", "mesh")
        others = [f.name for f in fields(command) if f.name not in kept]
        why = "cannot be combined with --job, which has its own options"
        only(command, Command(out=command.out), *others, why=why)
    if command.model:
        return command.model
    source = command.continue_from or command.upsample
    file = command.job or (source / "job.json" if source else None)
    if file is None:
        raise ConfigError("Give --model MODEL_DIR, or --job job.json to make a sample again.")
    return read_job(file)[1].model


def check_paths(command: Command) -> None:
    """Looks at the files and folders of a command before a model is loaded.

    Raises:
      ConfigError, DataError: a file is missing, or `--out` is not free for this job.
    """
    from jukejax.sampling.sample_dir import check_folder, read_job

    check_files(command)
    if command.plan:
        return
    job: Job | Command = read_job(command.job)[1] if command.job else command
    names = [f.name for f in fields(Drawing)] + ["max_batch", "parallel_segments"]
    if not command.continue_from and not command.upsample:  # else they depend on that sample
        names += ["seconds", "total_seconds"]
    check_folder(command.out, {name: getattr(job, name) for name in names})


def run(command: Command) -> Path | None:
    """Samples what a command asks for; returns the page. With --plan, only prints it."""
    if command.presets:
        print_plan_of_presets(command)
        return None
    path = model_path(command)
    check_paths(command)

    import jukejax
    from jukejax.sampling.request import request_again

    model = jukejax.load(path, command.mesh)
    if command.job:
        request = request_again(model.loaded, command.job, command.levels)
    else:
        request = song_request(model.loaded, command, command)
    if command.plan:
        print(model.plan(request, command.out, command.stream))
        return None
    return model.make(request, command.out, command.stream, progress=True)


@cli.command
def main(arguments: list[str]) -> None:
    page = run(cli.parse(Command, arguments, "jukejax sample", COMMON))
    if page:
        print(f"Listen: {page}")


if __name__ == "__main__":
    main(sys.argv[1:])

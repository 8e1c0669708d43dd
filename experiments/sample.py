"""Make songs: sample all levels top to bottom, decode each, and write a page to listen to.

python -m experiments.sample --model runs/demo/model --out runs/demo/sample \\
    --artist "Flite RMS" --genre hymn --lyrics words.txt --seconds 6 --seed 0

--prompt song.wav goes on from a sound, --continue-from SAMPLE from a sample, --upsample SAMPLE
makes its lower levels, --plan only says what would be made (with --presets, by models that are not
there). Codes are saved every few seconds; the same command goes on where a killed one was, and
makes the same song. --mesh.tensor 4 splits one stream over four devices, --mesh.data a batch of
songs. A level that is told lyrics gets alignments beside its sounds; `--job DIR/job.json --out
DIR` adds them to an older sample.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tyro

from experiments import cli
from jukejax.config import ConfigError, MeshConfig
from jukejax.evaluation.page import write_page
from jukejax.model_dir import LoadedVQVAE, ModelDir, load_vqvae, read_model_dir
from jukejax.parallel.mesh import Mesh, make_mesh
from jukejax.sampling import sound
from jukejax.sampling.making import Board, load_prior, make
from jukejax.sampling.planning import check_memory, memory_text, plan_text
from jukejax.sampling.request import Command, Request, make_request, plan_presets
from jukejax.sampling.resolve import describe_level, set_up
from jukejax.sampling.sample_dir import SampleDir
from jukejax.sampling.words import align_sample, is_aligned, with_words


def run(
    request: Request,
    out: Path,
    stream: bool = False,
    plan: bool = False,
    devices: MeshConfig | None = None,
) -> Path | None:
    """Samples a job into `out`; returns the page. With `plan`, prints what would be made."""
    folder, mesh = read_model_dir(request.job.model), make_mesh(devices or MeshConfig())
    return run_with(folder, load_vqvae(folder.vqvae, mesh), mesh, request, out, stream, plan)


def run_with(
    folder: ModelDir,
    model: LoadedVQVAE,
    mesh: Mesh,
    request: Request,
    out: Path,
    stream: bool = False,
    plan: bool = False,
) -> Path | None:
    """As `run`, with a model that is in memory; `folder` gives its priors."""
    job, config = request.job, model.config
    setups = set_up(job, folder, model)
    if plan:
        print(plan_text(job, config, setups, mesh, out, stream))
        return None
    check_memory(job, setups, mesh, stream)
    print(memory_text(job, setups, mesh, stream))
    samples = job.samples(config.sample_rate, config.hops[-1])
    levels = [describe_level(job, config, setup, samples) for setup in setups]
    given = request.given or [np.zeros((len(job.items), 0), np.int32)] * config.levels
    sample = SampleDir(out, job, config.sample_rate, levels, given, request.notes)
    board = Board(sample, job, config.hops, samples, setups)
    by_level = {setup.level: setup for setup in setups}
    for level, setup in by_level.items():
        above = level + 1
        if setup.config.upper and above not in by_level and not board.finished(above):
            raise ConfigError(
                f"Level {level} is made from the codes of level {above}, which {out} lacks; "
                f"name both in --levels, or --upsample a directory that has them."
            )
    page, seconds = out / "index.html", round(job.seconds * config.sample_rate)
    sounds = {
        level: sound.GrowingSounds(model, sample, level, board.codes[level], seconds)
        for level in by_level
        if not (board.finished(level) and sample.has_sound(level))
    }
    for level, priors in make(board, setups, folder, model, mesh, stream):
        if level in sounds:
            sounds[level].grow(board.done(level))
        if not board.finished(level):
            continue
        sung = with_words(by_level[level].config, job)
        if sung and not is_aligned(sample, level, sung):
            if level not in priors:
                priors[level] = load_prior(folder, mesh, model, level, job.weights)
            align_sample(sample, job, samples, folder, priors[level], mesh)
        page = write_page(out)
    return page


@cli.command
def main(arguments: list[str]) -> None:
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.sample")
    if command.presets:
        print(plan_presets(command))
        return
    request = make_request(command)
    page = run(request, command.out, command.stream, command.plan, command.mesh)
    if page:
        print(f"Listen: {page}")


if __name__ == "__main__":
    main(sys.argv[1:])

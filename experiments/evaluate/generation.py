"""The suite `generation`: how samples are distributed beside real songs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.evaluate import generation_sets as sets
from experiments.evaluate.generation_report import figures, scores, tables
from experiments.evaluate.subject import Lacking, Result, Subject, Suite
from jukejax.config import ConfigError
from jukejax.evaluation import frechet
from jukejax.evaluation.embedding import Embedder
from jukejax.evaluation.label_check import consistency
from jukejax.evaluation.musicnn import Musicnn
from jukejax.evaluation.sounds import LevelCounts
from jukejax.evaluation.wheels import NotFetched

EMBEDDERS: dict[str, Callable[[], Embedder]] = {
    "musicnn-mtt": functools.partial(Musicnn, "MTT"),
    "musicnn-msd": functools.partial(Musicnn, "MSD"),
}
REAL, HELD_OUT, SAMPLES = "training songs", "held-out songs", "samples"


def embedder(subject: Subject) -> Embedder:
    """The network that `--embedder` names; Lacking where its weights or a package are not here."""
    if subject.embedder not in EMBEDDERS:
        raise ConfigError(
            f"There is no embedder {subject.embedder!r}; choose one of {', '.join(EMBEDDERS)}."
        )
    try:
        import onnxruntime  # noqa: F401
        import pyloudnorm  # noqa: F401
        import sklearn  # noqa: F401
        import soxr  # noqa: F401

        return EMBEDDERS[subject.embedder]()
    except ImportError as error:
        raise Lacking(f"{error}; this needs the extra: pip install 'jukejax[evaluate]'.") from error
    except NotFetched as error:
        raise Lacking(str(error)) from error


def measure(subject: Subject) -> Result:
    """Every set described once, and each beside the training songs."""
    network = embedder(subject)
    rate = subject.vqvae.config.sample_rate
    folders = subject.samples or (sets.make(subject),)
    level = max(sets.lowest(folder) for folder in folders)
    rebuilt = f"held-out, rebuilt from level {level}"
    sources = {
        REAL: lambda: sets.real(subject, "train"),
        HELD_OUT: lambda: sets.real(subject, "test"),
        rebuilt: lambda: sets.rebuilt(subject, level),
        SAMPLES: lambda: sets.sampled(subject, folders),
    }
    found = {}
    for name, items in sources.items():
        found[name] = subject.once(
            f"{subject.embedder} {name}",
            functools.partial(lambda n, i: sets.describe(i(), network, rate, n), name, items),
        )
        if len(found[name]["vectors"]) < 2:
            raise Lacking(
                f"The {name} hold fewer than two windows of {network.seconds:.2f} s, so they have "
                "no distribution to compare; give longer ones (--generate-seconds for samples)."
            )
    vectors = {name: np.array(part["vectors"]) for name, part in found.items()}
    songs = {name: np.array(part["songs"]) for name, part in found.items()}
    real = frechet.fit(vectors[REAL])
    counts = {name: _counts(part["counts"], rate) for name, part in found.items()}
    rows = {}
    for name in (HELD_OUT, rebuilt, SAMPLES):
        plain, limit, line = frechet.estimate(real, vectors[name], songs[name])
        rows[name] = {
            "n": len(vectors[name]),
            "sounds": len(found[name]["sounds"]),
            "fad": plain._asdict(),
            "fad_infinity": limit and limit._asdict(),
            "line": line and line._asdict(),
            "log_spectral_db": counts[REAL].distance(counts[name]),
            **frechet.neighbours(vectors[REAL], vectors[name]),
        }
    labels = {
        kind: consistency(
            _labelled(found[REAL], column),
            {name: _labelled(found[name], column) for name in (HELD_OUT, rebuilt, SAMPLES)},
        )
        for column, kind in enumerate(("artist", "genre"))
    }
    return {
        "embedder": network.name,
        "window": network.seconds,
        "real_n": len(vectors[REAL]),
        "level": level,
        "rate": rate,
        "sets": rows,
        "sounds": {name: _mean(part["sounds"]) for name, part in found.items()},
        "labels": labels,
        "tags": {
            "names": list(network.tags),
            **{name: part["tags"] for name, part in found.items()},
        },
        "folders": [str(folder) for folder in folders],
    }


def _counts(counts: Any, rate: int) -> LevelCounts:
    out = LevelCounts(rate)
    out.counts = np.array(counts)
    return out


def _labelled(part: dict[str, Any], column: int) -> tuple[Any, Any, list[str]]:
    labels = [row[column] for row in part["labels"]]
    return np.array(part["vectors"]), np.array(part["songs"]), labels


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over sounds; of what only some have, over those."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: np.mean([row[name] for row in rows if name in row], axis=0).tolist() for name in names
    }


def source(subject: Subject) -> dict[str, Any]:
    """The samples given, or what is to be sampled; raises Lacking without weights to embed with."""
    embedder(subject)
    return {"embedder": subject.embedder, **sets.source(subject)}


SUITE = Suite(
    title="Generation",
    about=(
        "How samples are distributed beside real songs. Fréchet audio distance (FAD) of embeddings "
        "hears what kind of music it is, up to 8 kHz; the log-spectral distance hears how much of "
        "each frequency there is, up to half the sample rate. Held-out songs show what another "
        "part of real music scores, rebuilt ones what the VQ-VAE alone costs."
    ),
    measure=measure,
    tables=tables,
    figures=figures,
    scores=scores,
    needs=("vqvae", "codes", "songs"),
    source=source,
)

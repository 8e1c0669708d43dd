"""The table of kept plans: presets x topologies, compiled again where the program has changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jukejax import files, presets
from jukejax.config import ConfigError, Experiment, MeshConfig, PriorExperiment
from jukejax.planning import plans, text
from jukejax.planning.plans import Plan, Target
from jukejax.planning.topologies import topology

_DEMO_LABELS = 8  # artists and genres of the demo's presets, which take theirs from the data


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    preset: str
    topology: str
    fsdp: int = 1
    tensor: int = 1
    batch: int | None = None  # None: the preset's
    slices: int = 1
    remat: str | None = None  # None: the preset's
    accumulate: int = 1
    windows: int | None = None  # windows that are decoded together; None: the train step
    weights: str = "float32"

    @property
    def name(self) -> str:
        """The stem of its file's name, different for every entry."""
        parts = [self.preset, self.topology.replace(":", "_")]
        parts += [f"{self.slices}_slices"] if self.slices > 1 else []
        parts += [f"remat_{self.remat}"] if self.remat else []
        if self.windows is None:
            parts += [f"batch_{self.batch}"] if self.batch else []
            parts += [f"accumulate_{self.accumulate}"] if self.accumulate > 1 else []
        else:
            parts += [f"decode_{self.windows}_{self.weights}"]
        return "-".join(parts)

    def experiment(self) -> Experiment:
        e: Any = presets.get(self.preset)
        if isinstance(e, PriorExperiment) and e.model.labels and not e.model.labels.artists:
            labels = replace(e.model.labels, artists=_DEMO_LABELS, genres=_DEMO_LABELS)
            e = replace(e, model=replace(e.model, labels=labels))
        if self.remat:
            e = replace(e, model=replace(e.model, remat=self.remat))
        mesh = MeshConfig(fsdp=self.fsdp, tensor=self.tensor)
        batch = self.batch or e.train.batch
        train = replace(e.train, batch=batch, accumulate=self.accumulate)
        return replace(e, mesh=mesh, train=train)

    def plan(self, known: Plan | None) -> Plan:
        """Its plan; `known` where the program is the same and it counts the evaluation."""
        chips = topology(self.topology, self.slices)
        target = Target(self.preset, self.experiment(), chips, self.windows, self.weights)
        return plans.with_evaluation(target, plans.make(target, known))


CHEAP = (
    Entry("demo_prior", "v5e:2x2", fsdp=4),
    Entry("demo_upsampler_level_0", "v5e:2x2", windows=4),
)
ENTRIES = (
    *CHEAP,
    Entry("prior_5b_lyrics", "v5e:16x16", fsdp=64),
    Entry("prior_5b_lyrics", "v5e:16x16", fsdp=64, batch=256),
    Entry("prior_5b_lyrics", "v5e:16x16", fsdp=64, slices=2),
    Entry("prior_5b_lyrics", "v5p:4x4x8", fsdp=8),
    Entry("prior_5b_lyrics", "v5p:4x4x8", fsdp=8, batch=256, remat="dots"),
    Entry("prior_5b_lyrics", "v6e:16x16", fsdp=64),
    Entry("prior_5b_lyrics", "v6e:16x16", fsdp=64, batch=256, remat="dots"),
    Entry("prior_5b_lyrics", "v4:4x4x8", fsdp=32, batch=256),
    Entry("prior_5b", "v5e:16x16", fsdp=64, batch=256, remat="attention"),
    Entry("prior_5b", "v5p:4x4x8", fsdp=8, batch=256, remat="dots"),
    Entry("prior_5b", "v6e:16x16", fsdp=64, batch=256, remat="dots"),
    Entry("prior_5b", "v4:4x4x8", fsdp=32, batch=256),
    Entry("prior_5b", "v5e:16x16", fsdp=64, slices=2),
    Entry("prior_1b_lyrics", "v5e:16x16", fsdp=16),
    Entry("upsampler_level_1", "v5e:8x8", fsdp=16),
    Entry("upsampler_level_0", "v5e:8x8", fsdp=16),
    Entry("vqvae", "v5p:4x4x4"),
    Entry("vqvae", "h100:8x8"),
    Entry("prior_5b", "h100:8", fsdp=8, batch=32),
    Entry("prior_5b", "h100:8x8", fsdp=8, batch=256),
    Entry("upsampler_level_0", "h100:8", fsdp=8, accumulate=3),
    Entry("prior_5b", "v5p:1x1x1", windows=4, weights="bfloat16"),
    Entry("prior_5b_lyrics", "v5e:2x2", tensor=4, windows=4, weights="bfloat16"),
    Entry("prior_1b_lyrics", "v5e:1x1", windows=4, weights="bfloat16"),
    Entry("upsampler_level_0", "v5e:1x1", windows=4),
    *(
        Entry(preset, topology, tensor=tensor, windows=windows, weights=weights)
        for preset, topology, tensor in (
            ("prior_5b", "v5e:2x2", 4), ("prior_5b", "v6e:1x1", 1),
            ("upsampler_level_0", "v6e:1x1", 1),
        )
        for windows, weights in ((1, "bfloat16"), (1, "int8"), (4, "bfloat16"), (16, "bfloat16"))
    ),
)  # fmt: skip


def load(entry: Entry, folder: Path) -> Plan | None:
    """The kept plan of an entry."""
    path = folder / f"{entry.name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def regenerate(folder: Path, names: Sequence[str], say: Callable[[str], None]) -> None:
    """Makes the plans of `names` (none: all) that are missing or of another program, and the table.

    Raises:
      ConfigError: a name is of no entry.
    """
    known = {entry.name: entry for entry in ENTRIES}
    for name in names or known:
        if name not in known:
            raise ConfigError(f"There is no plan {name!r}; known: {', '.join(known)}.")
        kept = load(known[name], folder)
        plan = known[name].plan(kept)
        say(f"{name}: {'unchanged' if plan is kept else 'compiled'}")
        if plan is not kept:
            files.write_json(folder / f"{name}.json", plan)
            files.write_text(folder / "README.md", markdown(folder))


def markdown(folder: Path) -> str:
    """The kept plans as a page of Markdown."""
    kept = [plan for entry in ENTRIES if (plan := load(entry, folder))]
    return text.markdown(kept)

"""The kept table of plans, `experiments/plans/`: presets x topologies, compiled again where the
program has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jukejax import costs, files, presets
from jukejax.config import ConfigError, Experiment, MeshConfig, PriorExperiment
from jukejax.planning.plans import Plan

FOLDER = Path(__file__).parent / "plans"
_DEMO_LABELS = 8  # artists and genres of the demo's presets here, which take them from the data


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    preset: str
    topology: str
    fsdp: int = 1
    tensor: int = 1
    batch: int | None = None  # the preset's
    slices: int = 1
    remat: str | None = None  # the preset's
    accumulate: int = 1
    windows: int | None = None  # decode that many; None: train
    weights: str = "float32"

    @property
    def name(self) -> str:
        """A file name that tells it from others."""
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
    Entry("vqvae", "v5e:8x8"),
    Entry("vqvae", "v5e:16x16"),
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


def load(entry: Entry, folder: Path = FOLDER) -> Plan | None:
    """The kept plan of an entry."""
    path = folder / f"{entry.name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def regenerate(
    make: Callable[[Entry, Plan | None], Plan], names: list[str], say: Callable[[str], Any],
    folder: Path = FOLDER,
) -> None:  # fmt: skip
    """Makes every plan (or those of `names`) that is missing or of another program, and the table.

    Args:
      make: (entry, kept plan) -> plan; gives the kept one back where the program is the same.

    Raises:
      ConfigError: a name of no entry.
    """
    known = {entry.name: entry for entry in ENTRIES}
    for name in names or known:
        if name not in known:
            raise ConfigError(f"There is no plan {name!r}; known: {', '.join(known)}.")
        kept = load(known[name], folder)
        plan = make(known[name], kept)
        say(f"{name}: {'unchanged' if plan is kept else 'compiled'}")
        if plan is not kept:
            files.write_json(folder / f"{name}.json", plan)
            files.write_text(folder / "README.md", table(folder))


def table(folder: Path = FOLDER) -> str:
    """The kept plans as Markdown."""
    train: list[Plan] = []
    decode: list[Plan] = []
    for entry in ENTRIES:
        plan = load(entry, folder)
        if plan is not None:
            (train if plan["what"] == "train" else decode).append(plan)
    lines = [
        "# Plans",
        "",
        "Compiled for chips that were not there; nothing here was run. `python -m "
        "experiments.compile plans` makes this again, and compiles only programs that changed. "
        "Peak: bytes on one device. 192 in 3: in three microbatches (`train.accumulate`). Step "
        "and MFU: what the compiler's cycles, HBM and interconnect cannot be faster than; a real "
        "step takes longer. Of GPUs the compiler estimates no cycles: there every operation is "
        "charged by the published peaks, which promises more than cycles do.",
        "",
        "## Train steps",
        "",
        "| preset | topology | data x fsdp x tensor | batch | remat | peak GiB | fits "
        "| step at least | tokens/s a device at most | MFU at most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_train_row(plan) for plan in train),
        "",
        "## Decoding, one token of every window",
        "",
        "| preset | topology | data x fsdp x tensor | windows | weights | peak GiB | fits "
        "| must be read GB | is read GB | tokens/s at most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_decode_row(plan) for plan in decode),
    ]
    return "\n".join(lines) + "\n"


def _where(plan: Plan) -> list[str]:
    slices = f"{plan['slices']} x " if plan["slices"] > 1 else ""
    sizes = plan["mesh"]
    mesh = f"{sizes['data']} x {sizes['fsdp']} x {sizes['tensor']}"
    return [plan["preset"], slices + plan["topology"], mesh]


def _fits(plan: Plan) -> list[str]:
    m = plan["memory"]
    peak = f"{m['peak'] / costs.GIB:.2f} of {m['chip'] / costs.GIB:.0f}"
    return [peak, "yes" if plan["fits"] else f"no, {m['short'] / costs.GIB:.2f} GiB lacking"]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _train_row(plan: Plan) -> str:
    parts = f" in {plan['accumulate']}" if "accumulate" in plan else ""
    cells = [*_where(plan), f"{plan['batch']}{parts}", plan["remat"] or "", *_fits(plan)]
    if not plan["fits"]:
        return _row([*cells, "", "", ""])
    rate = plan["tokens_per_step"] / plan["step_s"] / plan["devices"]
    return _row([*cells, f"{plan['step_s']:.3g} s", f"{rate:,.0f}", f"{plan['mfu_ceiling']:.1%}"])


def _decode_row(plan: Plan) -> str:
    cells = [*_where(plan), str(plan["windows"]), plan["weights"], *_fits(plan)]
    cells.append(f"{plan['read_bytes_per_token'] / 1e9:.3g}")
    if not plan["fits"]:
        return _row([*cells, "", ""])
    ceiling = f"{plan['tokens_per_s_ceiling']:,.0f}"
    return _row([*cells, f"{plan['hbm_bytes'] / 1e9:.3g}", ceiling])

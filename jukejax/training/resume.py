"""When a run may continue in a workdir, and when it may start from another run's weights.

Shapes alone cannot decide: weights of a model with another number of heads would load silently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jukejax.config import Experiment, LabelsConfig, PriorConfig, model_kind
from jukejax.errors import CheckpointError
from jukejax.label_kinds import KINDS
from jukejax.text.labels import TABLES, Vocabulary, labels_digest
from jukejax.training.checkpoint import Checkpoints, directory, load_experiment

Log = Callable[[str], None]
# fields that change how a model is trained, not what it computes: a new run may change them
TRAINING_ONLY = (
    "dtype", "remat", "layers", "loss", "codebook_decay", "restart_threshold", "unquantized",
    "discriminators", "channels",
)  # fmt: skip
# fields of the optimizer that a run may change when it continues: its state does not depend on them
SCHEDULE = ("learning_rate", "warmup_steps", "decay", "decay_start", "decay_steps", "gamma")


def check_continues(
    experiment: Experiment, note: dict[str, Any], workdir: str | Path, log: Log
) -> None:
    """Checks that a run can continue from the checkpoints in `workdir`, if there are any.

    Args:
      experiment: the run's settings.
      note: "fingerprint" and "labels": the VQ-VAE of the data's codes, the digest of its names.
      workdir: the run's.
      log: takes a sentence where the order of the data or the learning-rate schedule changes.

    Raises:
      CheckpointError: what differs, and what to do.
    """
    if not directory(workdir).is_dir():
        return
    with Checkpoints(workdir) as checkpoints:
        checkpoints.set_aside_damaged(log, ["config"])
        if checkpoints.latest is None:
            return
    before, before_note = load_experiment(workdir)
    if "origin" in before_note:
        raise CheckpointError(
            f"{workdir} has imported weights, which have no optimizer state to continue with; "
            f"give another --workdir and --start-from {workdir}."
        )
    before_note.setdefault("labels", note.get("labels"))
    schedule = {name: getattr(experiment.optimizer, name) for name in SCHEDULE}
    same_schedule = dataclasses.replace(before.optimizer, **schedule)
    if changed := differences(before.optimizer, same_schedule):
        log(f"The learning-rate schedule changes from here on: {changed}.")
    before = dataclasses.replace(before, optimizer=same_schedule)
    then, now = (x.get("base", "no other run") for x in (before_note, note))
    if then != now:
        raise CheckpointError(
            f"{workdir} has adapters of the weights of {then}, not of {now}; give an empty "
            "workdir, or that run as --start-from."
        )
    for name in ("model", "optimizer", "samples", "downmix", "label_dropout", "lora"):
        then, now = (getattr(e, name, None) for e in (before, experiment))
        if then != now:
            raise CheckpointError(
                f"{workdir} has a run with another {name} ({differences(then, now)}); choose an "
                "empty workdir, or the settings of that run."
            )
    for name, what in (("fingerprint", "codes of VQ-VAE"), ("labels", "label names with digest")):
        if before_note.get(name) != note.get(name):
            raise CheckpointError(
                f"{workdir} was trained on {what} {before_note.get(name)}, but the data has "
                f"{note.get(name)}; choose an empty workdir, or the data of that run."
            )
    for name in ("batch", "seed"):
        then, now = getattr(before.train, name), getattr(experiment.train, name)
        if then != now:
            log(
                f"train.{name} was {then} and is {now}: the order of the data changes, and some "
                "examples may be seen again."
            )


def check_start(
    experiment: Experiment,
    note: dict[str, Any],
    start_from: str | Path,
    log: Log,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Checks that a new run can start from the weights of the run in `start_from`.

    The tables of label names may have grown, if `vocabulary` begins with the old names. The other
    arguments are those of `check_continues`.

    Raises:
      CheckpointError: what differs, and what to do.
    """
    before, before_note = load_experiment(start_from)
    then, now = before.model, _comparable(experiment.model, before.model)
    if now != then:
        raise CheckpointError(
            f"{start_from} has weights of another model ({differences(then, now)}); choose its "
            "preset and its --model settings."
        )
    if before_note.get("fingerprint") != note.get("fingerprint"):
        raise CheckpointError(
            f"{start_from} was trained on codes of VQ-VAE {before_note.get('fingerprint')}, but "
            f"the data has codes of {note.get('fingerprint')}; encode the songs with the VQ-VAE "
            "of those weights."
        )
    if isinstance(now, PriorConfig) and now.labels != getattr(experiment.model, "labels", None):
        assert vocabulary is not None and now.labels is not None
        old = vocabulary.first(**{name: getattr(now.labels, name) for name in TABLES})
        if before_note.get("labels") != labels_digest(old, now.labels):
            raise CheckpointError(
                f"{start_from} has fewer label names, and the names do not begin with its own: its "
                "embeddings would be given to other names. Grow its labels.json (`jukejax "
                "labels grow`) and give the result as --labels."
            )
        log(f"There are more label names than in {start_from}; the embeddings of its own are kept.")
    elif before_note.get("labels") != note.get("labels"):
        log(
            f"The label names are not those of {start_from}: artists and genres are learned from "
            "scratch. Give --labels with its labels.json to keep them."
        )


def _comparable(now: Any, then: Any) -> Any:
    """`now` with what a new run may change taken from `then`: `TRAINING_ONLY`, sizes of tables."""
    if type(now) is not type(then):
        return now
    names = [name for name in TRAINING_ONLY if hasattr(then, name)]
    now = dataclasses.replace(now, **{name: getattr(then, name) for name in names})
    if not isinstance(then, PriorConfig) or then.labels is None or now.labels is None:
        return now
    return dataclasses.replace(now, labels=_before_growing(now.labels, then.labels))


def _before_growing(now: LabelsConfig, then: LabelsConfig) -> LabelsConfig:
    """`now` with the sizes of the tables that have as many rows as in `then`, or more."""
    sizes = {name: getattr(then, name) for name in TABLES}
    sizes = {name: rows for name, rows in sizes.items() if rows <= getattr(now, name)}
    places = {
        kind.most: getattr(then, kind.most)
        for kind in KINDS
        if kind.optional and kind.most and not getattr(then, kind.table)
    }
    return dataclasses.replace(now, **sizes, **places)


def differences(before: Any, now: Any, name: str = "") -> str:
    """The fields in which two configs differ, as "width 16, now 32"."""
    if not dataclasses.is_dataclass(before) or type(before) is not type(now):
        if dataclasses.is_dataclass(before) and not name:
            before, now = model_kind(type(before)), model_kind(type(now))
        return f"{name} {before}, now {now}".strip()
    fields = [f.name for f in dataclasses.fields(before)]
    pairs = [(getattr(before, field), getattr(now, field), field) for field in fields]
    return "; ".join(differences(*pair) for pair in pairs if pair[0] != pair[1])

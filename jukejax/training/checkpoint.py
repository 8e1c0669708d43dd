"""Orbax checkpoints: one Composite a step, of separate items.

Items: `params`, `ema`, `opt_state`, `extra` (a VQ-VAE's codebooks and loudness), `data` (the step,
which is all that step-addressable data needs) and `config` (the experiment, the name of the run,
the fingerprint of the codes). Separate items let a reader take the parameters alone. Orbax writes
to a temporary directory and renames it, so an interrupted save is never taken for a checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jukejax.config import Experiment, PriorExperiment, VQVAEExperiment, from_dict
from jukejax.errors import CheckpointError

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs a dozen lines a save

Array = np.ndarray[Any, Any]
LeafPath = tuple[str, ...]  # keys from the root of a tree to a leaf
TREES = ("params", "ema", "opt_state", "extra")
_EXPERIMENTS: dict[str, type] = {k.__name__: k for k in (VQVAEExperiment, PriorExperiment)}


def directory(workdir: str | Path) -> Path:
    """The folder of a run's checkpoints (absolute, as Orbax requires)."""
    return Path(workdir).resolve() / "checkpoints"


class Checkpoints:
    """The checkpoints of one run. A context manager; saving is asynchronous until `close`."""

    def __init__(
        self,
        workdir: str | Path,
        keep: int = 3,
        *,
        keep_best: int = 0,
        clean: bool = False,
        frugal: bool = False,
    ) -> None:
        """Opens the checkpoints of a run, or makes their folder.

        Args:
          workdir: the run's.
          keep: number of latest checkpoints to keep.
          keep_best: number of checkpoints of lowest loss to keep as well.
          clean: whether to remove the remains of interrupted saves; only for the run itself.
          frugal: whether to write and read one GB at a time, where memory is short.
        """
        best = BestN(
            get_metric_fn=_loss, reverse=True, n=keep_best, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
            best_fn=_loss,
            best_mode="min",
            create=True,
            cleanup_tmp_directories=clean,
        )
        self.path = directory(workdir)
        self._manager = ocp.CheckpointManager(
            self.path,
            options=options,
            item_names=None if frugal else (*TREES, "data", "config"),
            item_handlers=_frugal_handlers() if frugal else None,
        )

    @property
    def latest(self) -> int | None:
        """The step of the latest complete checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step of lowest loss among those saved with a loss, or None."""
        return self._manager.best_step()

    def save(
        self,
        step: int,
        trees: dict[str, Any],
        config: dict[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Saves trees (named as in `TREES`; empty ones are omitted) and the config, once per step.

        `metrics` has the held-out "loss" by which `keep_best` chooses.
        """
        if self.latest == step:
            return
        items: dict[str, Any] = {
            name: ocp.args.StandardSave(tree)
            for name, tree in trees.items()
            if jax.tree.leaves(tree)
        }
        items["data"] = ocp.args.JsonSave({"step": step})
        items["config"] = ocp.args.JsonSave(config)
        if metrics is not None and not np.isfinite(metrics["loss"]):
            metrics = None
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def config(self, step: int | None = None) -> dict[str, Any]:
        """The config saved at `step` (default: the latest)."""
        step = self._require() if step is None else step
        args = ocp.args.Composite(config=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["config"]

    def restore(self, abstract: dict[str, Any], step: int | None = None) -> dict[str, Any]:
        """The trees named in `abstract`, each with the shapes and shardings it gives."""
        step = self._require() if step is None else step
        args = {
            name: ocp.args.StandardRestore(tree)
            for name, tree in abstract.items()
            if jax.tree.leaves(tree)
        }
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"The checkpoint {self.path}/{step} does not fit this model "
                f"({str(error).splitlines()[0][:200]})."
            ) from error
        return {name: restored[name] if name in args else tree for name, tree in abstract.items()}

    def ema_shapes(self) -> dict[str, Any]:
        """The tree of shapes of the latest `ema`, without reading its arrays."""
        with self._latest_ema() as (_, _, tree):
            return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)

    @contextlib.contextmanager
    def ema_reader(self) -> Iterator[Callable[[Sequence[LeafPath]], list[Array]]]:
        """A function that reads the given arrays of the latest `ema`, in their stored dtypes.

        bfloat16, which numpy lacks, is returned as float32. Reading a few arrays at a time keeps
        the others out of memory; each call costs a tenth of a second.
        """
        with self._latest_ema() as (checkpointer, folder, tree):
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)

            def read(paths: Sequence[LeafPath]) -> list[Array]:
                wanted = jax.tree.map(lambda _: ocp.PLACEHOLDER, tree)
                for *parents, last in paths:
                    _at(wanted, parents)[last] = 0
                args = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy)
                ema = checkpointer.restore(folder, args=args)
                arrays = [_at(ema, path) for path in paths]
                return [a.astype(np.float32) if a.dtype.name == "bfloat16" else a for a in arrays]

            yield read

    @contextlib.contextmanager
    def _latest_ema(self) -> Iterator[tuple[ocp.Checkpointer, Path, Any]]:
        """A checkpointer, the folder of the latest `ema` and the tree of its arrays' metadata."""
        folder = self.path / str(self._require()) / "ema"
        with contextlib.closing(ocp.PyTreeCheckpointer()) as checkpointer:
            metadata: Any = checkpointer.metadata(folder)
            yield checkpointer, folder, metadata.item_metadata.tree

    def _require(self) -> int:
        if self.latest is None:
            raise CheckpointError(
                f"{self.path} has no complete checkpoint; train there first, or name another run."
            )
        return self.latest

    def wait(self) -> None:
        """Waits until all saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _loss(metrics: dict[str, float]) -> float:
    return metrics["loss"]


def _at(tree: Any, path: Sequence[str]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _frugal_handlers() -> dict[str, Any]:
    trees = {
        name: ocp.StandardCheckpointHandler(
            save_concurrent_gb=1, restore_concurrent_gb=1, use_ocdbt=False
        )
        for name in TREES
    }
    return {**trees, "data": ocp.JsonCheckpointHandler(), "config": ocp.JsonCheckpointHandler()}


@contextlib.contextmanager
def _numpy_uncopied() -> Iterator[None]:
    """Makes Orbax save numpy arrays without copying them first, so that they may be memory maps."""
    usual = type_handlers.get_type_handler(np.ndarray)
    lean = type_handlers.NumpyHandler(deepcopy_host_arrays=False)
    type_handlers.register_type_handler(np.ndarray, lean, override=True)
    try:
        yield
    finally:
        type_handlers.register_type_handler(np.ndarray, usual, override=True)


def save_mapped(
    workdir: str | Path, step: int, trees: dict[str, Any], config: dict[str, Any]
) -> None:
    """Saves trees of numpy arrays, which may be memory maps larger than memory."""
    with _numpy_uncopied(), Checkpoints(workdir, frugal=True) as checkpoints:
        checkpoints.save(step, trees, config)
        checkpoints.wait()


def open_existing(workdir: str | Path, frugal: bool = False) -> Checkpoints:
    """The checkpoints of an existing run, for reading (`frugal`: one GB at a time).

    Raises:
      CheckpointError: there are none.
    """
    if not directory(workdir).is_dir():
        raise CheckpointError(f"{workdir} is no run: it has no folder checkpoints.")
    return Checkpoints(workdir, frugal=frugal)


def load_experiment(workdir: str | Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a run's latest checkpoint, and the note saved beside it with its step."""
    with open_existing(workdir) as checkpoints:
        note = {**checkpoints.config(), "step": checkpoints.latest}
    data = note.pop("experiment")
    return from_dict(_EXPERIMENTS[data["type"]], data, f"{workdir}: config"), note

"""Orbax checkpoints: one Composite a step, of separate items.

Items: `params`, `ema`, `opt_state`, `extra` (a VQ-VAE's codebooks and loudness, a renderer's frozen
encoder), `spikes` (moments of the loss, where a run skips its spikes), `data` (the step, which is
all that step-addressable data needs) and `config` (the experiment, the name of the run, the
fingerprint of the codes). Separate items let a reader take the parameters alone. Orbax writes to a
temporary directory and renames it, so an interrupted save is never taken for a checkpoint.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jukejax import stored
from jukejax.config import (
    Experiment,
    PriorExperiment,
    RendererExperiment,
    VQVAEExperiment,
    from_dict,
)
from jukejax.disk_space import checked_space
from jukejax.errors import CheckpointError, DamagedCheckpoint
from jukejax.parallel.distributed import together
from jukejax.training import digests
from jukejax.training.packed import Array, LeafPath, Packed

logging.getLogger("absl").setLevel(logging.CRITICAL)  # what Orbax logs as errors, it raises

TREES = ("params", "ema", "opt_state", "extra", "spikes")
_BLOCK = 4096  # bytes in which most file systems allot space
_COPY = "replace the checkpoint by a copy."
_NOTE: dict[str, stored.Types] = {"fingerprint": str, "run": str}
_EXPERIMENTS: dict[str, type] = {
    k.__name__: k for k in (VQVAEExperiment, PriorExperiment, RendererExperiment)
}


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
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
        )
        self.path = directory(workdir)
        _check_metrics(self.path)
        self._saving = 0  # the step that is being saved
        self._whole: set[tuple[int, str]] = set()  # steps and items that fit their digests
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
        self.wait()  # as Orbax would: one save at a time
        self._saving = step
        items: dict[str, Any] = {
            name: ocp.args.StandardSave(tree)
            for name, tree in trees.items()
            if jax.tree.leaves(tree)
        }
        items["data"] = ocp.args.JsonSave({"step": step})
        items["config"] = ocp.args.JsonSave(config)
        if metrics is not None and not np.isfinite(metrics["loss"]):
            metrics = None
        # before Orbax begins: where it finds no space, its threads print hundreds of stack traces
        with checked_space(self.path, _most_bytes(trees)):
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def _write_digests(self) -> None:
        """Called by Orbax when all files of a step are written, before it renames their folder."""
        digests.write_digests(self.path / f"{self._saving}.orbax-checkpoint-tmp")

    def _check(self, step: int, items: Iterable[str]) -> None:
        """Raises DamagedCheckpoint if items of a step are not as they were saved."""
        unchecked = [item for item in items if (step, item) not in self._whole]
        if damage := digests.damage(self.path / str(step), unchecked):
            earlier = [str(s) for s in sorted(self._manager.all_steps()) if s < step]
            raise DamagedCheckpoint(
                f"The checkpoint {self.path / str(step)} is damaged: {damage}. Replace it by a "
                "copy, "
                + (f"or move it away to use step {earlier[-1]}, " if earlier else "")
                + f"or set {digests.SKIP}=1 to read it as it is."
            )
        self._whole |= {(step, item) for item in unchecked}

    def set_aside_damaged(
        self, log: Callable[[str], None], items: Sequence[str] = (*TREES, "config")
    ) -> None:
        """Moves the latest checkpoints out of the run until `items` of the latest are whole.

        They are moved to the folder `damaged` of the run. Each is a line in the log. All processes
        of the run must call this.

        Raises:
          DamagedCheckpoint: no earlier checkpoint remains.
        """
        while (step := self.latest) is not None:
            try:
                return self._check(step, items)
            except DamagedCheckpoint as error:
                if len(self._manager.all_steps()) == 1:
                    raise
                reason = str(error).split(". ")[0]
            target = _unused(self.path.parent / "damaged" / str(step))
            together("damage seen")
            if jax.process_index() == 0:
                target.parent.mkdir(exist_ok=True)
                (self.path / str(step)).rename(target)
            together("damaged checkpoint moved")
            self._manager.reload()
            log(f"WARNING: {reason}. It is now {target}; continuing from step {self.latest}.")

    def config(self, step: int | None = None) -> dict[str, Any]:
        """The config saved at `step` (default: the latest).

        Raises:
          DamagedCheckpoint: it is not what was saved.
        """
        step = self._require() if step is None else step
        self._check(step, ["config"])
        args = ocp.args.Composite(config=ocp.args.JsonRestore())
        try:
            return self._manager.restore(step, args=args)["config"]
        except ValueError as error:
            where = self.path / str(step)
            raise DamagedCheckpoint(
                f"The config of {where} is damaged ({error}); {_COPY}"
            ) from error

    def has(self, item: str) -> bool:
        """Whether the latest checkpoint has an item."""
        return (self.path / str(self.latest) / item).is_dir()

    def restore(self, abstract: dict[str, Any], step: int | None = None) -> dict[str, Any]:
        """The trees named in `abstract`, each with the shapes and shardings it gives.

        Raises:
          DamagedCheckpoint: their files are not those that were saved.
          CheckpointError: they have other shapes or names.
        """
        step = self._require() if step is None else step
        self._check(step, abstract)
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
                    at(wanted, parents)[last] = 0
                args = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy)
                ema = checkpointer.restore(folder, args=args)
                arrays = [at(ema, path) for path in paths]
                return [a.astype(np.float32) if a.dtype.name == "bfloat16" else a for a in arrays]

            yield read

    @contextlib.contextmanager
    def _latest_ema(self) -> Iterator[tuple[ocp.Checkpointer, Path, Any]]:
        """A checkpointer, the folder of the latest `ema` and the tree of its arrays' metadata."""
        step = self._require()
        self._check(step, ["ema"])
        folder = self.path / str(step) / "ema"
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
        with checked_space(self.path):
            self._manager.wait_until_finished()

    def close(self) -> None:
        with checked_space(self.path):
            self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_metrics(path: Path) -> None:
    """Raises DamagedCheckpoint if losses are damaged, which Orbax reads of all steps at once."""
    for losses in sorted(path.glob("*/metrics")):
        if damage := digests.damage(losses.parent, ["metrics"], shared=False):
            raise DamagedCheckpoint(
                f"The checkpoint {losses.parent} is damaged: {damage}. Remove the folder {losses}; "
                "it has the held-out loss, by which train.keep_best chooses, and no weights."
            )


def _unused(path: Path) -> Path:
    """`path`, or if it exists the first of `path`-1, `path`-2... that does not."""
    names = itertools.chain([path.name], (f"{path.name}-{k}" for k in itertools.count(1)))
    return next(p for p in map(path.with_name, names) if not p.exists())


def _loss(metrics: dict[str, float]) -> float:
    return metrics["loss"]


def at(tree: Any, path: Sequence[str]) -> Any:
    """The leaf, or tree, of a tree of dicts at `path`."""
    for part in path:
        tree = tree[part]
    return tree


def _most_bytes(trees: Any) -> int:
    """Bytes on disk of a checkpoint of trees, at most: arrays, and blocks of each shard's files."""
    leaves = jax.tree.leaves(trees)
    shards = sum(len(getattr(leaf, "addressable_shards", "1")) for leaf in leaves)
    return sum(leaf.nbytes for leaf in leaves) + _BLOCK * (3 * len(leaves) + shards + 16)


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


def open_existing(workdir: str | Path, frugal: bool = False) -> Checkpoints | Packed:
    """The checkpoints of an existing run, for reading (`frugal`: one GB at a time).

    A file of a packed model in place of a workdir has the same reading methods.

    Raises:
      CheckpointError: there are none.
    """
    if Path(workdir).is_file():
        from jukejax.training import adapters  # which restores checkpoints

        path = Path(workdir)
        return adapters.Adapter(path) if path.name == adapters.NAME else Packed(path)
    if not directory(workdir).is_dir():
        raise CheckpointError(
            f"{workdir} is not a training run (no folder checkpoints); "
            "give a --workdir of `jukejax train`."
        )
    return Checkpoints(workdir, frugal=frugal)


def load_experiment(workdir: str | Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a run's latest checkpoint, and the note saved beside it with its step."""
    with open_existing(workdir) as checkpoints:
        note, step = checkpoints.config(), checkpoints.latest
    where = f"The config of {workdir}, step {step},"
    stored.check_fields(note, {"experiment": dict}, where, _COPY, _NOTE)
    note = {**note, "step": step}
    data = note.pop("experiment")
    if (kind := str(data.get("type"))) not in _EXPERIMENTS:
        raise CheckpointError(f"{workdir} is the run of a {kind:.80}; {_COPY}")
    return from_dict(_EXPERIMENTS[data["type"]], data, f"{workdir}: config"), note

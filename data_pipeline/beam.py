"""Writing the shards of a plan by an Apache Beam pipeline: `build_shard` on any runner.

Every worker must find the manifest, the sound files and the data set under the same paths. Shards
that are there already are left out, so a pipeline that was killed is started again like any run.
"""

from collections.abc import Sequence

from data_pipeline.plan import Plan, ShardTask
from data_pipeline.shards import build_shard
from jukejax.errors import DataError


def run_tasks(plan: Plan, runner: str, flags: Sequence[str]) -> None:
    """Writes the shards still to be written; returns once they are.

    Args:
      plan: what to write.
      runner: a name that Beam knows, such as "DirectRunner" or "PortableRunner".
      flags: Beam's own, such as "--direct_num_workers=2" or "--environment_type=LOOPBACK".

    Raises:
      DataError: Beam is not installed, or the pipeline failed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise DataError(
            f"--runner needs Apache Beam ({error}); install it with pip install -e '.[beam]', or "
            "leave --runner out and give --workers"
        ) from error
    pending = [task for task in plan if task.finished() is None]
    if not pending:
        return
    try:
        options = PipelineOptions([f"--runner={runner}", *flags])
        with beam.Pipeline(options=options) as pipeline:
            tasks = pipeline | "shards" >> beam.Create(pending, reshuffle=False)
            spread = tasks | "spread over workers" >> beam.Reshuffle()
            spread | "decode and write" >> beam.Map(_build)
    except Exception as error:  # runners raise many kinds
        raise DataError(
            f"the Beam pipeline on {runner} failed ({error}); the finished shards are kept: run "
            "the same command again"
        ) from error


def _build(task: ShardTask) -> str:
    """Writes a shard and its note; the shard's name."""
    build_shard(task)
    return task.path.name

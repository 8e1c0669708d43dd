"""Writes the shards of a plan in an Apache Beam pipeline: `build_shard` on any runner.

Every worker needs the manifest, the sound files and the data set under the same paths. Finished
shards are skipped, so an interrupted pipeline is continued by the same command.
"""

from data_pipeline.plan import Plan, ShardTask
from data_pipeline.shards import build_shard
from jukejax.errors import DataError


def run_tasks(plan: Plan, runner: str, *flags: str) -> None:
    """Writes the missing shards; returns when all are complete.

    Args:
      plan: the shards.
      runner: a Beam runner, such as "DirectRunner" or "PortableRunner".
      flags: of Beam, such as "--direct_num_workers=2" or "--environment_type=LOOPBACK".

    Raises:
      DataError: Beam is not installed, or the pipeline failed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise DataError(
            f"--runner needs Apache Beam ({error}); install it with pip install -e '.[beam]', or "
            "use --workers instead"
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
    """Writes a shard and its note; returns the shard's name."""
    build_shard(task)
    return task.path.name

"""Errors that users can mend: each message says what is wrong, where, and how to mend it."""


class JukejaxError(ValueError):
    """The root of the errors that a command prints as one sentence and a caller may catch."""


class ConfigError(JukejaxError):
    """A config or an option has a value that is not possible."""


class CheckpointError(JukejaxError):
    """A checkpoint or a model directory is missing, damaged or of another model."""


class DamagedCheckpoint(CheckpointError):
    """The files of a checkpoint are not those that were saved."""


class DataError(JukejaxError):
    """Songs, labels, lyrics or prepared data are missing, damaged or do not fit."""


class InteropError(CheckpointError):
    """A file of another project cannot be imported, or a model cannot be exported to its format."""


class FolderInUse(JukejaxError):
    """Another process writes to the folder, or holds the file, that a command is to write."""


class DiskFull(JukejaxError, OSError):
    """There is no space left on the disk that a file is written to."""


class Diverged(JukejaxError):
    """Training stopped after `step`: too many steps in a row were skipped."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Interrupted(Exception):
    """Training was stopped by Ctrl-C after saving. No mistake: the same command continues it."""


class Preempted(Interrupted):
    """Training was stopped by SIGTERM after saving: the machine is needed elsewhere."""

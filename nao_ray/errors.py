"""Everything nao_ray raises on purpose, one class per thing a caller can act on.

    NaoRayError
    |-- InputError            the user's input is at fault (exit code 2)
    |   |-- ConfigError       a configuration file, or a ``--set`` of one
    |   |-- GenotypeError     a genotype, its text or its tokens
    |   |-- DataError         a data folder or table
    |   |   `-- MissingDataError  files of it are not there
    |   |-- PoolError         a pool that is not what the command expects
    |   `-- ClusterError      an address, a token, a job or code that is not a cluster's
    `-- RunError              the run failed (exit code 1)
        |-- StuckSearchError  the strategy proposes nothing, and nothing is running
        |-- NothingToAskError a study has nothing to ask now: tell it more first, or it is over
        |-- LoggerError       a logger of the search cannot log
        |-- StorageError      the pool's storage is in trouble; nothing is lost, it may be tried again
        |   |-- PoolReadError   it could not be read: a server that throttles, a stalled disk, no permission
        |   `-- PoolWriteError  it could not be written: a full or read-only disk
        |-- PoolGoneError     the pool's folder was removed under its driver
        `-- FencedError       another driver has taken over the pool

Every message is one line: what, where, what was expected, what to do. A search that was asked to end in order is no
error: `Drained` is an interrupt.
"""


class NaoRayError(Exception):
    """Base of every error that nao_ray raises on purpose."""


class InputError(NaoRayError):
    """The user's input is at fault; nothing was started."""


class ConfigError(InputError):
    """A configuration has an unknown key, a wrong type or an impossible value."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        """Where in the config, dotted; None: nowhere in particular."""


class GenotypeError(InputError):
    """A genotype cannot be read, or is not in its search space."""


class DataError(InputError):
    """A data set is missing, empty or unreadable."""


class MissingDataError(DataError):
    """Files of a data set are not there; others of it may be."""


class PoolError(InputError):
    """A pool is missing, malformed, or belongs to another search."""


class ClusterError(InputError):
    """A cluster is not where it was said to be, refuses the token, does not know the job, or runs other code."""


class RunError(NaoRayError):
    """A run that had started failed."""


class StuckSearchError(RunError):
    """The strategy proposes nothing although nothing is running and it is not done."""


class NothingToAskError(RunError):
    """A study has nothing to ask at the moment, or any more."""


class LoggerError(RunError):
    """A logger of the search cannot be reached or written."""


class StorageError(RunError):
    """The pool's storage is in trouble; nothing is lost, and the same may be tried again."""


class PoolReadError(StorageError):
    """The pool could not be read, though nothing says that it is damaged."""


class PoolWriteError(StorageError):
    """The pool could not be written."""


class PoolGoneError(RunError):
    """The pool was removed or moved under its driver."""


class FencedError(RunError):
    """Another driver holds the pool's lease."""


class Drained(KeyboardInterrupt):
    """The search was asked to begin nothing further, and what ran has ended, or had its time; the pool is resumable."""

"""Everything that can go wrong, as a tree. Each error says what happened, the way out, and which request it was."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor

__all__ = [
    "AlreadyExists",
    "CallFailed",
    "Closed",
    "ConfigurationError",
    "Conflict",
    "Denied",
    "EnvMismatch",
    "Exhausted",
    "IdentityError",
    "Infeasible",
    "InterpreterDied",
    "InvalidArgument",
    "JobFailed",
    "MillgridError",
    "MissingModule",
    "NotFound",
    "Refused",
    "RemoteError",
    "RemoteTraceback",
    "ResultLost",
    "StorageError",
    "TimedOut",
    "Unavailable",
    "Unpicklable",
    "Unreachable",
    "WaitTimeout",
]


class MillgridError(Exception):
    """The root of all errors of this package.

    Attributes:
        message: One sentence that names the thing.
        hint: The way out; may be empty.
        reason: The machine's word, e.g. ``JOB_NOT_FOUND``; may be empty.
        field: The option or field at fault; may be empty.
        request_id: Of the write that failed; empty for reads. Repeating it under this id is safe.
    """

    def __init__(
        self, message: str, *, hint: str = "", reason: str = "", field: str = "", request_id: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason
        self.field = field
        self.request_id = request_id

    def __str__(self) -> str:
        text = self.message
        if self.hint:
            text += f"\nhint: {self.hint}"
        if self.request_id:
            text += f"\nrequest: {self.request_id}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return (_again, (type(self), self.message, self.__dict__))


def _again(kind: type[MillgridError], message: str, attributes: dict[str, object]) -> MillgridError:
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    error.__dict__.update(attributes)
    return error


class ConfigurationError(MillgridError):
    """No grid is chosen, or the context, a certificate or a file of this side can't be used."""


class IdentityError(MillgridError):
    """The certificates of the two sides don't go together."""


class Unreachable(MillgridError):
    """No coordinator could be reached: in the time given, or at once where none ever was and nobody listens."""


class Unavailable(MillgridError):
    """Coordinators were reached, but none had a leader, or none would take the call."""


class TimedOut(MillgridError, TimeoutError):
    """A coordinator was reached, but had no answer in the time given."""


class WaitTimeout(MillgridError, TimeoutError):
    """The time to wait ran out. The job goes on."""


class Closed(MillgridError, BrokenExecutor):
    """The client was closed while something waited for the grid. Jobs go on."""


class Refused(MillgridError):
    """The grid answered, and said no."""


class InvalidArgument(Refused, ValueError):
    """What was asked for can't be meant; `field` names the option."""


class NotFound(Refused, LookupError):
    """There is no such job, task, queue, worker or object."""


class Denied(Refused, PermissionError):
    """This certificate may not do that."""


class Conflict(Refused):
    """The thing is in a state in which this can't be done."""


class AlreadyExists(Conflict):
    """The name is taken, or the request id was used for something else."""


class Infeasible(Conflict):
    """No pool could ever run the job."""


class Exhausted(Refused):
    """A limit of the grid is reached."""


class StorageError(MillgridError):
    """S3 said no, isn't configured, or the extra `millgrid[s3]` is missing."""


class JobFailed(MillgridError):
    """A job didn't succeed.

    Attributes:
        job_id: Its number.
        state: ``failed``, ``cancelled`` or ``skipped``.
        cause: Why it ended, e.g. ``exit_code``, ``out_of_memory``.
        exit_code: Of an array the highest of what failed; `None` if none ended with one.
        log_tail: The last lines of the first task that failed.
    """

    job_id: int
    state: str
    cause: str | None
    exit_code: int | None
    log_tail: str

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\nits last lines:\n{self.log_tail.rstrip()}" if self.log_tail else text


class CallFailed(MillgridError):
    """A call of a function brought no result, though the function raised nothing."""


class EnvMismatch(CallFailed):
    """The Python of the worker isn't the client's."""


class MissingModule(CallFailed, ImportError):
    """The function needs a module that the worker's Python doesn't have."""


class Unpicklable(CallFailed, TypeError):
    """A function, an argument or a result can't be sent."""


class InterpreterDied(CallFailed):
    """A call ended its interpreter."""


class ResultLost(CallFailed):
    """The task succeeded, but its result died with the worker before it was stored."""


class RemoteError(CallFailed):
    """A function raised something that can't be unpickled here; the text is the remote traceback."""


class RemoteTraceback(Exception):  # noqa: N818 - as in concurrent.futures
    """The cause of an exception that a function raised: its traceback where it ran, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'

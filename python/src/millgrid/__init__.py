"""The Millgrid batch grid from Python: jobs, arrays and functions, with `concurrent.futures`.

>>> import millgrid
>>> client = millgrid.Client()                      # a context, MILLGRID_ENDPOINT, or a running `millgrid dev`
>>> job = client.submit(["echo", "hello"])
>>> print(*job.wait().logs())
hello
"""

from ._aio import AsyncClient, AsyncFlow, AsyncJob
from ._calls.calls import GridFuture
from ._calls.executor import GridExecutor
from ._calls.inline import InlineExecutor
from ._calls.payload import CallOptions
from ._calls.remote import Calls, RemoteFunction, remote
from ._calls.results import Outcome
from ._client import Client
from ._default import configure
from ._dev import DevClient, DevGrid, dev
from ._env import Env
from ._errors import (
    AlreadyExists,
    CallFailed,
    Closed,
    ConfigurationError,
    Conflict,
    Denied,
    EnvMismatch,
    Exhausted,
    IdentityError,
    Infeasible,
    InterpreterDied,
    InvalidArgument,
    JobFailed,
    MillgridError,
    MissingModule,
    NotFound,
    Refused,
    RemoteError,
    RemoteTraceback,
    ResultLost,
    StorageError,
    TimedOut,
    Unavailable,
    Unpicklable,
    Unreachable,
    WaitTimeout,
)
from ._flow import Flow, FlowCall, FlowJob
from ._jobs import Job
from ._logs import LogLine
from ._plot import Plot
from ._spec import Needs, Options, Output
from ._views import (
    Attempt,
    Event,
    Explanation,
    FailureGroup,
    JobInfo,
    OutputObject,
    Plan,
    Queue,
    Reason,
    Task,
    TaskCounts,
    Tasks,
    Worker,
)

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "AsyncFlow",
    "AsyncJob",
    "Attempt",
    "CallFailed",
    "CallOptions",
    "Calls",
    "Client",
    "Closed",
    "ConfigurationError",
    "Conflict",
    "Denied",
    "DevClient",
    "DevGrid",
    "Env",
    "EnvMismatch",
    "Event",
    "Exhausted",
    "Explanation",
    "FailureGroup",
    "Flow",
    "FlowCall",
    "FlowJob",
    "GridExecutor",
    "GridFuture",
    "IdentityError",
    "Infeasible",
    "InlineExecutor",
    "InterpreterDied",
    "InvalidArgument",
    "Job",
    "JobFailed",
    "JobInfo",
    "LogLine",
    "MillgridError",
    "MissingModule",
    "Needs",
    "NotFound",
    "Options",
    "Outcome",
    "Output",
    "OutputObject",
    "Plan",
    "Plot",
    "Queue",
    "Reason",
    "Refused",
    "RemoteError",
    "RemoteFunction",
    "RemoteTraceback",
    "ResultLost",
    "StorageError",
    "Task",
    "TaskCounts",
    "Tasks",
    "TimedOut",
    "Unavailable",
    "Unpicklable",
    "Unreachable",
    "WaitTimeout",
    "Worker",
    "configure",
    "dev",
    "remote",
]

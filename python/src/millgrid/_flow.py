"""Several jobs with edges among themselves, submitted atomically."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from ._errors import MillgridError
from ._grammar import refuse
from ._jobs import Job
from ._spec import Options, build
from ._wire import SUBMIT_JOBS, jobs, request_id

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._client import Client

T = TypeVar("T")

_CONDITIONS = {
    "after": jobs.DEPENDENCY_CONDITION_SUCCESS,
    "after_any": jobs.DEPENDENCY_CONDITION_ANY,
    "after_failed": jobs.DEPENDENCY_CONDITION_FAILURE,
    "after_element": jobs.DEPENDENCY_CONDITION_ELEMENT,
}


class FlowJob(Job):
    """A job of a flow. Its number is known once the flow is submitted, at the end of its `with` block."""

    def __init__(self, flow: Flow, position: int) -> None:
        self._flow = flow
        self._position = position
        self._client = flow._client
        self._known: jobs.Job | None = None
        self._id = 0

    @property
    def id(self) -> int:  # type: ignore[override]
        """Its number.

        Raises:
            MillgridError: The flow has not been submitted yet.
        """
        if not self._id:
            raise MillgridError("the flow has not been submitted", hint="leave its `with` block first")
        return self._id

    def __repr__(self) -> str:
        return f"<Job {self._id}>" if self._id else f"<job {self._position} of flow {self._flow.name}>"

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class FlowCall(FlowJob, Generic[T]):
    """A call of a function in a flow."""

    def result(self, timeout: float | None = None) -> T:
        """What it returned; waits for it.

        Raises:
            Whatever it raised, as itself; `JobFailed` if it never ran.
            WaitTimeout: Time ran out; the flow goes on.
        """
        if self.wait(timeout).state == "skipped":
            self.raise_for_status()
        (value,) = self.results()
        return cast(T, value)


class Flow:
    """Made by `Client.flow`. All jobs are accepted, or none is; nothing is submitted when the block raises."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self.jobs: list[FlowJob] = []
        self._client = client
        self._request = jobs.SubmitJobsRequest(request_id=request_id())
        self._submitted = False

    def __enter__(self) -> Flow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.jobs:
            self._submit()

    @overload
    def submit(self, what: Callable[..., T], /, *args: Any, **kwargs: Any) -> FlowCall[T]: ...
    @overload
    def submit(self, what: Sequence[str] | str, /, **options: Unpack[Options]) -> FlowJob: ...
    def submit(self, what: Any, /, *args: Any, **options: Any) -> FlowJob:
        """Adds a job of programs, with options, or a call of a function, with its arguments.

        Args:
            what: A command; options are those of `Client.submit`, and `after=` and its like take jobs of this flow,
                other jobs and numbers. Or a function, with its arguments: calls of this flow among them, at any depth,
                stand for their results, and are waited for. What a function needs is said with `@millgrid.remote`.
        Raises:
            InvalidArgument: An option can't be meant.
            StorageError: A call, and no place on S3, through which results go on.
        """
        if self._submitted:
            raise refuse("flow", f"the flow `{self.name}` was submitted already", "begin another")
        if callable(what):
            from ._calls.flows import add_call

            return add_call(self, what, args, options)
        if args:
            raise refuse("command", "arguments of a program belong into its list", 'e.g. `["echo", "hello"]`')
        return self._programs(what, cast(Options, options))

    def _programs(self, command: Sequence[str] | str, options: Options) -> FlowJob:
        edges: list[tuple[FlowJob, jobs.DependencyCondition, Sequence[int]]] = []
        rest: dict[str, Any] = dict(options)
        for name, condition in _CONDITIONS.items():
            asked = rest.pop(name, ())
            refs = list(asked) if isinstance(asked, Sequence) else [asked]
            edges += [(cast(FlowJob, ref), condition, ()) for ref in refs if self._is_own(ref)]
            if others := [ref for ref in refs if not self._is_own(ref)]:
                rest[name] = others
        codes = cast("Mapping[object, Sequence[int]]", rest.pop("after_exit", {}))
        for ref, code in codes.items():
            if self._is_own(ref):
                edges.append((cast(FlowJob, ref), jobs.DEPENDENCY_CONDITION_EXIT_CODE, code))
        if others_by_code := {ref: code for ref, code in codes.items() if not self._is_own(ref)}:
            rest["after_exit"] = others_by_code
        spec = build(command, cast(Options, rest), self._client.settings.queue, self._client._blobs.store)
        spec.name = f"{self.name}/{spec.name}"
        return self._add(spec, edges)

    def _add(
        self,
        spec: jobs.JobSpec,
        edges: Sequence[tuple[FlowJob, jobs.DependencyCondition, Sequence[int]]],
        kind: type[FlowJob] = FlowJob,
    ) -> FlowJob:
        job = kind(self, len(self.jobs))
        for ref, condition, exit_codes in edges:
            edge = self._request.edges.add(to=job._position, condition=condition, exit_codes=exit_codes)
            setattr(edge, "from", ref._position)
        self._request.specs.append(spec)
        self.jobs.append(job)
        return job

    def _is_own(self, ref: object) -> bool:
        return isinstance(ref, FlowJob) and ref._flow is self

    def _submit(self) -> None:
        answer = self._client._grid.call(SUBMIT_JOBS, self._request)
        self._submitted = True
        for job, known in zip(self.jobs, answer.jobs):
            job._id, job._known = known.id, known

"""Calls in a flow: the result of one is an input of another, and goes from worker to worker through S3."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import cloudpickle

from .._errors import Unpicklable
from .._flow import FlowCall, FlowJob
from .._grammar import refuse
from .._spec import add_rows
from .._wire import jobs
from . import payload
from .payload import CallOptions, Pickled, function_name
from .remote import RemoteFunction

if TYPE_CHECKING:
    from .._flow import Flow


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles arguments; calls of the flow are left for the worker to put in."""

    def __init__(self, file: io.BytesIO, flow: Flow, buffers: list[memoryview] | None) -> None:
        callback = None if buffers is None else lambda buffer: buffers.append(buffer.raw())
        super().__init__(file, protocol=5, buffer_callback=callback)
        self._flow = flow
        self.used: dict[int, FlowJob] = {}

    def persistent_id(self, one: object) -> str | None:
        if not isinstance(one, FlowJob):
            return None
        if not isinstance(one, FlowCall) or one._flow is not self._flow:
            hint = "pass what `Flow.submit` returned for a function of the same flow"
            raise refuse("arguments", f"{one!r} stands for no result in this flow", hint)
        self.used[one._position] = one
        return str(one._position)


def add_call(flow: Flow, what: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FlowJob:
    """Adds a call of a function to a flow."""
    function, options = what, CallOptions()
    if isinstance(what, RemoteFunction):
        function, options = what.function, what.options
    client = flow._client
    pickled, used = _pickled(flow, args, dict(kwargs), function_name(function))
    spec = payload.make_spec(client, function, options, alone=True, value=True)
    spec.name = f"{flow.name}/{spec.name}"
    where = f"{client._storage.prefix}flows/{flow._request.request_id}/"
    position = len(flow.jobs)
    spec.outputs.add(glob="values/*", prefix=f"{where}{position}/")
    for number in used:
        spec.inputs.add(source=f"{where}{number}/value", path=f"inputs/{number}")
    if pickled.size > payload.INLINE_BYTES:
        key = payload.upload(client, pickled)
        spec.inputs.add(source=f"{client._storage.prefix}arguments/{key}", path="call.arguments")
    else:
        add_rows(spec, [payload.row([pickled.data])], client._blobs.store)
    success = jobs.DEPENDENCY_CONDITION_SUCCESS
    edges = [(job, success, ()) for job in used.values()]
    return flow._add(spec, edges, cast("type[FlowJob]", FlowCall))


def _pickled(
    flow: Flow, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> tuple[Pickled, dict[int, FlowJob]]:
    buffers: list[memoryview] = []
    file = io.BytesIO()
    pickler = _Pickler(file, flow, buffers)
    try:
        pickler.dump((args, kwargs))
    except ValueError:
        raise
    except Exception as error:
        raise Unpicklable(f"an argument of `{name}` can't be pickled: {error}") from error
    pickled = Pickled(file.getvalue(), tuple(buffers))
    if buffers and pickled.size <= payload.INLINE_BYTES:
        # Small ones are copied, so that all of it is one row.
        whole = io.BytesIO()
        _Pickler(whole, flow, None).dump((args, kwargs))
        return Pickled(whole.getvalue()), pickler.used
    return pickled, pickler.used

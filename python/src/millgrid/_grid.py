"""The way to a grid: several coordinators behind one handle, retried until there is an answer or no time is left.

*Invariant*: a write is sent again only under the request id that it was first sent with.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from . import _errors as errors
from ._config import Settings
from ._notice import Incidents
from ._wire import Method, Req, Res, status

#: How long a call is tried, retries included, unless its caller says otherwise.
DEFAULT_TIMEOUT = 30.0
#: A coordinator that is connected but says nothing for so long is left for another.
TRY_TIMEOUT = 10.0
#: A try that has less than this can end before anybody could answer, or refuse.
BRIEF = 0.25
#: How much it tells that nothing was heard.
SILENCE = 2
#: Pauses between rounds of tries: a change of leader takes about a second.
MIN_PAUSE, MAX_PAUSE = 0.05, 1.0
#: A refusal for want of room is waited out if the grid says that it takes no longer than this.
PATIENCE_WHEN_FULL = 5.0

_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    # A silent connection is asked for a sign of life, and given up when none comes.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 4000),
    # The library asks for none while another ping is on its way, and would wait a minute for that.
    ("grpc.http2.ping_timeout_ms", 4000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A coordinator that doesn't shake hands in this time is left for another.
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.max_send_message_length", 32 << 20),
    ("grpc.enable_retries", 0),
    # Small messages, one by one: each would be followed by a ping that measures the connection.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "millgrid-python"),
]

#: In a stream's head: who leads, where it isn't the coordinator that answers.
_LEADER = "millgrid-leader"

_IDENTITY_PROBLEMS = (
    ("CERTIFICATE_VERIFY_FAILED", "the coordinator's certificate is not accepted by this CA"),
    ("UNKNOWN_CA", "the client certificate was not signed by this grid's CA"),
    ("DECRYPT_ERROR", "the client certificate was not signed by this grid's CA"),
    ("CERTIFICATE_EXPIRED", "the client certificate has expired"),
    ("CERTIFICATE_REQUIRED", "the coordinator asks for a client certificate"),
    ("BAD_CERTIFICATE", "the coordinator refused the client certificate"),
)

_KINDS: dict[grpc.StatusCode, type[errors.Refused]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.PERMISSION_DENIED: errors.Denied,
    grpc.StatusCode.UNAUTHENTICATED: errors.Denied,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Conflict,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Exhausted,
}

#: All grids of this process, for the child of a fork.
_GRIDS: weakref.WeakSet[Grid] = weakref.WeakSet()


@dataclass(frozen=True)
class Trouble:
    """What one try came to, short of success; a higher weight tells more about why nothing came of it."""

    weight: int
    error: errors.MillgridError
    final: bool = False
    #: The connection is of no use any more.
    broken: bool = False


class _Connection:
    """A channel to one coordinator."""

    def __init__(self, generation: int, channel: grpc.Channel) -> None:
        self.generation = generation
        self.channel = channel
        self._methods: dict[str, Any] = {}

    def unary(self, method: Method[Req, Res]) -> Any:
        """What makes such a call; made once."""
        call = self._methods.get(method.path)
        if call is None:
            call = self._methods[method.path] = self.channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return call


class Grid:
    """A grid, through whichever of its coordinators answers. Safe to use from any thread, and after a fork."""

    def __init__(self, settings: Settings, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.settings = settings
        self.timeout = timeout
        self._credentials: grpc.ChannelCredentials | None = None
        #: Whether any coordinator ever said anything.
        self.answered = False
        self._after_fork()
        _GRIDS.add(self)

    def _after_fork(self) -> None:
        # Channels of the parent are of no use in a child: they are dropped, not closed.
        self._lock = threading.Lock()
        self._connections: dict[int, _Connection] = {}
        self._generation = 0
        # Callers spread over the coordinators, any of which is a front.
        self._good = random.randrange(len(self.settings.endpoints))
        self.incidents = Incidents()

    def close(self) -> None:
        """Ends all connections; they are made anew when needed."""
        with self._lock:
            connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.channel.close()

    def call(
        self, method: Method[Req, Res], request: Req, *, timeout: float | None = None, request_id: str = ""
    ) -> Res:
        """Calls until there is an answer or the time is over. `request` must be safe to repeat.

        Raises:
            MillgridError: A refusal at once; the most telling reason when the time is over.
        """
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        tries = Tries(self, deadline, request_id or getattr(request, "request_id", ""))
        while True:
            slot, connection = self._connection()
            generation = connection.generation
            left = max(0.0, min(TRY_TIMEOUT, deadline - time.monotonic()))
            try:
                answer: Res = connection.unary(method)(request, timeout=left)
                self.answered = True
                return answer
            except grpc.RpcError as error:
                tries.failed(error, slot, generation, brief=left < BRIEF)
            except ValueError as error:
                # Somebody else closed this channel between our taking and using it.
                tries.closed(error, slot, generation)

    def stream(self, method: Method[Req, Res], request: Req) -> tuple[Iterator[Res], int, int]:
        """One stream, on the connection that was good last; its reader looks after it, with `Tries`."""
        slot, connection = self._connection()
        call = connection.channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return call(request), slot, connection.generation

    def stream_of_leader(self, method: Method[Req, Res], request: Req) -> tuple[Any, int, int]:
        """As `stream`, from the leader itself where it is one of the endpoints; further calls go there, too."""
        call, slot, generation = self.stream(method, request)
        told: Any = call
        leader = dict(told.initial_metadata() or ()).get(_LEADER)
        others = [at for at, endpoint in enumerate(self.settings.endpoints) if endpoint.rstrip("/") == leader]
        if not others or others == [slot]:
            return call, slot, generation
        told.cancel()
        with self._lock:
            self._good = others[0]
        return self.stream(method, request)

    def address(self, slot: int) -> str:
        """Host and port of an endpoint."""
        return self.settings.endpoints[slot].removeprefix("https://").rstrip("/")

    def _connection(self) -> tuple[int, _Connection]:
        with self._lock:
            slot = self._good
            if slot not in self._connections:
                if self._credentials is None:
                    settings = self.settings
                    self._credentials = grpc.ssl_channel_credentials(settings.ca, settings.key, settings.cert)
                self._generation += 1
                channel = grpc.secure_channel(self.address(slot), self._credentials, options=_CHANNEL_OPTIONS)
                self._connections[slot] = _Connection(self._generation, channel)
            return slot, self._connections[slot]

    def _rotate(self, slot: int, generation: int, broken: bool) -> None:
        """The next caller goes elsewhere, unless another has moved on already."""
        with self._lock:
            if self._good == slot:
                self._good = (slot + 1) % len(self.settings.endpoints)
            # Not closed: other threads' calls on it end by themselves, and it goes with the last of them.
            if broken and slot in self._connections and self._connections[slot].generation == generation:
                del self._connections[slot]


class Tries:
    """The tries of one call or one stream: pauses between them, and the most telling reason at the end."""

    def __init__(
        self, grid: Grid, deadline: float | None, request_id: str = "", *, streaming: bool = False
    ) -> None:
        self._grid = grid
        self._streaming = streaming
        self._broke = False
        #: Endpoints where nobody listens.
        self._refusing: set[int] = set()
        self._deadline = deadline
        self._request_id = request_id
        self._started = time.monotonic()
        self._best: Trouble | None = None
        self._strangers = 0
        self.reset()

    def reset(self) -> None:
        """Something came: pauses are short again. The first tries go round the other endpoints at once."""
        self._at_once = len(self._grid.settings.endpoints) - 1
        self._pause = MIN_PAUSE

    def came(self, slot: int) -> None:
        """A message came on a stream."""
        self._grid.answered = True
        self.reset()
        if self._broke:
            self._broke = False
            self._grid.incidents.resumed(self._grid.address(slot))

    def failed(self, error: grpc.RpcError, slot: int, generation: int, *, brief: bool = False) -> None:
        """Waits for the next try.

        Args:
            brief: It had so little time that silence says less than what came before.

        Raises:
            MillgridError: There is no next try.
        """
        endpoint = self._grid.settings.endpoints[slot]
        trouble = sort(error, endpoint, self._request_id)
        if brief and trouble.weight == SILENCE and self._best is not None:
            trouble = self._best
        self._grid.answered = self._grid.answered or trouble.weight > 0
        told_by: Any = error
        if trouble.weight == 0 and "refused" in (told_by.details() or "").lower():
            self._refusing.add(slot)
            if not self._grid.answered and len(self._refusing) == len(self._grid.settings.endpoints):
                # No leader is being elected where no coordinator ever was.
                raise self._no_grid() from None
        if trouble.final:
            raise trouble.error from None
        self._go_on(trouble, slot, generation)

    def closed(self, error: ValueError, slot: int, generation: int) -> None:
        """As `failed`, for a channel that was closed."""
        self._go_on(Trouble(0, errors.Unreachable(str(error)), broken=True), slot, generation)

    def _no_grid(self) -> errors.Unreachable:
        where = ", ".join(map(self._grid.address, range(len(self._grid.settings.endpoints))))
        hint = "start one here with `millgrid dev`, or choose another with `context=`, `endpoint=` or MILLGRID_ENDPOINT"
        message = f"there is no grid at {where}: connection refused"
        return errors.Unreachable(message, hint=hint, reason="NO_GRID", request_id=self._request_id)

    def _go_on(self, trouble: Trouble, slot: int, generation: int) -> None:
        if self._streaming:
            self._broke = True
            address = self._grid.address(slot)
            lost = trouble.broken or trouble.weight == 0
            self._grid.incidents.broke(f"the connection to {address} was lost" if lost else f"{address} had no leader")
        if self._best is None or trouble.weight >= self._best.weight:
            self._best = trouble
        self._grid._rotate(slot, generation, trouble.broken)
        # Certificates don't get better by waiting.
        self._strangers = self._strangers + 1 if isinstance(trouble.error, errors.IdentityError) else 0
        if self._strangers >= len(self._grid.settings.endpoints):
            raise trouble.error from None
        if self._at_once > 0:
            self._at_once -= 1
            pause = 0.0
        else:
            pause = self._pause * random.uniform(1.0, 2.0)
            self._pause = min(MAX_PAUSE, self._pause * 2)
        now = time.monotonic()
        if self._deadline is not None and now + pause >= self._deadline:
            best = self._best.error
            best.message += f" (tried for {now - self._started:.1f} s)"
            best.args = (best.message,)
            raise best from None
        if pause:
            time.sleep(pause)


def sort(error: grpc.RpcError, endpoint: str, request_id: str = "") -> Trouble:
    """What a failed try means."""
    told_by: Any = error
    code: grpc.StatusCode = told_by.code()
    text: str = told_by.details() or ""
    info, retry_after = _details(error)
    if info is None:
        upper = text.upper()
        for word, problem in _IDENTITY_PROBLEMS:
            if word in upper:
                hint = "use a certificate of this grid's own authority that has not expired"
                return Trouble(1, errors.IdentityError(f"{endpoint}: {problem}", hint=hint), broken=True)
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            hint = "raise the timeout; a write may be repeated safely under the same request id"
            silence = errors.TimedOut(f"{endpoint}: connected, but without an answer", hint=hint, reason="TIMEOUT",
                                      request_id=request_id)
            return Trouble(SILENCE, silence, broken=True)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL,
                    grpc.StatusCode.CANCELLED):
            hint = "check the endpoint, and that a coordinator runs there"
            brief = re.sub(r"^failed to connect to all addresses; last error: ", "", text)
            nobody = errors.Unreachable(f"no coordinator could be reached; {endpoint}: {brief or code.name}",
                                        hint=hint, reason="UNREACHABLE", request_id=request_id)
            return Trouble(0, nobody, broken=True)
    metadata = dict(info.metadata) if info is not None else {}
    told: dict[str, str] = {
        "hint": metadata.get("hint", ""),
        "reason": info.reason if info is not None else "",
        "field": metadata.get("field", ""),
        "request_id": metadata.get("request_id", "") or request_id,
    }
    message = text or code.name
    briefly_full = retry_after is not None and retry_after <= PATIENCE_WHEN_FULL
    kind: type[errors.MillgridError]
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Trouble(3, errors.TimedOut(message, **told))
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED) or (
        code == grpc.StatusCode.RESOURCE_EXHAUSTED and briefly_full
    ):
        kind = errors.Conflict if code == grpc.StatusCode.ABORTED else errors.Unavailable
        return Trouble(3, kind(message, **told))
    kind = errors.Infeasible if told["reason"].upper() == "INFEASIBLE" else _KINDS.get(code, errors.Refused)
    return Trouble(3, kind(message, **told), final=True)


def _details(error: grpc.RpcError) -> tuple[status.ErrorInfo | None, float | None]:
    """What google.rpc says in the trailers; nothing when the error was found on this side."""
    told_by: Any = error
    trailers = told_by.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    info: status.ErrorInfo | None = None
    retry_after: float | None = None
    for name, value in trailers or ():
        if name != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        for detail in status.Status.FromString(value).details:
            if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                info = status.ErrorInfo.FromString(detail.value)
            elif detail.type_url.endswith("/google.rpc.RetryInfo"):
                delay = status.RetryInfo.FromString(detail.value).retry_delay
                retry_after = delay.seconds + delay.nanos / 1e9
    return info, retry_after


def _drop_channels() -> None:
    for grid in list(_GRIDS):
        grid._after_fork()


os.register_at_fork(after_in_child=_drop_channels)

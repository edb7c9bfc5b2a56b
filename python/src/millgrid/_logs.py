"""What a task wrote, read through any number of broken connections, each byte once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from ._grid import Grid, Tries
from ._wire import READ_LOGS, jobs

STREAMS = {
    None: jobs.LOG_STREAM_UNSPECIFIED,
    "stdout": jobs.LOG_STREAM_STDOUT,
    "stderr": jobs.LOG_STREAM_STDERR,
}
NAMES: dict[int, str] = {jobs.LOG_STREAM_STDOUT: "stdout", jobs.LOG_STREAM_STDERR: "stderr"}


@dataclass(frozen=True)
class Piece:
    """Some bytes of one stream of one attempt."""

    stream: int
    attempt: int
    offset: int
    data: bytes
    #: Bytes behind these that died with their worker.
    lost_bytes: int
    #: No more will come of this stream of this attempt.
    end: bool


class LogLine(str):
    """A line that a task wrote, with its newline if it had one.

    Attributes:
        stream: ``stdout`` or ``stderr``.
        task: Its index.
        attempt: That wrote it.
    """

    stream: str
    task: int
    attempt: int

    @classmethod
    def of(cls, data: bytes, stream: int, task: int, attempt: int) -> LogLine:
        """Bytes that are no UTF-8 are replaced."""
        line = cls(data.decode("utf-8", "replace"))
        line.stream, line.task, line.attempt = NAMES[stream], task, attempt
        return line


class _Position:
    next: int | None = None
    ended: bool = False


def pieces(grid: Grid, request: jobs.ReadLogsRequest, deadline: float | None = None) -> Iterator[Piece]:
    """All pieces to the end; with `follow` through retries. Waits through any outage.

    Raises:
        MillgridError: What the grid refuses for good, e.g. that there is no such task.
    """
    tries = Tries(grid, deadline, streaming=True)
    attempt, later = 0, False
    positions: dict[int, _Position] = {jobs.LOG_STREAM_STDOUT: _Position(), jobs.LOG_STREAM_STDERR: _Position()}
    read_to_end = False
    while True:
        asked = _resumed(request, positions, attempt, later)
        if read_to_end:
            asked.attempt, read_to_end = request.attempt, False
        narrowed = asked.attempt != request.attempt
        stream, slot, generation = grid.stream(READ_LOGS, asked)
        try:
            for message in stream:
                tries.came(slot)
                if message.attempt < attempt:
                    continue
                if message.attempt > attempt:
                    later, attempt = attempt != 0, message.attempt
                    positions = {one: _Position() for one in positions}
                position = positions.get(message.stream)
                if position is None or position.ended:
                    continue
                begin = position.next if position.next is not None else 0 if later else message.offset
                if message.offset > begin and not narrowed:
                    # The offsets were those of an earlier attempt; asked for by its number, this one comes whole.
                    break
                data = message.data[max(0, begin - message.offset) :]
                offset = max(begin, message.offset)
                position.next = offset + len(data) + message.lost_bytes
                position.ended = message.end
                if data or message.lost_bytes or message.end:
                    yield Piece(message.stream, attempt, offset, data, message.lost_bytes, message.end)
            else:
                if not (narrowed and request.follow and request.attempt == 0):
                    return
                # The attempt that was resumed is read to its end; there may be a later one.
                for position in positions.values():
                    position.ended = True
                read_to_end = True
        except grpc.RpcError as error:
            tries.failed(error, slot, generation)
        finally:
            call: Any = stream
            call.cancel()


def _resumed(
    request: jobs.ReadLogsRequest, positions: dict[int, _Position], attempt: int, later: bool
) -> jobs.ReadLogsRequest:
    """The request that goes on where this one stands."""
    asked = jobs.ReadLogsRequest()
    asked.CopyFrom(request)
    for stream, name in ((jobs.LOG_STREAM_STDOUT, "stdout_offset"), (jobs.LOG_STREAM_STDERR, "stderr_offset")):
        position = positions[stream]
        if position.next is not None:
            setattr(asked, name, position.next)
        elif later:
            setattr(asked, name, 0)
    # Offsets hold for the attempt that was being read alone.
    if attempt:
        asked.attempt = attempt
    return asked


def lines(grid: Grid, request: jobs.ReadLogsRequest) -> Iterator[LogLine]:
    """Whole lines, each stream's in its order."""
    rest: dict[tuple[int, int], bytearray] = {}
    for piece in pieces(grid, request):
        buffer = rest.setdefault((piece.attempt, piece.stream), bytearray())
        buffer += piece.data
        while (end := buffer.find(b"\n")) >= 0:
            yield LogLine.of(bytes(buffer[: end + 1]), piece.stream, request.index, piece.attempt)
            del buffer[: end + 1]
        if piece.end and buffer:
            yield LogLine.of(bytes(buffer), piece.stream, request.index, piece.attempt)
            buffer.clear()
    for (attempt, stream), buffer in rest.items():
        if buffer:
            yield LogLine.of(bytes(buffer), stream, request.index, attempt)


def whole(grid: Grid, job_id: int, index: int, attempt: int, stream: int) -> tuple[bytes, int]:
    """One stream of one attempt that has ended: its bytes, and how many were lost."""
    request = jobs.ReadLogsRequest(job_id=job_id, index=index, attempt=attempt, stream=stream)  # type: ignore[arg-type]
    data, lost = bytearray(), 0
    for piece in pieces(grid, request):
        data += piece.data
        lost += piece.lost_bytes
    return bytes(data), lost

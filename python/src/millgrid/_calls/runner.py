"""Runs the calls of one task. It travels along with every job of functions, and stands alone on the worker.

It imports nothing that isn't needed, so that a task starts as fast as its interpreter does. What it writes to standard
output are frames, a line each; what the functions write goes to standard error:

    N ok BASE64               the pickled result of call N of this task
    N stored NAME SIZE        the result is in the file NAME, which is published on S3
    N raised BASE64           pickled: the pickled exception or None, its traceback, and all of it as text
    N refused WORD TEXT       the call was not tried, or its result can't be sent; `*` for N: none was
    end COUNT SECONDS         every call was answered

A call is answered before the next one begins, so that the first call without an answer is the one that ended the
interpreter.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from binascii import a2b_base64, b2a_base64

# Importing `typing` takes a fifth of the time in which a small task runs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

#: Results up to this size travel in a frame.
INLINE_BYTES = 64 << 10
MAGIC = b"millgrid1"


class Refused(Exception):
    """The call can't be tried, or its result can't be sent; the word says why."""

    def __init__(self, word: str, text: str) -> None:
        Exception.__init__(self, text)
        self.word = word


class Runner:
    """What a task needs: the function, and where frames go."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        # Nobody else writes to standard output: not the function, nor a program that it starts.
        self.frames = os.dup(1)
        os.dup2(2, 1)
        with open(os.path.join(folder, "call.head"), "rb") as file:
            self.head: dict[str, Any] = pickle.load(file)
        self.function: Callable[..., Any] = print

    def frame(self, *words: object) -> None:
        line = " ".join(map(str, words)).encode() + b"\n"
        while line:
            line = line[os.write(self.frames, line) :]

    def prepare(self) -> None:
        """Compares this Python with the client's before anything is unpickled, then gets the function."""
        head = self.head
        ours = "%s %d.%d" % (sys.implementation.name, *sys.version_info[:2])
        if ours != head["python"]:
            raise Refused("mismatch", "the client's Python is %s, this worker's is %s (%s)" % (
                head["python"], ours, sys.executable))
        for path in head["path"]:
            if path not in sys.path and os.path.exists(path):
                sys.path.append(path)
        for name in head["archives"]:
            sys.path.insert(0, os.path.join(self.folder, name))
        if head["chdir"]:
            os.chdir(head["chdir"])
        if head["cloudpickle"]:
            import cloudpickle

            if cloudpickle.__version__.split(".")[0] != head["cloudpickle"].split(".")[0]:
                raise Refused("mismatch", "the client's cloudpickle is %s, this worker's is %s (%s)" % (
                    head["cloudpickle"], cloudpickle.__version__, sys.executable))
        with open(os.path.join(self.folder, "call.function"), "rb") as file:
            self.function = pickle.load(file)
        if head["file"]:
            name_file(self.function, head["file"])

    def calls(self) -> Sequence[str | bytes]:
        """The pickled arguments of each call."""
        large = os.path.join(self.folder, "call.arguments")
        if os.path.exists(large):
            return [large]
        calls: list[bytes] = pickle.loads(a2b_base64(os.environ["MILLGRID_ENTRY"]))
        return calls

    def arguments(self, call: str | bytes) -> Any:
        if isinstance(call, str):
            with open(call, "rb") as file:
                data, *buffers = read_parts(file)
            return Values(data, self.folder, buffers).load()
        return Values(call, self.folder).load()

    def run(self) -> bool:
        """Every call in turn; whether any of them raised."""
        calls = self.calls()
        any_raised = False
        try:
            self.prepare()
        except Exception as error:
            for number in range(len(calls)):
                self.refuse(number, error)
            self.frame("end", len(calls), 0)
            return True
        begun = time.perf_counter()
        for number, call in enumerate(calls):
            try:
                args, kwargs = self.arguments(call)
            except Exception as error:
                self.refuse(number, error)
                any_raised = True
                continue
            try:
                value = self.function(*args, **kwargs)
            except BaseException as error:
                self.frame(number, "raised", encode(raised(error)))
                any_raised = True
                continue
            try:
                self.answer(number, value)
            except Exception as error:
                self.refuse(number, error, "result")
                any_raised = True
        self.frame("end", len(calls), "%.6f" % (time.perf_counter() - begun))
        return any_raised

    def refuse(self, number: int, error: Exception, word: str = "unpickle") -> None:
        if isinstance(error, Refused):
            word = error.word
        elif isinstance(error, ImportError) and word == "unpickle":
            word = "module"
        text = str(error) if isinstance(error, (Refused, ImportError)) else "%s: %s" % (type(error).__name__, error)
        self.frame(number, "refused", word, " ".join(text.split()))

    def answer(self, number: int, value: Any) -> None:
        buffers: list[memoryview] = []
        data = dumps(value, buffers)
        size = len(data) + sum(buffer.nbytes for buffer in buffers)
        if self.head["value"]:
            store_file(os.path.join(self.folder, "values", "value"), data, buffers)
        if size <= INLINE_BYTES:
            if buffers:
                data = dumps(value, None)
            self.frame(number, "ok", encode(data))
        elif self.head["value"]:
            self.frame(number, "stored", "value", size)
        elif not self.head["store"]:
            raise Refused("large", "the result has %d bytes, and no place on S3 is configured" % size)
        else:
            store_file(os.path.join(self.folder, "results", str(number)), data, buffers)
            self.frame(number, "stored", number, size)


class Values(pickle.Unpickler):
    """Arguments; what stands for another job's result is read from the file that was staged for it."""

    def __init__(self, data: bytes | bytearray, folder: str, buffers: Sequence[bytearray] = ()) -> None:
        import io

        pickle.Unpickler.__init__(self, io.BytesIO(data), buffers=buffers)
        self.folder = folder

    def persistent_load(self, name: str) -> Any:
        return load_file(os.path.join(self.folder, "inputs", name))


def name_file(function: Any, file: str) -> None:
    """Gives a function that came by value, and those beside it, the name of their file back, for tracebacks."""
    strangers = [function, *getattr(function, "__globals__", {}).values()]
    for one in strangers:
        code = getattr(one, "__code__", None)
        if getattr(code, "co_filename", "").startswith("<"):
            one.__code__ = renamed(code, file)


def renamed(code: Any, file: str) -> Any:
    inner = tuple(renamed(one, file) if isinstance(one, type(code)) else one for one in code.co_consts)
    return code.replace(co_filename=file, co_consts=inner)


def encode(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def dumps(value: Any, buffers: list[memoryview] | None) -> bytes:
    """Pickles; large buffers are left out of band if a list for them is given."""
    callback: Any = None if buffers is None else lambda buffer: buffers.append(buffer.raw())
    try:
        data = pickle.dumps(value, 5, buffer_callback=callback)
        # What is named as a part of this program can't be found by the client under that name.
        if b"__main__" not in data:
            return data
    except Exception:
        pass
    if buffers is not None:
        del buffers[:]
    import cloudpickle

    by_value: bytes = cloudpickle.dumps(value, 5, buffer_callback=callback)
    return by_value


def raised(error: BaseException) -> bytes:
    """An exception for the client: itself with its traceback if it can be pickled, and the traceback as text."""
    import traceback

    # The frames of this file say nothing to anybody.
    inner = error.__traceback__
    while inner is not None and inner.tb_frame.f_code.co_filename == __file__:
        inner = inner.tb_next
    error = error.with_traceback(inner)
    text = "".join(traceback.format_exception(type(error), error, inner))
    trace = None
    try:
        import tblib

        trace = tblib.Traceback(inner).to_dict() if inner is not None else None
    except ImportError:
        pass
    # For those who read the log.
    sys.stderr.write(text)
    return pickle.dumps((pickled(error), trace, text), 4)


def pickled(error: BaseException) -> bytes | None:
    """As its class says; else, where its constructor can't be called again, by its attributes alone."""
    try:
        data = dumps(error, None)
        pickle.loads(data)
        return data
    except Exception:
        pass
    try:
        import tblib.pickling_support

        tblib.pickling_support.install(error)
        data = dumps(error.with_traceback(None), None)
        pickle.loads(data)
        return data
    except Exception:
        return None


def store_file(path: str, data: bytes, buffers: Sequence[memoryview]) -> None:
    """A pickle and its buffers, each behind the other."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    lengths = [len(data)] + [buffer.nbytes for buffer in buffers]
    with open(path, "wb") as file:
        file.write(MAGIC + len(lengths).to_bytes(4, "little"))
        for length in lengths:
            file.write(length.to_bytes(8, "little"))
        file.write(data)
        for buffer in buffers:
            file.write(buffer)


def load_file(path: str) -> Any:
    """What `store_file` has written; buffers are writable."""
    with open(path, "rb") as file:
        return load(file)


def load(file: Any) -> Any:
    """The same from an open file."""
    data, *buffers = read_parts(file)
    return pickle.loads(data, buffers=buffers)


def read_parts(file: Any) -> list[bytearray]:
    """A pickle, and its buffers."""

    def exactly(count: int) -> bytearray:
        data = bytearray(count)
        view, at = memoryview(data), 0
        while at < count:
            got = file.readinto(view[at:])
            if not got:
                raise EOFError("%d bytes are missing" % (count - at))
            at += got
        return data

    if exactly(len(MAGIC)) != MAGIC:
        raise ValueError("no pickled value")
    count = int.from_bytes(exactly(4), "little")
    lengths = [int.from_bytes(exactly(8), "little") for _ in range(count)]
    return [exactly(length) for length in lengths]


def main() -> None:
    runner = Runner(os.path.dirname(os.path.abspath(__file__)))
    # The directory of this file is no place for modules.
    sys.path[0] = ""
    any_raised = runner.run()
    alone = runner.head["alone"]
    import atexit

    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # A task of several calls succeeds when each has its answer; one call fails as its function does. Nothing is taken
    # apart: every answer is written, and threads that the function left behind are not waited for.
    os._exit(1 if any_raised and alone else 0)


if __name__ == "__main__":
    main()

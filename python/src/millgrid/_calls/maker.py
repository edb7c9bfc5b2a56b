"""Makes the Python environment of a task on its worker, once, and goes on in it. It travels along, and stands alone.

Any Python from 3.8 on runs it, with interpreters to build upon as arguments. `MILLGRID_ENV_DIR` is where the
environment belongs: environments can't be moved, so it is made there, and counts when the file `made` is in it. Who
makes it holds a lock; others wait. A failure is told as a frame, see `runner.py`, and to those who waited, too.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional

#: An environment that no task used for so long is removed by whoever makes another.
UNUSED_SECONDS = 14 * 86_400
#: So long a failure is told to others instead of trying again: an array's tasks all want the same environment.
FAILED_SECONDS = 30
#: Of what the installer said, at most so many characters go to the client.
TAIL = 800


class Failed(Exception):
    """There is no such environment here; the text says why."""


def main() -> None:
    directory = os.environ["MILLGRID_ENV_DIR"]
    beside = os.path.dirname(os.path.abspath(__file__))
    try:
        with open(os.path.join(beside, "call.lock")) as file:
            lock = json.load(file)
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        provide(directory, lock, sys.argv[1:])
    except (Failed, OSError) as failure:
        text = " ".join(str(failure).split())
        say(text)
        sys.stdout.write("* refused environment %s\n" % text)
        sys.stdout.flush()
        sys.exit(127)
    python = os.path.join(directory, "bin", "python")
    os.execv(python, [python, "-u", os.environ["MILLGRID_CALL_FILE"]])


def say(text: str) -> None:
    sys.stderr.write("millgrid: %s\n" % text)
    sys.stderr.flush()


def provide(directory: str, lock: "Dict[str, Any]", bases: "List[str]") -> None:
    """Sees to it that the environment is there."""
    with held(directory, wait=True):
        if not os.path.exists(os.path.join(directory, "made")):
            tell_failure_again(directory)
            begun = time.monotonic()
            try:
                make(directory, lock, bases)
            except Failed as failure:
                with open(directory + ".failed", "w") as file:
                    file.write(str(failure))
                raise
            say("made it in %.1f s" % (time.monotonic() - begun))
            sweep(directory)
        touch(os.path.join(directory, "used"))


@contextlib.contextmanager
def held(directory: str, wait: bool) -> "Iterator[bool]":
    """Holds the lock of an environment; without waiting, whether it was free."""
    with open(directory + ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if not wait:
                yield False
                return
            say("another task makes the Python environment; waiting for it ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield True


def tell_failure_again(directory: str) -> None:
    with contextlib.suppress(OSError):
        if time.time() - os.stat(directory + ".failed").st_mtime < FAILED_SECONDS:
            with open(directory + ".failed") as file:
                raise Failed(file.read())


def forget_failure(directory: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(directory + ".failed")


def make(directory: str, lock: "Dict[str, Any]", bases: "List[str]") -> None:
    forget_failure(directory)
    shutil.rmtree(directory, ignore_errors=True)
    base = next((base for base in bases if version_of(base) == lock["python"]), None)
    uv = find_uv(base)
    if base is None and uv is None:
        raise Failed("%s is not on this worker, nor is uv, which could get it" % lock["python"])
    count = len(lock["pinned"]) + len(lock["requirements"])
    packages = "1 package" if count == 1 else "%d packages" % count
    say("making the Python environment (%s) with %s ..." % (packages, "uv" if uv else "pip"))
    python = os.path.join(directory, "bin", "python")
    if uv:
        failed = "`uv venv` failed" if base else "%s is not on this worker, and uv can't get it" % lock["python"]
        run(uv + ["venv", "--no-project", "--python", base or lock["python"].replace(" ", "@"), directory], failed)
        install = uv + ["pip", "install", "--python", python]
    else:
        run([str(base), "-m", "venv", directory], "`%s -m venv` failed" % base)
        install = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    for name, options in (("pinned", ["--no-deps"]), ("requirements", [])):
        if lock[name]:
            path = os.path.join(directory, name + ".txt")
            with open(path, "w") as file:
                file.write("\n".join(lock[name]) + "\n")
            run(install + options + ["-r", path], "the installer failed", lock[name])
    # The last thing that is written: what lacks it was never whole.
    touch(os.path.join(directory, "made"))


def version_of(python: str) -> "Optional[str]":
    code = "import sys; print('%s %d.%d' % (sys.implementation.name, *sys.version_info[:2]))"
    if not shutil.which(python):
        return None
    ended = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return ended.stdout.decode().strip() if ended.returncode == 0 else None


def find_uv(base: "Optional[str]") -> "Optional[List[str]]":
    """On the PATH, else as a module of one of the interpreters."""
    found = shutil.which("uv")
    tried = [[found]] if found else [[python, "-m", "uv"] for python in (base, sys.executable) if python]
    for uv in tried:
        quiet = subprocess.DEVNULL
        if subprocess.run(uv + ["--version"], stdout=quiet, stderr=quiet).returncode == 0:
            return uv
    return None


def run(command: "List[str]", failed: str, wanted: "Optional[List[str]]" = None) -> None:
    """Runs a part of the making.

    Raises:
        Failed: It failed; the text has what it said last, and which of the wanted packages it named.
    """
    # As pip does: where companies have certificates of their own, they are the system's.
    environment = dict(os.environ, UV_SYSTEM_CERTS=os.environ.get("UV_SYSTEM_CERTS", "1"))
    # The directory of the task may have modules whose names pip knows.
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd="/")
    if ended.returncode:
        said = ended.stdout.decode(errors="replace").strip()
        culprit = named(said, wanted or [])
        what = "`%s` can't be had here" % culprit if culprit else failed
        raise Failed("the Python environment can't be made: %s: %s" % (what, said[-TAIL:]))


def named(said: str, wanted: "List[str]") -> "Optional[str]":
    """The requirement that an installer complains of: the one that it names first, with its version if it can be."""
    found = []
    for requirement in wanted:
        name = re.split(r"[^\w.-]", requirement)[0]
        for rank, text in enumerate((requirement, name)):
            match = re.search(r"(?<![\w.-])%s(?![\w-])" % re.escape(text), said, re.IGNORECASE)
            if match and text:
                found.append((rank, match.start(), requirement))
    return min(found)[2] if found else None


def sweep(kept: str) -> None:
    """Removes what was not used for long."""
    folder = os.path.dirname(kept)
    for name in sorted(os.listdir(folder)):
        directory = os.path.join(folder, name)
        if directory == kept or not os.path.isdir(directory) or not is_old(directory):
            continue
        with held(directory, wait=False) as free:
            if free and is_old(directory):
                shutil.rmtree(directory, ignore_errors=True)
                # Its lock stays: somebody may be about to hold it.
                forget_failure(directory)


def is_old(directory: str) -> bool:
    for path in (os.path.join(directory, "used"), directory):
        with contextlib.suppress(OSError):
            return time.time() - os.stat(path).st_mtime > UNUSED_SECONDS
    return False


def touch(path: str) -> None:
    with open(path, "w"):
        pass


if __name__ == "__main__":
    main()

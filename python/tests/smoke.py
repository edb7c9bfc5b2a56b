"""A few calls and one job on a grid of its own, with nothing but what the package needs.

    python smoke.py [PORT]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import millgrid

#: What a version of Python does at a program's end is its own.
ENDS = """
import millgrid
executor = millgrid.Client().executor()
executor.submit(pow, 2, 11).add_done_callback(lambda future: print(future.result()))
"""


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else None
    with millgrid.dev(workers=1, port_base=port) as client:
        print(client.grid.program)
        with client.executor() as executor:
            print(executor.submit(pow, 2, 10).result(60))
            # Processes return: nothing that a version leaves behind tells against it.
            processes: list[int] = []
            until = time.monotonic() + 60
            while len(set(processes)) == len(processes):
                assert time.monotonic() < until, "no process made two calls"
                processes.append(executor.submit(os.getpid).result(60))
        environment = {**os.environ, **client.grid.environment()}
        ended = subprocess.run([sys.executable, "-c", ENDS], env=environment, timeout=60, check=True,
                               capture_output=True, text=True)  # fmt: skip
        assert (ended.stdout, ended.stderr) == ("2048\n", ""), ended
        job = client.submit(["echo", "hello"]).wait(60).raise_for_status()
        print(*job.logs(), end="")


if __name__ == "__main__":
    main()

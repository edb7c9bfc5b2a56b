"""One call and one job on a grid of its own, with nothing but what the package needs.

    python smoke.py [PORT]
"""

from __future__ import annotations

import sys

import millgrid


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else None
    with millgrid.dev(workers=1, port_base=port) as client:
        print(client.grid.program)
        with client.executor() as executor:
            print(executor.submit(pow, 2, 10).result(60))
        job = client.submit(["echo", "hello"]).wait(60).raise_for_status()
        print(*job.logs(), end="")


if __name__ == "__main__":
    main()

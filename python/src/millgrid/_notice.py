"""One line for people when a stream of news or logs breaks and goes on elsewhere: a change of leader, mostly.

It is a warning of the logger `millgrid`, which Python prints to standard error unless logging is set up otherwise.
"""

from __future__ import annotations

import logging
import threading
import time

logger = logging.getLogger("millgrid")

#: What breaks within so long of another break, or of its end, is the same incident.
JOINED_SECONDS = 5.0


class Incidents:
    """The breaks of one client's streams. Several that break at once are one incident, and one line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost = ""
        self._last = float("-inf")

    def broke(self, what: str) -> None:
        """A stream broke. `what` happened, in words."""
        now = time.monotonic()
        with self._lock:
            if not self._lost and now - self._last > JOINED_SECONDS:
                self._lost = what
            self._last = now

    def resumed(self, endpoint: str) -> None:
        """A stream that broke goes on."""
        with self._lock:
            lost, self._lost = self._lost, ""
            self._last = time.monotonic()
        if lost:
            logger.warning("millgrid: %s; going on with %s", lost, endpoint)

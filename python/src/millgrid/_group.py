"""What becomes of the jobs of one executor: one stream for all of them."""

from __future__ import annotations

import threading
from typing import Any

from ._errors import MillgridError
from ._watch import ENDED_TASK, Change, Hub, Listener, Subscription, Watch, closed_error, pages
from ._wire import WATCH_JOBS, Duration, jobs

#: News that aren't an end may wait so long for more.
PATIENCE = Duration(nanos=20_000_000)


class _Followed(Subscription):
    """To one job of a group, whose news come from two threads: whoever listens tells old from new by the attempts."""

    def tell(self, change: Change) -> None:
        with self._lock:
            if not self.closed:
                self._listener(change)


class Group(Watch):
    """A watch of the tasks of all jobs with one label: one stream, whatever is submitted while it goes on.

    While it goes on nothing is missed. Where it has to begin anew, it lists what became of the jobs that it knows.
    """

    def __init__(self, hub: Hub, label: tuple[str, str]) -> None:
        super().__init__(hub)
        self._label = label
        self._lock = threading.Lock()
        self._running = False
        #: It has begun, or can't.
        self._ready = threading.Event()
        self._error: MillgridError | None = None
        #: How often it began anew.
        self._beginnings = 0
        self._followed: dict[int, Subscription] = {}
        #: The newest job that anybody followed.
        self._newest = 0
        #: Told of newer jobs, before their submits were answered here.
        self._early: dict[int, list[Change]] = {}
        hub.add(self)

    def begin(self, patience: float | None = None) -> int:
        """Has it begin, and waits until it has. What it returns is for `follow`, of a job that is submitted after this.

        Args:
            patience: In seconds; by default that of the client.
        Raises:
            MillgridError: The grid refuses to tell.
            Closed: The client was closed.
        """
        with self._lock:
            if self._stopped:
                raise closed_error()
            if not self._running:
                self._running, self._error, self.token = True, None, ""
                self._ready.clear()
                threading.Thread(target=self._run, name="millgrid-watch", daemon=True).start()
        self._ready.wait(self._hub._grid.timeout if patience is None else patience)
        if self._error is not None:
            raise self._error
        return self._beginnings

    def follow(self, job_id: int, listener: Listener, begun: int) -> Subscription:
        """Tells `listener`, on another thread or at once on this one, all that happens to the tasks of a job.

        Args:
            job_id: Higher than any that was followed before.
        """
        subscription = _Followed(job_id, True, listener)
        subscription.stream = self
        with self._lock:
            self._followed[job_id] = subscription
            self._newest = job_id
            missed = begun != self._beginnings or not self._running
            early, self._early = self._early.get(job_id, []), {}
        # Nothing is locked meanwhile: whoever is told closes subscriptions under locks of its own.
        for change in early:
            subscription.tell(change)
        if missed:
            self.begin()
            self._list(subscription)
        return subscription

    def closed(self, subscription: Subscription) -> None:
        with self._lock:
            self._followed.pop(subscription.job_id, None)

    def open(self) -> list[Subscription]:
        with self._lock:
            return list(self._followed.values())

    def _over(self) -> bool:
        # The next job may come in a moment.
        return self._stopped

    def _gives_up(self) -> bool:
        with self._lock:
            idle = self._ready.is_set() and not self._followed
            if self._stopped or idle:
                self._running = False
            return not self._running

    def _request(self) -> jobs.WatchJobsRequest:
        return jobs.WatchJobsRequest(labels=dict([self._label]), tasks=True, patience=PATIENCE)

    def _open(self, request: jobs.WatchJobsRequest) -> tuple[Any, int, int]:
        return self._hub._grid.stream_of_leader(WATCH_JOBS, request)

    def _refused(self, error: MillgridError) -> None:
        with self._lock:
            self._running, self._error = False, error
        self._ready.set()
        for one in self.open():
            one.tell(Change(index=1 << 62, error=error))

    def _tell(self, message: jobs.WatchJobsResponse) -> None:
        if message.reset:
            with self._lock:
                self._beginnings += 1
            self._ready.set()
            for one in self.open():
                self._list(one)
        tasks: dict[int, list[jobs.Task]] = {}
        for task in message.tasks:
            tasks.setdefault(task.job_id, []).append(task)
        for job_id, own in tasks.items():
            change = Change(index=message.index, tasks=own)
            with self._lock:
                subscription = self._followed.get(job_id)
                if subscription is None and job_id > self._newest:
                    self._early.setdefault(job_id, []).append(change)
            if subscription is not None:
                subscription.tell(change)

    def _list(self, subscription: Subscription) -> None:
        asked = jobs.ListTasksRequest(job_id=subscription.job_id, states=sorted(ENDED_TASK))
        subscription.tell(Change(index=0, tasks=list(pages(self._hub._grid, asked))))

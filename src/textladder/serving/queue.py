"""Texts of concurrent requests, predicted together.

While a batch is computed, what arrives waits, and is the next batch: nobody waits for a batch to fill, and the busier
the service, the larger its batches.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from textladder.classifier import TextClassifier

TEXTS_AT_ONCE = 32


class QueueFull(Exception):  # noqa: N818, it is no error but an answer
    """So many texts wait that this request would wait for too long."""


class QueueClosed(Exception):  # noqa: N818
    """The service is stopping and takes nothing more."""


@dataclass(eq=False)
class _Job:
    """Some texts of one request, computed in one go."""

    texts: list[str]
    done: "asyncio.Future[np.ndarray]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    seconds: float = 0.0


class PredictionQueue:
    """Predicts with one classifier, a batch at a time.

    Args:
        classifier: a fitted one.
        executor: where it predicts; with one thread for all queues of a service, they take turns and each batch has the
            machine to itself.
        waiting: texts that may wait; more are refused, unless nothing waits.
        batch: texts of a batch at most.
        observe: is told of each batch how many texts it had and how many seconds it took.

    Attributes:
        waiting: how many texts wait.
    """

    def __init__(
        self,
        classifier: TextClassifier,
        executor: Executor,
        *,
        waiting: int = 64,
        batch: int = TEXTS_AT_ONCE,
        observe: Callable[[int, float], None] = lambda texts, seconds: None,
    ) -> None:
        self.classifier, self.most, self.batch, self.waiting = classifier, waiting, batch, 0
        self._executor, self._observe = executor, observe
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    async def probabilities(self, texts: list[str], *, admitted: bool = False) -> tuple[np.ndarray, float]:
        """Class probabilities of texts in their order, float32 (texts, classes), and the seconds that they took.

        The seconds are those of the batches that the texts were in, without the waiting.

        Args:
            texts: one or more.
            admitted: they belong to what was taken before, and are not refused now.

        Raises:
            QueueFull: they would wait for too long.
            QueueClosed: the queue was closed.
        """
        if self._closed and not admitted:
            raise QueueClosed
        if not admitted and self.waiting and self.waiting + len(texts) > self.most:
            raise QueueFull
        jobs = [_Job(texts[begin : begin + self.batch]) for begin in range(0, len(texts), self.batch)]
        self._jobs.extend(jobs)
        self.waiting += len(texts)
        self._arrived.set()
        try:
            parts = await asyncio.gather(*(job.done for job in jobs))
        finally:
            for job in jobs:  # of a request that failed or was given up, nothing more is computed
                job.done.cancel()
        return np.concatenate(parts), sum(job.seconds for job in jobs)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something that uses the classifier, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    async def run(self) -> None:
        """Predict batch after batch, until the queue is closed and empty."""
        while True:
            await self._arrived.wait()
            if jobs := self._next_batch():
                await self._predict(jobs)
            elif self._closed:
                return
            else:
                self._arrived.clear()

    def close(self) -> None:
        """Take nothing more; `run` ends when what was taken is answered."""
        self._closed = True
        self._arrived.set()

    def _next_batch(self) -> list[_Job]:
        """The jobs that waited longest, as many as a batch takes."""
        jobs: list[_Job] = []
        texts = 0
        while self._jobs and texts + len(self._jobs[0].texts) <= self.batch:
            job = self._jobs.popleft()
            self.waiting -= len(job.texts)
            if not job.done.cancelled():
                jobs.append(job)
                texts += len(job.texts)
        return jobs

    async def _predict(self, jobs: list[_Job]) -> None:
        texts = [text for job in jobs for text in job.texts]
        begun = time.perf_counter()
        try:
            rows = await self.call(self.classifier.predict_proba, texts)
        except Exception as error:  # it is answered, and the next batch is predicted
            if len(jobs) == 1:
                if not jobs[0].done.cancelled():
                    jobs[0].done.set_exception(error)
                return
            for job in jobs:  # the others of the batch must not suffer for one
                await self._predict([job])
            return
        seconds = time.perf_counter() - begun
        self._observe(len(texts), seconds)
        place = 0
        for job in jobs:
            part = rows[place : place + len(job.texts)]
            place += len(job.texts)
            job.seconds = seconds
            if not job.done.cancelled():
                job.done.set_result(part)

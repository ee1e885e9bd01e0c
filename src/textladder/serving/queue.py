"""Texts of concurrent requests, predicted together.

Whatever arrives while a batch is computed waits and becomes the next batch. Nothing waits for a batch to fill, and the
busier the service is, the larger its batches are.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from textladder.classifier import TextClassifier

if TYPE_CHECKING:
    from textladder.levels.base import Scored

BATCH_SIZE = 32
GIVE_WAY_SECONDS = 0.05  # at most; a batch then begins beside the others
BATCH_CHARACTERS = 50_000  # fewer long texts: whoever waits for the batch, or wants to stop it, waits less


class QueueFull(Exception):  # noqa: N818, an answer and not an error
    """Too many texts are waiting for this request to be accepted."""


class QueueClosed(Exception):  # noqa: N818
    """The service is shutting down and accepts no more requests."""


@dataclass(eq=False)
class _Job:
    """Texts of one request that are predicted in one batch."""

    texts: list[str]
    done: "asyncio.Future[np.ndarray]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    seconds: float = 0.0


class PredictionQueue:
    """Predicts with one classifier, one batch at a time.

    Args:
        classifier: a fitted classifier.
        executor: runs the predictions. If all queues of a service share one thread, they take turns and each batch has
            all cores to itself.
        max_waiting: how many texts may wait; further requests are refused, unless nothing is waiting.
        batch_size: maximum number of texts in a batch.
        observe: called after each batch with its number of texts, how many were truncated, and its seconds.
        give_way: whether something else is to be computed before the next batch, which waits for it a moment.

    Attributes:
        waiting: number of texts that are waiting now.
        busy_since: `time.monotonic()` at the start of the batch that is being computed; None if there is none.
    """

    def __init__(
        self,
        classifier: TextClassifier,
        executor: Executor,
        *,
        max_waiting: int = 64,
        batch_size: int = BATCH_SIZE,
        observe: Callable[[int, int, float], None] = lambda texts, truncated, seconds: None,
        give_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self.classifier, self.max_waiting, self.batch_size, self.waiting = classifier, max_waiting, batch_size, 0
        self._executor, self._observe, self._give_way = executor, observe, give_way
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self.busy_since: float | None = None

    async def probabilities(self, texts: list[str], *, admitted: bool = False) -> tuple[np.ndarray, float]:
        """Class probabilities of texts, in order, and the seconds of computation.

        Args:
            texts: one or more.
            admitted: the texts belong to a request that was accepted before, so they are not refused now.

        Returns:
            Probabilities, float32 (texts, classes), and the seconds of the batches that contained the texts, without
            the time spent waiting.

        Raises:
            QueueFull: the texts would wait too long.
            QueueClosed: the queue was closed, or gave up before the texts were predicted.
        """
        if self._closed and not admitted:
            raise QueueClosed
        if not admitted and self.waiting and self.waiting + len(texts) > self.max_waiting:
            raise QueueFull
        jobs = [_Job(part) for part in self._split(texts)]
        self._jobs.extend(jobs)
        self.waiting += len(texts)
        self._arrived.set()
        try:
            parts = await asyncio.gather(*(job.done for job in jobs))
        finally:
            for job in jobs:  # if the request failed or was cancelled, the rest of it is not computed
                job.done.cancel()
        return np.concatenate(parts), sum(job.seconds for job in jobs)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that uses the classifier, between two batches."""
        end = time.monotonic() + GIVE_WAY_SECONDS
        while self._give_way() and time.monotonic() < end:
            await asyncio.sleep(0.001)
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    async def run(self) -> None:
        """Predict batch after batch until the queue is closed and empty."""
        while True:
            await self._arrived.wait()
            if jobs := self._next_batch():
                self.busy_since = time.monotonic()
                try:
                    await self._predict(jobs)
                finally:
                    self.busy_since = None
                    for job in jobs:
                        if not job.done.done():  # whatever went wrong, nobody waits for ever
                            job.done.set_exception(RuntimeError("The batch was not predicted."))
            elif self._closed:
                return
            else:
                self._arrived.clear()

    def close(self) -> None:
        """Accept no more texts; `run` ends when those accepted are predicted."""
        self._closed = True
        self._arrived.set()

    def give_up(self) -> None:
        """Refuse the texts that are still waiting; only the batch that is being computed is finished."""
        self.close()
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(QueueClosed())
                job.done.exception()  # no warning if the request was cancelled, and nobody asks

    def _split(self, texts: list[str]) -> Iterator[list[str]]:
        """The texts of a request in parts that fit into a batch."""
        part: list[str] = []
        characters = 0
        for text in texts:
            if part and (len(part) == self.batch_size or characters + len(text) > BATCH_CHARACTERS):
                yield part
                part, characters = [], 0
            part.append(text)
            characters += len(text)
        if part:
            yield part

    def _next_batch(self) -> list[_Job]:
        """The jobs that have waited longest, as many as fit into a batch."""
        jobs: list[_Job] = []
        texts = characters = 0
        while self._jobs:
            job = self._jobs[0]
            texts += len(job.texts)
            characters += sum(map(len, job.texts))
            if jobs and (texts > self.batch_size or characters > BATCH_CHARACTERS):
                break
            self._jobs.popleft()
            self.waiting -= len(job.texts)
            if job.done.done():  # cancelled, or given up
                texts -= len(job.texts)
                characters -= sum(map(len, job.texts))
            else:
                jobs.append(job)
        return jobs

    async def _predict(self, jobs: list[_Job]) -> None:
        texts = [text for job in jobs for text in job.texts]
        begun = time.perf_counter()
        try:
            scored: Scored = await self.call(self.classifier.score, texts)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # also the panics of Rust's tokenizers; the request gets it, the queue goes on
            if len(jobs) == 1:
                if not jobs[0].done.done():
                    plain = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
                    jobs[0].done.set_exception(plain)
                return
            for job in jobs:  # one by one, so that only the job at fault fails
                await self._predict([job])
            return
        seconds = time.perf_counter() - begun
        self._observe(len(texts), scored.truncated, seconds)
        place = 0
        for job in jobs:
            part = scored.probabilities[place : place + len(job.texts)]
            place += len(job.texts)
            job.seconds = seconds
            if not job.done.done():
                job.done.set_result(part)

"""The classifiers that are served, each with its queues: what the endpoints do, without the HTTP around it.

Requests of one text have a queue and a thread of their own. Larger ones and explanations are predicted by a background
thread on what the former leave of the cores, so that they never hold single texts up.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from textladder.classifier import TextClassifier
from textladder.cores import enter_background
from textladder.errors import unknown_name
from textladder.explain import Explanation, Occlusion, exact_explanation
from textladder.serving.limits import Limits, Refused
from textladder.serving.measuring import Metrics
from textladder.serving.queue import BATCH_SIZE, PredictionQueue, QueueClosed, QueueFull
from textladder.wording import counted

MAX_EXPLANATIONS = 8  # waiting, each perhaps for seconds of the others' computation
LINEAR_BATCH = 8  # texts of a background batch of a linear level: some milliseconds
STUCK_SECONDS = 30  # a batch takes a few seconds at most
LOG = logging.getLogger("textladder")


class Service:
    """Classifiers by name, each with its queues.

    Args:
        classifiers: the fitted classifiers; the first one is the default.
        limits: what is accepted.
    """

    def __init__(self, classifiers: Mapping[str, TextClassifier], limits: Limits) -> None:
        self.classifiers, self.limits, self.metrics = classifiers, limits, Metrics()
        self._single: dict[str, PredictionQueue] = {}
        self._background: dict[str, PredictionQueue] = {}
        self._running = self._stopping = False
        self._explanations = 0  # waiting, or being computed
        self._explaining = asyncio.Lock()

    @asynccontextmanager
    async def running(self, executor: Executor | None) -> AsyncIterator[None]:
        """Predict for requests while the block runs; when it ends, first finish the accepted ones.

        Args:
            executor: runs the predictions of single texts; None to create a thread for them.
        """
        with (
            ThreadPoolExecutor(1) if executor is None else nullcontext(executor) as thread,
            ThreadPoolExecutor(1, "linear") as linear,
            ThreadPoolExecutor(1, "networks", initializer=enter_background) as networks,
        ):
            for name, classifier in self.classifiers.items():
                observe = self.metrics.batch_observer(name)
                # A linear level computes in Python. A thread of low priority that has to wait for a core while it holds
                # Python's lock would hold everyone up: single texts took 8 times as long beside explanations.
                # Instead, its batches are short, and begin when no single text is being predicted.
                background = linear if classifier.linear else networks
                self._single[name] = PredictionQueue(
                    classifier, thread, max_waiting=self.limits.waiting, observe=observe
                )
                self._background[name] = PredictionQueue(
                    classifier,
                    background,
                    max_waiting=self.limits.waiting,
                    batch_size=LINEAR_BATCH if classifier.linear else BATCH_SIZE,
                    observe=observe,
                    give_way=self._predicts_single_texts,
                )
                self.metrics.waiting.labels(name).set_function(partial(self._waiting, name))
            tasks = [asyncio.create_task(_supervise(queue)) for queue in self._queues()]
            self._running = True
            yield
            for queue in self._queues():
                queue.close()
            await asyncio.gather(*tasks)

    def stop(self, seconds: float) -> None:
        """Accept no more requests, refuse the explanations, and after some seconds everything that still waits."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        for queue in self._queues():
            queue.close()
            loop.call_later(seconds, queue.give_up)

    def not_ready(self) -> str | None:
        """Why requests would not be answered now, in a sentence; None if they would."""
        if not self._running or self._stopping:
            return "The service is shutting down." if self._stopping else "The service has not started."
        for queues in (self._single, self._background):
            for name, queue in queues.items():
                busy = 0.0 if queue.busy_since is None else time.monotonic() - queue.busy_since
                if busy > STUCK_SECONDS:
                    return f"{name} has been computing one batch for {busy:.0f} seconds."
        return None

    def resolve(self, name: str | None) -> str:
        """The name of a model, or of the default model for None.

        Raises:
            Refused: there is no such model.
        """
        name = next(iter(self.classifiers)) if name is None else name
        if name not in self.classifiers:
            raise Refused(404, "unknown_model", unknown_name("model", name[:100], self.classifiers))
        return name

    async def probabilities(self, name: str, texts: list[str]) -> tuple[np.ndarray, float]:
        """Class probabilities, float32 (texts, classes), and the seconds of computation.

        Args:
            name: name of the model.
            texts: one or more.

        Raises:
            Refused: the queue is full, the service is stopping, or it took too long.
        """
        queue = (self._single if len(texts) == 1 else self._background)[name]
        with self._refusing(name):
            async with asyncio.timeout(self.limits.seconds):
                return await queue.probabilities(texts)

    async def explanation(
        self, name: str, text: str, is_disconnected: Callable[[], Awaitable[bool]]
    ) -> tuple[Explanation, float]:
        """The explanation of a prediction, and the seconds of computation; one explanation at a time.

        Args:
            name: name of the model.
            text: the text.
            is_disconnected: tells whether the client has disconnected; the rest is then not computed.

        Raises:
            Refused: as for `probabilities`, or the client has disconnected.
        """
        if self._explanations > MAX_EXPLANATIONS:
            self.metrics.refused.labels(name).inc()
            message = f"{self._explanations} explanations are waiting; try again in a moment."
            raise Refused(503, "queue_full", message, {"Retry-After": "1"})
        self._explanations += 1
        try:
            with self._refusing(name):
                async with asyncio.timeout(self.limits.seconds), self._explaining:
                    return await self._explain(name, text, is_disconnected)
        finally:
            self._explanations -= 1

    async def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the background thread of a model, between two batches."""
        return await self._background[name].call(function, *arguments)

    async def _explain(
        self, name: str, text: str, is_disconnected: Callable[[], Awaitable[bool]]
    ) -> tuple[Explanation, float]:
        queue = self._background[name]
        classifier = queue.classifier
        if self._stopping:
            raise QueueClosed
        rows, seconds = await queue.probabilities([text], admitted=True)
        prediction = classifier.prediction(rows[0])
        if classifier.linear:
            exact: Explanation = await queue.call(exact_explanation, classifier, text, prediction)
            return exact, seconds
        occlusion = await queue.call(Occlusion, text)
        label = int(rows[0].argmax())
        probabilities: list[float] = []
        for part in occlusion.parts():
            if self._stopping:
                raise QueueClosed
            if await is_disconnected():
                raise Refused(400, "gone", "The client disconnected.")
            rows, more = await queue.probabilities(part, admitted=True)
            probabilities += rows[:, label].tolist()
            seconds += more
        return occlusion.explanation(prediction, probabilities), seconds

    @contextmanager
    def _refusing(self, name: str) -> Iterator[None]:
        """Turn what keeps a model from answering into a refusal."""
        try:
            yield
        except QueueFull:
            self.metrics.refused.labels(name).inc()
            waiting = counted(self._waiting(name), "text")
            message = f"The queue of {name} is full ({waiting} waiting); try again in a moment."
            raise Refused(503, "queue_full", message, {"Retry-After": "1"}) from None
        except QueueClosed:
            raise Refused(503, "stopping", "The service is shutting down.") from None
        except TimeoutError:
            message = f"There was no answer within {counted(self.limits.seconds, 'second')}; try again, with less text."
            raise Refused(503, "timeout", message, {"Retry-After": "1"}) from None

    def _predicts_single_texts(self) -> bool:
        return any(queue.waiting or queue.busy_since is not None for queue in self._single.values())

    def _queues(self) -> list[PredictionQueue]:
        return [*self._single.values(), *self._background.values()]

    def _waiting(self, name: str) -> int:
        return self._single[name].waiting + self._background[name].waiting


async def _supervise(queue: PredictionQueue) -> None:
    """Run a queue, and start it again should it ever fail."""
    while True:
        try:
            await queue.run()
        except Exception as error:
            LOG.error("a queue of predictions failed and is started again", exc_info=error)
            await asyncio.sleep(0.1)
        else:
            return

"""The classifiers that are served, each with its queue: what the endpoints do, without the HTTP around it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from functools import partial

import numpy as np

from textladder.classifier import TextClassifier
from textladder.errors import unknown_name
from textladder.explain import Explanation, Occlusion, exact_explanation
from textladder.serving.limits import Limits, Refused
from textladder.serving.measuring import Metrics
from textladder.serving.queue import PredictionQueue, QueueClosed, QueueFull
from textladder.wording import counted


class Service:
    """Classifiers by name, each with its queue.

    Args:
        classifiers: the fitted classifiers; the first one is the default.
        limits: what is accepted.
    """

    def __init__(self, classifiers: Mapping[str, TextClassifier], limits: Limits) -> None:
        self.classifiers, self.limits, self.metrics = classifiers, limits, Metrics()
        self._queues: dict[str, PredictionQueue] = {}

    @asynccontextmanager
    async def running(self, executor: Executor | None) -> AsyncIterator[None]:
        """Predict for requests while the block runs; when it ends, first finish the accepted ones.

        Args:
            executor: runs the predictions; None to create a thread for them.
        """
        with ThreadPoolExecutor(1) if executor is None else nullcontext(executor) as thread:
            for name, classifier in self.classifiers.items():
                observe = self.metrics.batch_observer(name)
                queue = PredictionQueue(classifier, thread, max_waiting=self.limits.waiting, observe=observe)
                self.metrics.waiting.labels(name).set_function(partial(getattr, queue, "waiting"))
                self._queues[name] = queue
            queues = list(self._queues.values())
            tasks = [asyncio.create_task(queue.run()) for queue in queues]
            yield
            for queue in queues:
                queue.close()
            await asyncio.gather(*tasks)

    def resolve(self, name: str | None) -> str:
        """The name of a model, or of the default model for None.

        Raises:
            Refused: there is no such model.
        """
        name = next(iter(self.classifiers)) if name is None else name
        if name not in self.classifiers:
            raise Refused(404, "unknown_model", unknown_name("model", name[:100], self.classifiers))
        return name

    async def probabilities(self, name: str, texts: list[str], *, admitted: bool = False) -> tuple[np.ndarray, float]:
        """Class probabilities, float32 (texts, classes), and the seconds of computation.

        Args:
            name: name of the model.
            texts: one or more.
            admitted: the texts belong to a request that was accepted before, so they are not refused now.

        Raises:
            Refused: the queue is full, or the service is stopping.
        """
        queue = self._queues[name]
        try:
            return await queue.probabilities(texts, admitted=admitted)
        except QueueFull:
            self.metrics.refused.labels(name).inc()
            message = f"The queue of {name} is full ({counted(queue.waiting, 'text')} waiting); try again in a moment."
            raise Refused(503, "queue_full", message, {"Retry-After": "1"}) from None
        except QueueClosed:
            raise Refused(503, "stopping", "The service is shutting down.") from None

    async def explanation(
        self, name: str, text: str, is_disconnected: Callable[[], Awaitable[bool]]
    ) -> tuple[Explanation, float]:
        """The explanation of a prediction, and the seconds of computation.

        Args:
            name: name of the model.
            text: the text.
            is_disconnected: tells whether the client has disconnected; the rest is then not computed.

        Raises:
            Refused: as for `probabilities`, or the client has disconnected.
        """
        queue, occlusion = self._queues[name], Occlusion(text)
        classifier = queue.classifier
        parts = iter(()) if classifier.linear else occlusion.parts()
        rows, seconds = await self.probabilities(name, [text, *next(parts, [])])
        prediction = classifier.prediction(rows[0])
        if classifier.linear:
            exact: Explanation = await queue.call(exact_explanation, classifier, text, prediction)
            return exact, seconds
        label = int(rows[0].argmax())
        probabilities: list[float] = rows[1:, label].tolist()
        for part in parts:
            if await is_disconnected():
                raise Refused(400, "gone", "The client disconnected.")
            rows, more = await self.probabilities(name, part, admitted=True)
            probabilities += rows[:, label].tolist()
            seconds += more
        return occlusion.explanation(prediction, probabilities), seconds

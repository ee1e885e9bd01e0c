"""Hostile clients of a service, for some seconds.

    python attack.py PORT SECONDS

A thousand connections that say nothing, a thousand that send a byte of a head each second, a hundred explanations of
20,000 characters, six at a time, heads of 2,000 lines and one of 200 MB. The addresses are this machine's own. What was
answered is printed as JSON.
"""

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections import Counter

HOST = "127.0.0.1"
MANY = 1000
AGAIN = 5.0  # seconds until a connection that was closed is made again
WORDS = ("a good strong kettle that boils " * 700)[:20_000]


class Attack:
    """All of it, until a time."""

    def __init__(self, port: int, seconds: float) -> None:
        self.port, self.end = port, time.monotonic() + seconds
        self.seen: Counter[str] = Counter()
        self.explanations = iter(range(100))

    async def _send(self, head: bytes, body: bytes = b"") -> str:
        """One request; its status."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        with contextlib.closing(writer):
            writer.write(head + body)
            answer = await reader.read(100)
            return answer.split(b" ")[1].decode() if answer else "closed"

    async def silent(self) -> None:
        """Say nothing, and come again when it is closed."""
        while time.monotonic() < self.end:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(HOST, self.port)
                self.seen["silent"] += 1
                with contextlib.closing(writer), contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.1, self.end - time.monotonic())):
                        await reader.read(1)
            await asyncio.sleep(AGAIN)

    async def slow(self) -> None:
        """Send a byte each second, and come again when it is closed."""
        while time.monotonic() < self.end:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, self.port)
                self.seen["slow"] += 1
                with contextlib.closing(writer):
                    for byte in b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000:
                        if time.monotonic() > self.end:
                            return
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(1)
            await asyncio.sleep(AGAIN)

    async def explain(self) -> None:
        """Ask for explanations, one after the other."""
        body = json.dumps({"text": WORDS}).encode()
        head = (
            f"POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        for _ in self.explanations:
            if time.monotonic() > self.end:
                return
            with contextlib.suppress(OSError):
                self.seen[f"explain {await self._send(head, body)}"] += 1

    async def heads(self) -> None:
        """Send heads that are too long."""
        lines = b"".join(f"X-{number}: x\r\n".encode() for number in range(2000))
        for _ in range(20):
            with contextlib.suppress(OSError):
                self.seen[f"2,000 headers {await self._send(b'GET / HTTP/1.1' + bytes((13, 10)) + lines)}"] += 1
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, self.port)
            writer.write(b"GET / HTTP/1.1\r\nX: ")
            for sent in range(200):
                writer.write(b"x" * 1_000_000)
                self.seen["MB of a head"] = sent
                await writer.drain()

    async def run(self) -> None:
        """Everything at once."""
        many = [one() for _ in range(MANY) for one in (self.silent, self.slow)]
        await asyncio.gather(*many, *(self.explain() for _ in range(6)), self.heads())


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attack = Attack(int(sys.argv[1]), float(sys.argv[2]))
    asyncio.run(attack.run())
    print(json.dumps(attack.seen))

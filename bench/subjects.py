"""What is measured: each a server of its own, started for a while, that takes webhooks at a port.

Those it is compared with are in `bench/servers/`; the bridge is the real `bridge serve`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from postgres import Cluster, free_port
from service import Service, service

from bench import bodies
from bench.load import Load

_PATIENCE = 30.0
WEBHOOK_PROGRAM = shutil.which("webhook")
"""https://github.com/adnanh/webhook, where it is installed."""

_SEND = """printf '{{"name":"stripe/webhook","data":%s}}' "$BODY" | curl -s -o /dev/null --data-binary @- {url}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A server that runs."""

    name: str
    port: int
    roots: Sequence[int]
    """The pids of its first processes; those they start count too."""
    target: str = "/webhooks/stripe"
    header: str = "stripe-signature"

    def load(self, **what: Any) -> Load:
        return Load(port=self.port, target=self.target, header=self.header, **what)

    def processes(self) -> list[psutil.Process]:
        roots = [psutil.Process(pid) for pid in self.roots]
        return [*roots, *(child for root in roots for child in root.children(recursive=True))]

    def cpu_seconds(self) -> float:
        """Of all of them, and of those that have ended since."""
        return sum(sum(each.cpu_times()[:4]) for each in self.processes())

    def memory(self) -> dict[str, float]:
        """MB. `pss`: what they share is counted once."""
        full = [each.memory_full_info() for each in self.processes()]
        return {"pss": sum(each.pss for each in full) / 1e6, "rss": sum(each.rss for each in full) / 1e6}


@asynccontextmanager
async def ceiling(name: str) -> AsyncIterator[Subject]:
    """An aiohttp handler that reads the body, and answers."""
    port = free_port()
    async with _process(sys.executable, "-m", "bench.servers.ceiling", str(port), port=port) as pid:
        yield Subject(name=name, port=port, roots=[pid])


@asynccontextmanager
async def handwritten(name: str, api: str) -> AsyncIterator[Subject]:
    """FastAPI, uvicorn, and the SDKs of Stripe and Inngest."""
    port = free_port()
    async with _process(sys.executable, "-m", "bench.servers.handwritten", str(port), api, port=port) as pid:
        yield Subject(name=name, port=port, roots=[pid])


@asynccontextmanager
async def webhook(name: str, api: str) -> AsyncIterator[Subject]:
    """adnanh's, with a rule that checks an HMAC, and curl to send the body on."""
    assert WEBHOOK_PROGRAM is not None  # noqa: S101 - whoever calls has looked
    port = free_port()
    rule = {"match": {"type": "payload-hmac-sha256", "secret": bodies.SECRET.decode()}}
    rule["match"]["parameter"] = {"source": "header", "name": "X-Signature"}  # type: ignore[assignment]  # JSON
    hook = {
        "id": "bench",
        "execute-command": "/bin/sh",
        "pass-arguments-to-command": [
            {"source": "string", "name": "-c"},
            {"source": "string", "name": _SEND.format(url=f"{api}/e/key")},
        ],
        "pass-environment-to-command": [{"envname": "BODY", "source": "entire-payload"}],
        "include-command-output-in-response": True,  # only then it waits for the command
        "trigger-rule": rule,
        "trigger-rule-mismatch-http-response-code": 401,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as hooks:
        json.dump([hook], hooks)
        hooks.flush()
        async with _process(
            *(WEBHOOK_PROGRAM, "-hooks", hooks.name, "-ip", "127.0.0.1", "-port", str(port)), port=port
        ) as pid:
            yield Subject(name=name, port=port, roots=[pid], target="/hooks/bench", header="x-signature")


@asynccontextmanager
async def bridge(name: str, folder: Path, url: str, api: str, *roots: int) -> AsyncIterator[tuple[Subject, Service]]:
    """A real `bridge serve`, ready. `roots`: of the database it uses."""
    more = {"BRIDGE_JOURNAL": url, "STRIPE_WEBHOOK_SECRET": bodies.SECRET.decode()}
    async with service(folder, api, more) as running:
        yield subject_of(running, name, *roots), running


def subject_of(running: Service, name: str, *roots: int) -> Subject:
    return Subject(name=name, port=int(running.public.rpartition(":")[2]), roots=[running.pid, *roots])


def new_journal(kind: str, cluster: Cluster, folder: Path) -> tuple[str, Sequence[int]]:
    """The URL of one of this kind in which nothing is yet, and the pid of its database, where it has one."""
    if kind == "postgresql":
        return cluster.place(), [cluster.pid]
    return f"sqlite:///{folder}/bridge.db", []


@asynccontextmanager
async def postgresql(*, autovacuum_naptime: str = "1min") -> AsyncIterator[Cluster]:
    """As one would run it: what is acknowledged is on the disk."""
    cluster = Cluster(
        segment=16, fsync="on", shared_buffers="512MB", max_wal_size="4GB", autovacuum_naptime=autovacuum_naptime
    )
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@asynccontextmanager
async def _process(*command: str, port: int) -> AsyncIterator[int]:
    """Its pid, once it takes connections at the port."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is for who measures
    )
    try:
        await _listening(port, process)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_PATIENCE):
        while True:
            assert process.returncode is None, "it has ended"  # noqa: S101 - or nothing would be measured
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)

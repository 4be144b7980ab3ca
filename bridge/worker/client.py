"""The forwarder's side of a worker process: starts it, hands it entries, notices when it is lost.

Decides nothing: it says which entries were transformed, and what happened to the process if not all of them were.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bridge import worker
from bridge.companion import Companion
from bridge.errors import WorkerUnavailable
from bridge.model import Entry
from bridge.settings import TRACES_SECRETS, Settings
from bridge.transform import Result

# Beyond a transform's own time limit: the worker reports an asynchronous one that ran over it by itself.
_GRACE = 1.0
# Loading transforms may import half the world; a module that takes longer than this does not load.
_LOADING = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker is told when it starts. `time_limit`: seconds for one delivery."""

    directories: tuple[Path, ...]
    max_event_bytes: int
    time_limit: float
    expected: tuple[str, ...] = ()
    """The files of the modules that must be there: the built-in one would take the place of one that is gone."""

    @classmethod
    def of(cls, settings: Settings, *, expected: tuple[str, ...] = ()) -> WorkerSettings:
        return cls(
            expected=expected,
            directories=tuple(map(Path, settings.transforms)),
            max_event_bytes=settings.event_api.max_event_bytes,
            time_limit=settings.transform_timeout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a worker says of its transforms: names of modules, and a line for each that did not load."""

    own: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Of all modules, those too that another of the same name wins over."""
    built_in: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


class Worker:
    """One process, started when it is first needed and again after it was lost. One batch at a time."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._companion: Companion | None = None
        self._busy = asyncio.Lock()

    async def start(self) -> Loaded:
        """Start the process if there is none. `faults` where it could not be started or a module did not load."""
        try:
            environment = {name: value for name, value in os.environ.items() if name not in TRACES_SECRETS}
            self._companion = await Companion.start("bridge.worker", environment=environment)
        except OSError as error:  # no more processes, or files
            return Loaded(faults=(f"transforms: no process for them can be started: {error.strerror}",))
        self._send(
            {
                "directories": [str(path) for path in self._settings.directories if path.is_dir()],
                "max_event_bytes": self._settings.max_event_bytes,
                "time_limit": self._settings.time_limit,
            }
        )
        loading, files = "transforms", list[str]()
        try:
            async with asyncio.timeout(_LOADING):
                while "loading" in (head := (await self._receive())[0]):
                    loading = head["loading"]
                    files.append(loading)
        except TimeoutError:
            await self.stop()
            return Loaded(faults=(f"{loading}: is not loaded after {_LOADING:g} s",))
        except (asyncio.IncompleteReadError, ConnectionError):
            return Loaded(faults=(f"{loading}: while it was loaded, {await self._lost()}",))
        gone = sorted({*self._settings.expected} - {*files})
        return Loaded(
            own=tuple(head["own"]),
            files=tuple(files),
            built_in=tuple(head["built_in"]),
            faults=(*head["faults"], *(f"{file}: was here when the bridge started, and is gone" for file in gone)),
        )

    async def run(
        self, entries: Sequence[Entry], *, now: int, until: float = math.inf
    ) -> tuple[list[Result | None], str]:
        """A result for each entry, in order, None where there is none; and how the process was lost, if it was.

        `until`, of the loop's clock, ends it: then nothing was lost, and those without a result were not tried.
        Raises WorkerUnavailable where no process with all transforms could be started: no entry is at fault then.
        """
        results: list[Result | None] = [None] * len(entries)
        if not entries:
            return results, ""
        try:
            async with asyncio.timeout_at(None if until == math.inf else until):
                await self._busy.acquire()
        except TimeoutError:
            return results, ""
        try:
            return await self._run(entries, results, now=now, until=until)
        finally:
            self._busy.release()

    async def _run(
        self, entries: Sequence[Entry], results: list[Result | None], *, now: int, until: float
    ) -> tuple[list[Result | None], str]:
        if self._companion is None:
            loaded = await self.start()
            if loaded.faults:  # mended or not, nothing may go on as if they were not there
                await self.stop()
                raise WorkerUnavailable("; ".join(loaded.faults))
        try:
            await self._exchange(entries, results, now=now, until=until)
        except TimeoutError:
            await self.stop()
            return results, f"the transform took longer than {self._settings.time_limit:g} s"
        except (asyncio.IncompleteReadError, ConnectionError):
            return results, await self._lost()
        return results, ""

    async def _exchange(
        self, entries: Sequence[Entry], results: list[Result | None], *, now: int, until: float
    ) -> None:
        assert self._companion is not None  # noqa: S101 - the type checker can't see it
        self._companion.writer.write(worker.work(entries, now=now))
        open_ = len(entries)
        while open_:
            if asyncio.get_running_loop().time() >= until:
                await self.stop()  # in the middle of the rest, which another batch must not wait for
                return
            # Each message starts the clock anew: it is one delivery's time that is limited, not the batch's.
            head, blob = await self._in_time(self._settings.time_limit + _GRACE)
            for place, result in worker.read_results(head, memoryview(blob)):
                results[place] = result
                open_ -= 1

    async def _in_time(self, seconds: float) -> tuple[dict[str, Any], bytes]:
        """The next message. Raises TimeoutError when we waited so long for it, awake.

        In small steps: when the machine or this process was suspended, that is one step, and nobody's fault.
        """
        receiving = asyncio.ensure_future(self._receive())
        try:
            for _ in range(max(1, round(seconds / 0.25))):
                done, _ = await asyncio.wait([receiving], timeout=0.25)
                if done:
                    return receiving.result()
            raise TimeoutError
        finally:
            receiving.cancel()

    def _send(self, head: object) -> None:
        assert self._companion is not None  # noqa: S101 - the type checker can't see it
        self._companion.writer.write(worker.frame(head))

    async def _receive(self) -> tuple[dict[str, Any], bytes]:
        assert self._companion is not None  # noqa: S101 - the type checker can't see it
        reader = self._companion.reader
        head_size, blob_size = worker.LENGTHS.unpack(await reader.readexactly(worker.LENGTHS.size))
        head: dict[str, Any] = orjson.loads(await reader.readexactly(head_size))
        return head, await reader.readexactly(blob_size)

    async def _lost(self) -> str:
        """What became of a process that closed the channel by itself."""
        return f"its process {await self.stop()}"

    async def stop(self) -> str:
        """End the process, if there is one. How it ended."""
        companion, self._companion = self._companion, None
        return "is gone" if companion is None else await companion.stop()

"""The worker process: real processes, with transforms that misbehave."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from bridge.errors import WorkerUnavailable
from bridge.model import Entry, Outcome
from bridge.process import command
from bridge.settings import Settings
from bridge.worker import client
from bridge.worker.client import Worker, WorkerSettings

NOW = 1_700_000_100_000

MISBEHAVING = """
import asyncio, os, sys, time
from bridge import Event, Retry
from transforms.stripe import transform as builtin

async def slowly(delivery):
    await asyncio.sleep(0.05)
    return builtin(delivery)

async def never(delivery):
    await asyncio.sleep(3600)

async def cancelled(delivery):
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task

def transform(delivery):
    match delivery.type:
        case "loop":
            while True:
                pass
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), 9)
        case "print":
            print("to standard output")
        case "raise":
            raise ValueError("no")
        case "nap":
            time.sleep(0.2)
        case "async":
            return slowly(delivery)
        case "never":
            return never(delivery)
        case "cancelled":
            return cancelled(delivery)
    return builtin(delivery)
"""


@pytest.fixture
async def make_worker(tmp_path: Path) -> AsyncIterator[Callable[..., Worker]]:
    (tmp_path / "stripe.py").write_text(MISBEHAVING)
    made: list[Worker] = []

    def make(directory: Path = tmp_path, time_limit: float = 0.5) -> Worker:
        made.append(Worker(WorkerSettings(directories=(directory,), max_event_bytes=100_000, time_limit=time_limit)))
        return made[-1]

    yield make
    for worker in made:
        await worker.stop()


def of_type(type_: str, body: bytes | None = None) -> Entry:
    payload = {"id": f"evt_{type_}", "object": "event", "type": type_, "created": 1_700_000_000, "data": {"object": {}}}
    body = orjson.dumps(payload) if body is None else body
    return Entry(
        seq=1,
        source="stripe",
        provider="stripe",
        prefix="stripe",
        id=f"evt_{type_}",
        type=type_,
        occurred_at=1_700_000_000_000,
        received_at=1_700_000_001_000,
        size=len(body),
        headers={},
        body=body,
    )


async def test_it_says_what_it_loaded(make_worker: Callable[..., Worker]) -> None:
    loaded = await make_worker().start()
    assert loaded.own == ("stripe",)
    assert loaded.built_in == ("intercom", "slack", "stripe")
    assert not loaded.faults


async def test_results_are_in_the_order_of_the_entries(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    types = ["a.b", "async", "raise", "print", "c.d"]
    results, how = await worker.run([of_type(each) for each in types], now=NOW)
    assert how == ""
    assert [None if r is None else (r.outcome, r.ids) for r in results] == [
        (None, ("stripe/a.b:evt_a.b",)),
        (None, ("stripe/async:evt_async",)),
        (Outcome.RAISED, ()),
        (None, ("stripe/print:evt_print",)),
        (None, ("stripe/c.d:evt_c.d",)),
    ]
    first = results[0]
    assert first is not None
    assert orjson.loads(first.events[0])["ts"] == 1_700_000_000_000


@pytest.mark.parametrize(
    ("type_", "how"),
    [
        ("loop", "the transform took longer than 0.5 s"),
        ("exit", "its process ended with exit status 3"),
        ("kill", "its process was ended by signal 9"),
    ],
)
async def test_a_lost_process_is_told_and_the_next_batch_has_a_new_one(
    make_worker: Callable[..., Worker], type_: str, how: str
) -> None:
    worker = make_worker()
    results, told = await worker.run([of_type("a.b"), of_type(type_), of_type("c.d")], now=NOW)
    assert told == how
    assert results[1] is None
    assert results[2] is None
    results, told = await worker.run([of_type("c.d")], now=NOW)
    assert told == ""
    assert results[0] is not None


async def test_an_asynchronous_one_that_takes_too_long_costs_the_others_nothing(
    make_worker: Callable[..., Worker],
) -> None:
    worker = make_worker(time_limit=0.2)
    results, how = await worker.run([of_type("never"), of_type("async")], now=NOW)
    assert how == ""
    stuck, done = results
    assert stuck is not None
    assert done is not None
    assert (stuck.outcome, stuck.error) == (Outcome.STUCK, "the transform took longer than 0.2 s")
    assert done.outcome is None


async def test_one_that_awaits_what_was_cancelled_raised_like_another(make_worker: Callable[..., Worker]) -> None:
    results, how = await make_worker().run([of_type("cancelled"), of_type("async")], now=NOW)
    assert how == ""
    assert [result and result.outcome for result in results] == [Outcome.RAISED, None]


async def test_large_bodies_and_many_entries_come_through_whole(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    text = "x" * 90_000
    big = orjson.dumps({"id": "evt_big", "object": "event", "type": "big", "created": 1_700_000_000, "text": text})
    entries = [of_type("big", big)] * 50 + [of_type("a.b")] * 500
    results, _ = await worker.run(entries, now=NOW)
    assert len(results) == 550
    for result in results[:50]:
        assert result is not None
        assert orjson.loads(result.events[0])["data"]["text"] == text


async def test_a_body_that_is_no_json_is_unusable_and_an_unknown_provider_too(
    make_worker: Callable[..., Worker],
) -> None:
    worker = make_worker()
    gone = replace(of_type("a.b"), provider="gone")
    results, _ = await worker.run([of_type("a.b", b"\xff"), gone, replace(gone, provider="stripe", body=None)], now=NOW)
    assert [result and result.outcome for result in results] == [Outcome.UNUSABLE] * 3


async def test_one_that_was_stopped_and_reads_nothing_is_lost_like_one_that_loops(
    make_worker: Callable[..., Worker],
) -> None:
    """Once, what it did not read kept the channel open, and forwarding waited for it for ever."""
    worker = make_worker()
    await worker.run([of_type("a.b")], now=NOW)
    assert worker._companion is not None
    worker._companion._process.send_signal(signal.SIGSTOP)
    large = orjson.dumps({"id": "evt_l", "object": "event", "type": "l", "text": "x" * 3_000_000})
    results, how = await worker.run([of_type("l", large)], now=NOW)
    assert (results, how) == ([None], "the transform took longer than 0.5 s")
    results, how = await worker.run([of_type("a.b")], now=NOW)
    assert how == ""


async def test_what_is_not_done_in_the_batchs_time_was_not_lost(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker()
    await worker.start()
    soon = asyncio.get_running_loop().time() + 0.3
    results, how = await worker.run([of_type("nap")] * 20, now=NOW, until=soon)
    assert how == ""
    assert results[0] is not None
    assert results[-1] is None


async def test_a_module_that_no_longer_loads_makes_it_unavailable_and_nothing_goes_on_without_it(
    make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = make_worker()
    assert (await worker.run([of_type("exit")], now=NOW))[0] == [None]
    (tmp_path / "stripe.py").write_text("def transform(delivery)")
    with pytest.raises(WorkerUnavailable, match="SyntaxError"):
        await worker.run([of_type("a.b")], now=NOW)
    (tmp_path / "stripe.py").write_text(MISBEHAVING)
    results, _ = await worker.run([of_type("a.b")], now=NOW)
    assert results[0] is not None


async def test_a_module_that_another_wins_over_since_is_not_gone(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    for directory in (first, second):
        directory.mkdir()
    (first / "stripe.py").write_text("def transform(delivery): return None")
    settings = WorkerSettings(directories=(first, second), max_event_bytes=1000, time_limit=1)
    worker = Worker(settings)
    expected = (await worker.start()).files
    await worker.stop()
    (second / "stripe.py").write_text("def transform(delivery): return None")
    worker = Worker(replace(settings, expected=expected))
    assert (await worker.start()).faults == ()
    await worker.stop()


async def test_a_directory_that_was_away_is_looked_for_at_each_start(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stripe.py").write_text("def transform(delivery): return None")
    settings = Settings(transforms=(str(tmp_path / "mine"),))
    worker = Worker(WorkerSettings.of(settings))
    expected = (await worker.start()).files
    await worker.stop()
    (tmp_path / "mine").rename(tmp_path / "away")
    worker = Worker(WorkerSettings.of(settings, expected=expected))
    [fault] = (await worker.start()).faults
    assert fault == f"{tmp_path}/mine/stripe.py: was here when the bridge started, and is gone"
    await worker.stop()
    (tmp_path / "away").rename(tmp_path / "mine")
    assert (await worker.start()).faults == ()
    await worker.stop()


async def test_a_module_that_ends_the_process_while_it_is_loaded_is_a_fault(
    make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    (tmp_path / "stripe.py").write_text("import os\nos._exit(7)")
    loaded = await make_worker().start()
    assert loaded.faults == (f"{tmp_path}/stripe.py: while it was loaded, its process ended with exit status 7",)


async def test_a_module_that_never_is_loaded_is_a_fault_that_names_it(
    make_worker: Callable[..., Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_LOADING", 0.5)
    (tmp_path / "stripe.py").write_text("while True: pass")
    loaded = await make_worker().start()
    assert loaded.faults == (f"{tmp_path}/stripe.py: is not loaded after 0.5 s",)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the end of file on the channel has to do")
def test_a_transform_that_loops_does_not_outlive_a_forwarder_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "stripe.py").write_text("import os\nprint(os.getpid(), flush=True)\nwhile True: pass")
    script = f"""
import asyncio
from pathlib import Path
from bridge.worker.client import Worker, WorkerSettings
settings = WorkerSettings(directories=(Path({str(tmp_path)!r}),), max_event_bytes=1000, time_limit=5)
asyncio.run(Worker(settings).start())
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert parent.stderr is not None
    worker = int(parent.stderr.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    # Ends when the last process that holds it has ended: without its death, this waits for ever.
    assert parent.stderr.read() == ""
    parent.stderr.close()
    assert worker != parent.pid


def test_what_runs_the_users_code_loads_neither_server_nor_database() -> None:
    script = (
        "import sys, bridge.worker.__main__, bridge.providers; bridge.providers.load();"
        "print(sorted(set(sys.modules) & {'aiohttp','asyncio','pydantic','sqlite3','stripe','prometheus_client'}))"
    )
    ran = subprocess.run([*command("bridge")[:2], "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

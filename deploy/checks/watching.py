"""A real Prometheus on loopback that watches a bridge as deploy/prometheus has it, but every second; and what it answers."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from processes import die_with_parent
from rules import ALERTS, PROMETHEUS
from service import until
from tools import path_of


class Prometheus:
    """Asked by its HTTP API, as Grafana does: https://prometheus.io/docs/prometheus/latest/querying/api/"""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def ready(self) -> bool:
        try:
            async with self._session.get(f"{self._url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def api(self, path: str, **parameters: str) -> Any:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The series it gives now: labels and value."""
        found = (await self.api("query", query=expression))["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    async def until(self, expression: str, value: float) -> None:
        """Return when the one series it gives has the value."""

        async def is_so() -> bool:
            return [found for _, found in await self.query(expression)] == [value]

        try:
            await until(is_so, every=0.2)
        except TimeoutError:
            raise AssertionError(f"{expression}: {await self.query(expression)}, not {value}") from None


@asynccontextmanager
async def prometheus(
    folder: Path, *, target: str, token: str, namespaces: Iterable[str] = ("",)
) -> AsyncIterator[Prometheus]:
    """Watching the private listener at `target`, once for each namespace, as if it were one there. Empty: outside of all."""
    (folder / "token").write_text(token)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_configuration(target, namespaces, folder / "token")))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        path_of("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
        stdin=asyncio.subprocess.DEVNULL,
        preexec_fn=partial(die_with_parent, signal.SIGKILL),
    )
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            found = Prometheus(f"http://{address}", session)
            await until(found.ready, every=0.2)
            yield found
    finally:
        process.kill()
        await process.wait()


def _configuration(target: str, namespaces: Iterable[str], token: Path) -> Any:
    """The one that is shipped, for one bridge whose address is known."""
    told = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    told["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    told["rule_files"] = [str(ALERTS)]
    [job] = told["scrape_configs"]
    assert job["authorization"] == {"credentials_file": "/run/secrets/BRIDGE_ADMIN_TOKEN"}
    job["authorization"] = {"credentials_file": str(token)}
    del job["dns_sd_configs"]
    job["static_configs"] = [
        {"targets": [target], "labels": {"namespace": each} if each else {}} for each in namespaces
    ]
    return told

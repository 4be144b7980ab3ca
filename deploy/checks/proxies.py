"""nginx and Caddy with the files of deploy/, in a network of their own: so they and the bridge have the ports they will have."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

import trustme
from processes import die_with_parent
from receiving import Answer, answer
from service import Service, service
from tools import DEPLOY, path_of, run

from bridge.stand_in import StandIn

HOST = "hooks.example.com"
_CLONE_NEWNET = 0x40000000
_CA = trustme.CA()
_TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CA.configure_trust(_TRUSTING)


@contextmanager
def network() -> Iterator[None]:
    """This thread, and all that it starts meanwhile, has nothing but a loopback, on which each port is free."""
    libc = ctypes.CDLL(None, use_errno=True)
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        assert libc.setns(ours, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(ours)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, its file in deploy/, and what starts it, given a file."""

    name: str
    file: str
    command: tuple[str, ...]

    @asynccontextmanager
    async def running(self, folder: Path, changes: Mapping[str, str] | None = None) -> AsyncIterator[None]:
        """With its file as it is, but for the changes, and what can't be the same here."""
        _certificate(folder)
        text = (DEPLOY / self.file).read_text()
        for there, here in {**_here(folder)[self.name], **(changes or {})}.items():
            assert there in text, there
            text = text.replace(there, here)
        file = folder / self.file
        file.write_text(text)
        process = await asyncio.create_subprocess_exec(
            path_of(self.command[0]),
            *self.command[1:],
            file,
            env={**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=partial(die_with_parent, signal.SIGTERM),
        )
        try:
            await _listening(process)
            yield
        finally:
            process.terminate()
            await process.wait()


NGINX = Proxy("nginx", "nginx.conf", ("nginx", "-g", "daemon off;", "-c"))
CADDY = Proxy("caddy", "Caddyfile", ("caddy", "run", "--adapter", "caddyfile", "--config"))
# Beside that of PyPI the oldest there is: 2.6, in Debian 12 and 13 and in Ubuntu.
CADDY_OF_DEBIAN = Proxy("caddy", "Caddyfile", ("/usr/bin/caddy", *CADDY.command[1:]))
PROXIES = (NGINX, CADDY)


def _here(folder: Path) -> dict[str, dict[str, str]]:
    """nginx must not write where another one may. To Caddy nobody can issue a certificate here."""
    there = f"/etc/letsencrypt/live/{HOST}"
    return {
        "nginx": {
            f"{there}/fullchain.pem": f"{folder}/chain.pem",
            f"{there}/privkey.pem": f"{folder}/key.pem",
            "/run/nginx.pid": f"{folder}/nginx.pid",
            "/var/log/nginx/": f"{folder}/",
        },
        "caddy": {f"\n{HOST} {{\n": f"\n{HOST} {{\n\ttls {folder}/chain.pem {folder}/key.pem\n"},
    }


def _certificate(folder: Path) -> None:
    _CA.cert_pem.write_to_path(folder / "authority.pem")
    issued = _CA.issue_cert(HOST)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "chain.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))


async def _listening(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(20):
        while True:
            assert process.returncode is None, "it has ended"
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", 443)
                writer.close()
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def connection(source: str = "127.0.0.1") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """To the proxy, as whoever has this address."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", 443, ssl=_TRUSTING, server_hostname=HOST, local_addr=(source, 0)
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(*pieces: bytes, source: str = "127.0.0.1", head: bool = False, patience: float = 30) -> Answer:
    """What is said to these bytes, on a connection of their own. Status 0: it was closed without an answer."""
    async with asyncio.timeout(patience), connection(source) as (reader, writer):
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        while (found := await answer(reader, head=head)).status == HTTPStatus.CONTINUE:
            pass
        return found


@asynccontextmanager
async def bridge_behind(
    proxy: Proxy, folder: Path, *, changes: Mapping[str, str] | None = None, settings: str = ""
) -> AsyncIterator[Service]:
    """Both as they come, on the ports they come with. `settings`: in the bridge's file."""
    api = StandIn()
    await api.start()
    (folder / "bridge.toml").write_text(settings)
    ports = {"BRIDGE_PORT": "8080", "BRIDGE_ADMIN_PORT": "8081"}
    async with service(folder, api.url, ports) as running, proxy.running(folder, changes):
        yield running
    await api.stop()

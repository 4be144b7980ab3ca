"""Where the bridge on this machine listens, and what it answers. Loads next to nothing: `health` runs every half minute."""

from __future__ import annotations

import os
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from bridge import runtime
from bridge.errors import BridgeError


def listeners() -> tuple[str, str]:
    """URLs of the public and the private one: as the running bridge says itself, to whom is where it was started; else as
    is configured.
    """
    public, private = runtime.addresses() or _configured()
    return local_url(*public), local_url(*private)


def local_url(bound: str, port: int) -> str:
    """A listener of the bridge on this machine, as one connects to it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound, bound)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def get(url: str, *, within: float, most: int, headers: Mapping[str, bytes] | None = None) -> tuple[int, str]:
    """The status, and at most so many bytes of the text. `within`: seconds. Raises BridgeError that says why there is none."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=within)
    try:
        connection.request("GET", parts.path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(most).decode(errors="replace")
    except TimeoutError:
        raise BridgeError(f"no answer within {within:g} s") from None
    except ValueError:  # it would quote the header
        raise BridgeError("no header can hold the token") from None
    except (OSError, HTTPException) as error:
        raise BridgeError((error.strerror if isinstance(error, OSError) else "") or type(error).__name__) from None
    finally:
        connection.close()


def _configured() -> list[tuple[str, int]]:
    from bridge import config  # noqa: PLC0415 - takes longer than all the rest

    settings, _ = config.read(os.environ, serving=False)  # what is wrong with it now was right when the bridge took it
    return [(settings.host, settings.port), (settings.admin_host, settings.admin_port)]

"""Reads `postgresql://...` as libpq does, and says what may be said of it: never its password, nor what may be a part of it.

All parameters are libpq's own: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

from difflib import get_close_matches
from urllib.parse import parse_qsl

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

EXPECTED = "postgresql://user:password@host/database"
_ENCODE = "special characters in a password are percent-encoded there: @ as %40, / as %2F, ? as %3F, # as %23, % as %25"

# What a URL does not say. A server that is gone without a word is noticed within about 15 seconds; and one that only
# reads, such as the standby after a failover, is none to store deliveries in.
_DEFAULTS = {
    "application_name": "bridge",
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "target_session_attrs": "read-write",
}
# What no URL changes: rows are read and written as this.
_FIXED = {"client_encoding": "UTF8"}


def parameters(url: str) -> dict[str, str]:
    """For libpq. Raises ValueError on what is no such URL."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        raise ValueError(_why_not(url)) from None
    hosts, ports = str(given.get("host", "")), str(given.get("port", ""))
    path = url.partition("://")[2].partition("/")[2].partition("?")[0]
    if "@" in hosts + path or not all(port.isdecimal() for port in ports.split(",") if port):
        raise ValueError(f"not understood: {_ENCODE}")
    return _DEFAULTS | {key: str(value) for key, value in given.items()} | _FIXED


def fault_of(url: str) -> str:
    """What is wrong with it, as far as can be told without connecting; empty: nothing."""
    try:
        parameters(url)
    except ValueError as error:
        return str(error)
    return ""


def shown(url: str) -> str:
    """Where it leads, and as whom."""
    try:
        given = parameters(url)
    except ValueError:
        return "postgresql://"
    hosts, ports = given.get("host", "").split(","), given.get("port", "").split(",")
    ports += ports[:1] * (len(hosts) - len(ports))  # one port is for all of them
    places = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False)]
    user = f"{given['user']}@" if "user" in given else ""
    return f"postgresql://{user}{','.join(places)}/{given.get('dbname', '')}"


def file_of(url: str) -> None:
    """As `bridge.journal.file_of`: a server keeps it."""
    del url


def _why_not(url: str) -> str:
    known = [option.keyword.decode() for option in Conninfo.get_defaults()]
    asked = [name for name, _ in parse_qsl(url.rpartition("?")[2])] if "?" in url else []
    for name in asked:
        near = get_close_matches(name, known, n=1, cutoff=0.7)
        if name not in known and near:
            return f"an unknown parameter; did you mean {near[0]}?"
    return f"not understood, expected {EXPECTED}; {_ENCODE}, and parameters behind the ? are libpq's"

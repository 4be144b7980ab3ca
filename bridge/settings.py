"""Every setting, declared once: its key in `bridge.toml`, its environment variable, its default and its help.

Plain dataclasses, so that the processes that only use them need not load pydantic; `bridge.config` fills and checks them.
Times are in the unit their key says: people write these.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, get_type_hints

from annotated_types import Ge, Interval, Len

from bridge.errors import BridgeError
from bridge.event import MAX_BYTES
from bridge.model import Source

# A key misspelled is a setting not made: unknown ones are faults.
STRICT: dict[str, object] = {"extra": "forbid", "str_strip_whitespace": True}
DEV_SERVER = "http://localhost:8288"
INNGEST = "https://inn.gs"
# Where it is set, traces are on. OpenTelemetry's own, like all that say more of them.
TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT"
# What these hold opens somebody's collector. The user's modules have no need of it.
TRACES_SECRETS = frozenset({"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"})
_OFF = frozenset({"", "0", "false", "no", "off"})
ON = frozenset({"1", "true", "yes", "on"})
Port = Annotated[int, Interval(ge=0, le=65535)]
Text = Annotated[str, Len(1)]


def _setting(default: Any, help_: str, *, env: str = "") -> Any:
    return field(default=default, metadata={"help": help_, "env": env})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """One `[sources.NAME]`: a URL `/webhooks/NAME`."""

    __pydantic_config__: ClassVar = STRICT

    provider: Text = field(metadata={"help": "`stripe`, `slack` or `intercom`", "env": ""})
    secrets: tuple[Text, ...] = field(
        repr=False,
        metadata={
            "help": '`["env:NAME", "file:PATH"]`, several while one is being rotated; by default the provider\'s variable',
            "env": "",
        },
    )
    prefix: Annotated[str, Len(1, 100)] | None = _setting(
        None, "What its event names begin with; by default the provider's name"
    )
    max_body: Annotated[int, Interval(ge=1024, le=32 << 20)] = _setting(
        1 << 20, "Bytes of the largest request taken, at most 32 MiB; a larger one is answered 413"
    )
    tolerance: Annotated[int, Ge(1)] = _setting(300, "Seconds a signed timestamp may lie from our clock, either way")

    def source(self, name: str) -> Source:
        return Source(
            name=name,
            provider=self.provider,
            prefix=self.prefix or self.provider,
            secrets=tuple(secret.encode() for secret in self.secrets),
            max_body=self.max_body,
            tolerance=self.tolerance * 1000,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventApiSettings:
    """`[event_api]`: where events go."""

    __pydantic_config__: ClassVar = STRICT

    key: str = field(
        default="",
        repr=False,
        metadata={"help": "The event key; in the file as `env:NAME` or `file:PATH`", "env": "INNGEST_EVENT_KEY"},
    )
    base_url: str = _setting(
        "",
        "Where the Event API is; by default `https://inn.gs`",
        env="INNGEST_EVENT_API_BASE_URL, else INNGEST_BASE_URL",
    )
    dev: str = _setting("", "`1` or a URL: the local dev server, which needs no key", env="INNGEST_DEV")
    env: str = _setting("", "The branch environment, sent as `x-inngest-env`", env="INNGEST_ENV")
    max_event_bytes: Annotated[int, Interval(ge=1024, le=3 << 20)] = _setting(
        MAX_BYTES, "The largest event your plan takes; a larger one makes its entry dead"
    )
    max_batch_bytes: Annotated[int, Interval(ge=1024, le=64 << 20)] = _setting(
        512_000, "Bytes of the largest request to the Event API"
    )
    max_batch_events: Annotated[int, Interval(ge=1, le=5000)] = _setting(
        400, "Events in one request to the Event API, at most 5,000"
    )
    timeout: Annotated[float, Interval(gt=0, le=60)] = _setting(
        30.0, "Seconds to wait for an answer of the Event API, at most 60"
    )

    @property
    def is_dev(self) -> bool:
        """A dev server takes any key."""
        return self.dev.lower() not in _OFF

    @property
    def url(self) -> str:
        """Where the Event API is."""
        if self.is_dev:
            return self.base_url or DEV_SERVER if self.dev.lower() in ON else self.dev
        return self.base_url or INNGEST


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """`[retention]`: how long the journal remembers what is finished. What is pending stays."""

    __pydantic_config__: ClassVar = STRICT

    bodies: Annotated[int, Ge(1)] = _setting(30, "Days until the bodies of finished deliveries are purged")
    ids: Annotated[int, Ge(1)] = _setting(
        35, "Days until finished deliveries are forgotten, so that duplicates are no longer known"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of them. The keys without a table stand at the head of `bridge.toml`."""

    __pydantic_config__: ClassVar = STRICT

    journal: Text = field(
        default="sqlite:///bridge.db",
        repr=False,  # there may be a password in it
        metadata={
            "help": "Where deliveries are kept: `sqlite:///path/file.db`, or `postgresql://...` for several bridges",
            "env": "BRIDGE_JOURNAL",
        },
    )
    journal_connections: Annotated[int, Interval(ge=1, le=100)] = _setting(
        4,
        "Connections to PostgreSQL that each process opens at most; a forwarder has one more",
        env="BRIDGE_JOURNAL_CONNECTIONS",
    )
    host: Text = _setting("0.0.0.0", "The public listener's address", env="BRIDGE_HOST")  # noqa: S104 - providers come from outside
    port: Port = _setting(8080, "The public listener's port", env="BRIDGE_PORT")
    admin_host: Text = _setting("127.0.0.1", "The private listener's address: health, metrics", env="BRIDGE_ADMIN_HOST")
    admin_port: Port = _setting(8081, "The private listener's port", env="BRIDGE_ADMIN_PORT")
    admin_token: tuple[Text, ...] = field(
        default=(),
        repr=False,
        metadata={
            "help": "What the private listener asks for, but for health; needed where others reach it; in the file as `env:NAME` or `file:PATH`",
            "env": "BRIDGE_ADMIN_TOKEN",
        },
    )
    transforms: tuple[Text, ...] = _setting(
        (),
        "More directories of transform modules, the last wins; in the variable separated by `:`",
        env="BRIDGE_TRANSFORMS",
    )
    transform_timeout: Annotated[float, Interval(gt=0, le=60)] = _setting(
        5.0, "Seconds a transform may take for one delivery, at most 60"
    )
    event_api: EventApiSettings = field(default_factory=EventApiSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)

    @property
    def is_open_to_others(self) -> bool:
        """Whether the private listener asks nobody for a token, and more than this machine reaches it."""
        return not self.admin_token and not _is_loopback(self.admin_host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def declared(of: type = Settings, path: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Every setting's key in `bridge.toml`, such as `event_api.timeout`, and its field."""
    hints = get_type_hints(of)
    for each in fields(of):
        if is_dataclass(hints[each.name]):
            yield from declared(hints[each.name], f"{path}{each.name}.")
        elif each.name == "sources":
            yield from declared(SourceSettings, "sources.NAME.")
        else:
            yield path + each.name, each


def packed(told: object) -> bytes:
    """What has settings in it, for another process of ours."""
    return pickle.dumps(_form()) + pickle.dumps(told)


def unpacked(said: io.BufferedIOBase) -> Any:
    """What was `packed`. Raises EOFError where nothing was, BridgeError where its sender or its reader is of another version:
    its values would be taken for those of other settings.
    """
    if pickle.load(said) != _form():  # noqa: S301 - from a process of ours, over a private channel
        raise BridgeError("the bridge was upgraded while it ran: restart it")
    return pickle.load(said)  # noqa: S301 - as above


def _form() -> list[str]:
    """What tells settings of one version of the bridge from those of another."""
    return [name for name, _ in declared()]

"""Slack: the Events API, interactivity and slash commands, three shapes of request under one signing secret.

Events are JSON with an id of their own. Interactivity is a form whose field `payload` is JSON, a slash command a form:
neither has an id, so one is made of what Slack repeats unchanged.
A request is never dropped for its `X-Slack-Retry-Num`: the first try may not have reached us.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from bridge.errors import Unusable
from bridge.model import Handshake, Payload, WebhookRequest
from bridge.payload import at, form, json_object, milliseconds, text
from bridge.schemes import StampedMac
from bridge.verify import Identity, Provider

_STAMP_HEADER = "x-slack-request-timestamp"
_TS = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,9}))?")
# Slack's own challenges have 56 characters. Whoever holds the secret may still not have us echo at length.
_LONGEST_CHALLENGE = 1024


def _parse(request: WebhookRequest) -> Payload:
    """By the body, not by the Content-Type: a form cannot begin with a brace."""
    if request.body.lstrip(b" \t\r\n")[:1] in {b"{", b"["}:
        return json_object(request.body)
    fields = form(request.body)
    if "payload" in fields and "command" not in fields:
        return json_object(fields["payload"].encode())
    return dict(fields)


def _handshake(payload: Payload) -> Handshake | None:
    if payload.get("type") == "url_verification":
        challenge = payload.get("challenge")
        if not isinstance(challenge, str) or not 0 < len(challenge) <= _LONGEST_CHALLENGE:
            raise Unusable("challenge: not a string of 1 to 1,024 characters")
        return Handshake(answer=challenge)
    if payload.get("ssl_check") == "1":
        return Handshake()
    return None


def _identify(payload: Payload, request: WebhookRequest) -> Identity:
    if "command" in payload:
        text(payload, "command")
        return _identity("slash_command", _composed("cmd", payload, ("trigger_id",)), payload, request)
    kind = text(payload, "type")
    if kind == "event_callback":
        return _event(payload)
    if kind == "app_rate_limited":
        minute = milliseconds(payload.get("minute_rate_limited"))
        if minute is None:
            raise Unusable("minute_rate_limited: missing, or no number of seconds")
        team = text(payload, "team_id")
        return Identity(id=f"slack:app_rate_limited:{team}:{minute // 1000}", type=kind, occurred_at=minute)
    if kind in {"view_submission", "view_closed"}:
        # The hash changes with every version of the view.
        return _identity(kind, _composed(kind, payload, ("view", "id"), ("view", "hash")), payload, request)
    if "event_id" in payload:  # an envelope we do not know
        return Identity(id=text(payload, "event_id"), type=kind, occurred_at=milliseconds(payload.get("event_time")))
    composed = _composed(kind, payload, ("trigger_id",)) or _composed(
        kind, payload, ("callback_id",), ("action_ts",), ("user", "id")
    )
    return _identity(kind, composed, payload, request)


def _event(payload: Payload) -> Identity:
    """`event_time` is when it was dispatched; some events have no `event_ts`."""
    return Identity(
        id=text(payload, "event_id"),
        type=at(payload, "event", "type"),
        type_at="event.type",
        occurred_at=_ts(at(payload, "event", "event_ts")) or milliseconds(payload.get("event_time")),
    )


def _composed(kind: str, payload: Payload, *paths: tuple[str, ...]) -> str | None:
    """`slack:{kind}:...` with what lies at the paths, or None where one of them leads nowhere."""
    if any(at(payload, *path) is None for path in paths):
        return None
    return ":".join(("slack", kind, *(text(payload, *path) for path in paths)))


def _identity(kind: str, composed: str | None, payload: Payload, request: WebhookRequest) -> Identity:
    actions = payload.get("actions")
    action = actions[0] if isinstance(actions, list) and actions else None
    return Identity(
        id=composed or f"slack:{kind}:{sha256(request.body).hexdigest()}",
        type=kind,
        occurred_at=_ts(payload.get("action_ts"))
        or _ts(at(action, "action_ts"))
        or _ts(request.headers.get(_STAMP_HEADER)),
    )


def _ts(ts: object) -> int | None:
    """`1595926230.009600` in ms, without the rounding of a float."""
    match = _TS.fullmatch(ts) if isinstance(ts, str) else None
    if match is None:
        return None
    seconds = milliseconds(int(match[1]))
    return None if seconds is None else seconds + int((match[2] or "").ljust(3, "0")[:3])


def _user(payload: Payload) -> Mapping[str, Any]:
    event = payload.get("event")
    # An id in most events, the whole user in team_join and user_change, an object in interactivity.
    who = at(event, "user") or at(event, "message", "user") or payload.get("user") or payload.get("user_id")
    team = payload.get("team_id") or at(payload, "team", "id") or at(payload, "user", "team_id")
    return {
        "slack_user_id": at(who, "id") if isinstance(who, dict) else who,
        "slack_team_id": team,
        "email": at(who, "profile", "email"),
    }


PROVIDER = Provider(
    name="slack",
    docs="https://docs.slack.dev/authentication/verifying-requests-from-slack",
    dashboard=(
        "api.slack.com/apps > your app: paste the URL under Event Subscriptions (Request URL), Interactivity & Shortcuts"
        " and each slash command; the secret is the `Signing Secret` under Basic Information"
    ),
    environment="SLACK_SIGNING_SECRET",
    scheme=StampedMac(
        stamp_header=_STAMP_HEADER, header="x-slack-signature", prefix="v0=", before=b"v0:", between=b":"
    ),
    parse=_parse,
    identify=_identify,
    handshake=_handshake,
    user=_user,
    secret_fields=(
        ("token",),
        ("bot_access_token",),
        ("event", "bot_access_token"),
        # https://docs.slack.dev/reference/interaction-payloads/block_actions-payload
        ("interactivity", "interactor", "secret"),
        ("event", "inputs", "interactivity", "interactor", "secret"),
    ),
    headers=("x-slack-retry-num", "x-slack-retry-reason"),
)

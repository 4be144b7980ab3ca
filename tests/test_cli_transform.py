"""`bridge transform`: the events a file or a stored delivery would become, and nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import T0, Ran, delivery, fill, on_terminal, run

from bridge import providers, samples
from bridge.model import State

BODY = (
    b'{"id":"evt_1","object":"event","type":"%b","created":1767225599,"api_version":"2026-01-28","data":{"object":{}}}'
)


@pytest.fixture
def body(tmp_path: Path) -> Path:
    folder = tmp_path / "stripe"
    folder.mkdir()
    (folder / "body.json").write_bytes(BODY % b"customer.created")
    return folder / "body.json"


def transform_of(folder: Path, text: str, name: str = "stripe") -> dict[str, str]:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / f"{name}.py").write_text(text)
    return {"BRIDGE_TRANSFORMS": "mine"}


def events(ran: Ran) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(ran.out)
    return found


def test_a_sample_goes_by_its_folders_name_whatever_is_configured(tmp_path: Path) -> None:
    for provider in ("stripe", "slack", "intercom"):
        folder = tmp_path / provider
        folder.mkdir()
        for name in samples.names(provider):
            (folder / name).write_bytes(samples.body(provider, name))
            ran = run("transform", str(folder / name), "--json", cwd=tmp_path)
            assert ran.status == 0
            assert all(str(event["name"]).startswith(f"{provider}/") for event in events(ran))


def test_a_file_becomes_the_event_with_all_that_is_filled_in(tmp_path: Path, body: Path) -> None:
    ran = run("transform", str(body), cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    event = json.loads(ran.out)
    assert (event["name"], event["id"]) == ("stripe/customer.created", "stripe/customer.created:evt_1")
    assert (event["ts"], event["v"]) == (T0 - 1000, "2026-01-28")
    assert [event] == events(run("transform", str(body), "--json", cwd=tmp_path))


def test_the_source_may_be_named(tmp_path: Path, body: Path) -> None:
    (tmp_path / "bridge.toml").write_text("[sources.eu]\nprovider = 'stripe'\nsecrets = ['env:EU']\nprefix = 'eu'")
    ran = run("transform", str(body), "--source", "eu", "--json", cwd=tmp_path, EU="s")
    assert events(ran)[0]["name"] == "eu/customer.created"


def test_a_file_of_which_the_source_is_not_known_is_a_slip_that_names_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(BODY)
    ran = run("transform", "body.json", cwd=tmp_path)
    assert (ran.status, ran.out) == (2, "")
    told = f"which source would body.json come to? Say --source, and one of {', '.join(providers.load())}"
    assert told in " ".join(ran.err.split())


def test_an_id_is_looked_up_in_the_journal(tmp_path: Path) -> None:
    fill(tmp_path, [(delivery("evt_1", type="invoice.paid"), State.FORWARDED), (delivery("evt_2"), State.PENDING)])
    ran = run("transform", "evt_1", "--json", cwd=tmp_path)
    assert [event["id"] for event in events(ran)] == ["stripe/invoice.paid:evt_1"]


def test_an_id_two_sources_have_wants_to_know_which(tmp_path: Path) -> None:
    fill(tmp_path, [(delivery("evt_1", source=source), State.PENDING) for source in ("stripe-eu", "stripe-us")])
    ran = run("transform", "evt_1", cwd=tmp_path)
    assert ran.status == 1
    assert "there are several: say which with --source stripe-us or stripe-eu" in ran.err
    assert run("transform", "evt_1", "--source", "stripe-eu", cwd=tmp_path).status == 0


def test_an_id_that_is_not_there_is_a_line(tmp_path: Path) -> None:
    ran = run("transform", "evt_1", cwd=tmp_path)
    assert ran == Ran(1, "", "bridge: evt_1: no such file, and there is no journal at sqlite:///bridge.db\n")
    assert list(tmp_path.iterdir()) == []
    fill(tmp_path, [(delivery("evt_2"), State.PENDING)])
    assert run("transform", "evt_1", cwd=tmp_path) == Ran(
        1, "", "bridge: evt_1: no such file, and not in the journal\n"
    )


def test_a_transform_of_the_users_is_used(tmp_path: Path, body: Path) -> None:
    text = "from bridge import Event\ndef transform(d): return [Event(name='a/b'), Event(name='a/b', data={'x': d.id})]"
    ran = run("transform", str(body), "--json", cwd=tmp_path, **transform_of(tmp_path, text))
    assert [event["id"] for event in events(ran)] == ["a/b:evt_1", "a/b:evt_1:2"]


def test_what_a_transform_prints_is_not_among_its_events(
    tmp_path: Path, body: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # so that it waits to be flushed, as it usually does
    printing = "def transform(delivery): print('looked at', delivery.id)"
    ran = run("transform", str(body), "--json", cwd=tmp_path, **transform_of(tmp_path, printing))
    assert events(ran) == []
    assert capfd.readouterr() == ("", "looked at evt_1\n"), "of its process"


def test_what_a_transform_left_open_says_nothing_on_its_way_out(
    tmp_path: Path, body: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a client of Stripe's, kept for the next delivery, would."""
    left = """
class Client:
    def __del__(self):
        print("Unclosed client session", flush=True)
client = Client()
def transform(delivery): return None
"""
    assert events(run("transform", str(body), "--json", cwd=tmp_path, **transform_of(tmp_path, left))) == []
    assert capfd.readouterr() == ("", "")


def test_a_transform_does_not_see_the_bridges_secrets(tmp_path: Path, body: Path) -> None:
    text = "import os\nfrom bridge import Event\ndef transform(d): return Event(name='a/b', data=dict(os.environ))"
    secrets = ("STRIPE_WEBHOOK_SECRET", "INNGEST_EVENT_KEY", "STRIPE_EU")
    (tmp_path / "bridge.toml").write_text("[sources.eu]\nprovider = 'stripe'\nsecrets = ['env:STRIPE_EU']")
    given = {**dict.fromkeys(secrets, "hidden"), "STRIPE_API_KEY": "mine", **transform_of(tmp_path, text)}
    [event] = events(run("transform", str(body), "--json", cwd=tmp_path, **given))
    seen = event["data"]
    assert isinstance(seen, dict) and seen["STRIPE_API_KEY"] == "mine"
    assert not set(secrets) & set(seen)


def test_one_that_raises_ends_with_1_and_tells_the_line_and_the_exception(tmp_path: Path, body: Path) -> None:
    text = "def transform(delivery):\n    return delivery.payload['nothing\\x1b[2J']"
    given = transform_of(tmp_path, text)
    ran = run("transform", str(body), cwd=tmp_path, **given)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("bridge: raised: Traceback (most recent call last):\n")
    assert 'stripe.py", line 2, in transform' in ran.err
    assert ran.err.rstrip().endswith("KeyError: 'nothing\\x1b[2J'")
    ran = run("transform", str(body), "--json", cwd=tmp_path, **given)
    assert (ran.status, events(ran)) == (1, [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def transform(delivery): return 3", "a transform gives an Event, a list of them or None, not int"),
        (
            "from bridge import Event\ndef transform(delivery): return Event(name='inngest/x')",
            "bridge: raised: inngest/x: names that begin with `inngest/` are Inngest's own",
        ),
        (
            "from bridge import Retry\ndef transform(delivery): raise Retry('not yet', after=30)",
            "bridge: postponed by 30 s: not yet",
        ),
        ("import os\ndef transform(delivery): os._exit(3)", "bridge: its process ended with exit status 3"),
        ("def transform(delivery)", "stripe.py: line 1: SyntaxError"),
        ("raise ValueError('two\\nlines')", "stripe.py: line 1: ValueError: two"),
    ],
)
def test_whatever_else_goes_wrong_ends_with_1_and_says_what(tmp_path: Path, body: Path, text: str, told: str) -> None:
    ran = run("transform", str(body), cwd=tmp_path, **transform_of(tmp_path, text))
    assert (ran.status, ran.out) == (1, "")
    assert told in ran.err


def test_one_that_hangs_ends_with_1_after_its_time(tmp_path: Path, body: Path) -> None:
    (tmp_path / "bridge.toml").write_text("transform_timeout = 0.1")
    text = "def transform(delivery):\n    while True: pass"
    ran = run("transform", str(body), cwd=tmp_path, **transform_of(tmp_path, text))
    assert ran == Ran(1, "", "bridge: the transform took longer than 0.1 s\n")


def test_one_that_wants_no_event_says_so_and_ends_with_0(tmp_path: Path, body: Path) -> None:
    given = transform_of(tmp_path, "def transform(delivery): return None")
    assert run("transform", str(body), cwd=tmp_path, **given) == Ran(
        0, "skipped: the transform wants no event for it\n"
    )
    assert run("transform", str(body), "--json", cwd=tmp_path, **given) == Ran(0, "[]\n")


@pytest.mark.parametrize(
    ("provider", "text", "told"),
    [
        ("slack", '{"type":"url_verification","challenge":"c"}', "a handshake: answered, and no event"),
        ("intercom", '{"topic":"ping"}', "a handshake: answered, and no event"),
        ("stripe", "not JSON", "unusable: the body is not JSON (line 1, column 1)"),
        ("stripe", "[]", "unusable: the body is JSON, but not an object"),
        ("stripe", '{"object":"event","id":"evt_1"}', "unusable: type: missing"),
        ("intercom", "{}", "unusable: id: missing"),
    ],
)
def test_a_body_that_becomes_none_ends_with_1_and_says_why(tmp_path: Path, provider: str, text: str, told: str) -> None:
    (tmp_path / "body").write_text(text)
    ran = run("transform", "body", "--source", provider, cwd=tmp_path)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.endswith(f"{told}\n") and ran.err.startswith("bridge: ")


def test_nothing_of_the_payload_is_taken_for_markup_emoji_or_the_terminals_own(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(
        b'{"id":"evt_1","object":"event","type":"a.b","x":"[bold]:tada:[/] \\u001b[2J \xc2\x9b \xe2\x80\xae \x7f \\\\"}'
    )
    for ran in (
        run("transform", "body", "--source", "stripe", cwd=tmp_path),
        on_terminal("transform", "body", "--source", "stripe", cwd=tmp_path),
        on_terminal("transform", "body", "--source", "stripe", "--json", cwd=tmp_path),
    ):
        assert ran.status == 0
        assert ran.out.replace("\r\n", "").replace("\n", "").isprintable()
        [*_, event] = json.loads(ran.out) if ran.out.startswith("[") else [json.loads(ran.out)]
        assert event["data"]["x"] == "[bold]:tada:[/] \x1b[2J \x9b \u202e \x7f \\"

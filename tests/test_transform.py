"""Transform modules: which are found, which are chosen, and what each way of behaving comes to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from bridge import Delivery, Event, Retry, providers
from bridge.model import Entry, Outcome
from bridge.transform import Result, Transform, Transforms, as_it_came, begin, end, listed

STRIPE = providers.load()["stripe"]
BODY = b'{"id":"evt_1","object":"event","type":"customer.created","created":1700000000,"data":{"object":{}}}'
NOW = 1_700_000_100_000


def entry(body: bytes | None = BODY, generation: int = 0) -> Entry:
    return Entry(
        seq=1,
        source="stripe",
        provider="stripe",
        prefix="stripe",
        id="evt_1",
        type="customer.created",
        occurred_at=1_700_000_000_000,
        received_at=1_700_000_001_000,
        size=len(BODY),
        headers={},
        body=body,
        generation=generation,
    )


def module(directory: Path, name: str, text: str) -> Path:
    directory.mkdir(exist_ok=True, parents=True)
    path = directory / f"{name}.py"
    path.write_text(text)
    return path


def run(transforms: Transforms, of: Entry | None = None, *, max_bytes: int = 10_000) -> Result:
    of = of or entry()
    transform = transforms.find(of.source, of.provider)
    begun = begin(of, provider=STRIPE, transform=transform)
    if isinstance(begun, Result):
        return begun
    delivery, events = begun
    assert isinstance(events, list)
    return end(
        events,
        delivery=delivery,
        provider=STRIPE,
        transform=transform,
        generation=of.generation,
        now=NOW,
        max_bytes=max_bytes,
    )


def of_text(tmp_path: Path, text: str) -> Transforms:
    module(tmp_path, "stripe", text)
    transforms, faults = Transforms.load([tmp_path])
    assert not faults
    return transforms


def test_the_built_in_ones_are_found_without_any_directory() -> None:
    transforms, faults = Transforms.load([])
    assert not faults
    assert set(transforms.built_in) == {"stripe", "slack", "intercom"}


def test_a_module_for_the_source_wins_over_one_for_the_provider_and_both_over_the_built_in(tmp_path: Path) -> None:
    for name in ("stripe", "stripe-eu"):
        module(tmp_path, name, "def transform(delivery): return None")
    transforms, _ = Transforms.load([tmp_path])
    found = [transforms.find(source, "stripe") for source in ("stripe-eu", "stripe-us")]
    assert [each.path.stem for each in found if each] == ["stripe-eu", "stripe"]
    built_in = transforms.find("anything", "slack")
    assert built_in is not None
    assert built_in.path.parent.name == "transforms"


def test_a_source_named_after_another_provider_does_not_get_that_ones_built_in() -> None:
    transforms, _ = Transforms.load([])
    found = transforms.find("slack", "stripe")
    assert found is not None
    assert found.path.stem == "stripe"


def test_of_two_directories_the_later_wins(tmp_path: Path) -> None:
    for directory in ("one", "two"):
        module(tmp_path / directory, "stripe", "def transform(delivery): return None")
    transforms, _ = Transforms.load([tmp_path / "one", tmp_path / "two"])
    assert transforms.own["stripe"].path.parent.name == "two"


def test_a_leading_underscore_makes_a_helper_that_others_can_import(tmp_path: Path) -> None:
    module(tmp_path, "_shared_by_tests", "NAME = 'billing/paid'")
    module(
        tmp_path,
        "stripe",
        "from _shared_by_tests import NAME\nfrom bridge import Event\ndef transform(d): return Event(name=NAME)",
    )
    transforms, faults = Transforms.load([tmp_path])
    assert not faults
    assert list(transforms.own) == ["stripe"]
    assert run(transforms).ids == ("billing/paid:evt_1",)


def test_a_module_named_stripe_does_not_hide_the_stripe_package(tmp_path: Path) -> None:
    text = "import stripe\nassert stripe.StripeClient\ndef transform(delivery): return None"
    assert of_text(tmp_path, text).own


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def transform(delivery)\n", "line 1: SyntaxError"),
        ("x = 1\n\nimport nothing_of_this_name\n", "line 3: ModuleNotFoundError"),
        ("x = 1", "no function `transform(delivery)`"),
        ("transform = 3", "no function `transform(delivery)`"),
        ("VERSION = 3\ndef transform(delivery): return None", "VERSION must be a string"),
        ("def transform(): return None", "`transform` must take one argument, the delivery: too many positional"),
        ("def transform(a, b): return None", "`transform` must take one argument, the delivery: missing"),
        ("raise KeyboardInterrupt", "line 1: KeyboardInterrupt"),
        ("import sys\nsys.exit(3)", "exits when it is loaded"),
    ],
)
def test_what_does_not_load_is_a_fault_that_names_the_file_and_the_mistake(
    tmp_path: Path, text: str, said: str
) -> None:
    path = module(tmp_path, "stripe", text)
    module(tmp_path, "slack", "also = wrong")
    _, faults = Transforms.load([tmp_path])
    assert len(faults) == 2
    assert any(fault.startswith(f"{path}: ") and said in fault for fault in faults)


def test_without_a_module_a_delivery_goes_on_as_it_came() -> None:
    delivery, events = begin_ok(None)
    assert events == [as_it_came(delivery)]
    assert events[0].name == "stripe/customer.created"


def begin_ok(transform: Transform | None) -> tuple[Delivery, list[Event]]:
    begun = begin(entry(), provider=STRIPE, transform=transform)
    assert not isinstance(begun, Result)
    delivery, events = begun
    assert isinstance(events, list)
    return delivery, events


@pytest.mark.parametrize("gives", ["None", "[]", "()", "iter(())"])
def test_no_event_is_skipped(tmp_path: Path, gives: str) -> None:
    transforms = of_text(tmp_path, f"def transform(delivery): return {gives}")
    assert run(transforms) == Result(outcome=Outcome.SKIPPED, error="the transform wants no event for it")


def test_several_events_of_one_name_get_ids_of_their_own(tmp_path: Path) -> None:
    text = """
from bridge import Event
def transform(delivery):
    for _ in range(2):
        yield Event(name="a/b")
    yield Event(name="a/b", key="mine")
"""
    assert run(of_text(tmp_path, text)).ids == ("a/b:evt_1", "a/b:evt_1:2", "a/b:evt_1:mine")


def test_a_generation_gives_other_ids(tmp_path: Path) -> None:
    transforms = of_text(tmp_path, "from bridge import Event\ndef transform(d): return Event(name='a/b')")
    assert run(transforms, entry(generation=2)).ids == ("a/b:evt_1::r2",)


@pytest.mark.parametrize("gives", ["3", "'text'", "{'name': 'a/b'}", "[3]", "object()"])
def test_what_is_no_event_is_an_error_that_says_what_was_given(tmp_path: Path, gives: str) -> None:
    result = run(of_text(tmp_path, f"def transform(delivery): return {gives}"))
    assert result.outcome is Outcome.RAISED
    assert "a transform gives an Event, a list of them or None" in result.error


def test_an_exception_is_kept_with_the_users_frames_alone(tmp_path: Path) -> None:
    result = run(of_text(tmp_path, "def transform(delivery):\n    return delivery.payload['nothing']"))
    assert result.outcome is Outcome.RAISED
    assert "KeyError: 'nothing'" in result.error
    assert f'{tmp_path / "stripe.py"}", line 2' in result.error
    assert "bridge/transform.py" not in result.error


def test_an_exit_is_an_exception_like_another(tmp_path: Path) -> None:
    result = run(of_text(tmp_path, "import sys\ndef transform(delivery): sys.exit(1)"))
    assert result.outcome is Outcome.RAISED


def test_one_of_which_nobody_can_tell_what_it_takes_is_loaded(tmp_path: Path) -> None:
    assert of_text(tmp_path, "from operator import attrgetter\ntransform = attrgetter('payload')").own


@pytest.mark.parametrize("name", ["asyncio.CancelledError", "GeneratorExit", "KeyboardInterrupt"])
def test_nothing_that_is_raised_takes_the_process_down(tmp_path: Path, name: str) -> None:
    result = run(of_text(tmp_path, f"import asyncio\ndef transform(delivery): raise {name}"))
    assert (result.outcome, name.rpartition(".")[2] in result.error) == (Outcome.RAISED, True)


def test_retry_asks_for_another_time(tmp_path: Path) -> None:
    text = "from bridge import Retry\ndef transform(delivery): raise Retry('not yet', after=30)"
    assert run(of_text(tmp_path, text)) == Result(outcome=Outcome.POSTPONED, error="not yet", after=30.0)


def test_retry_takes_a_timedelta_too() -> None:
    assert Retry(after=timedelta(minutes=1)).after == 60.0


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("Event(name='inngest/x')", "Inngest's own"),
        ("Event(name='')", "name is empty"),
        ("Event(name='a/b', data=[1])", "must be an object"),
        ("Event(name='a/b', ts='today')", "ts must be an integer"),
        ("Event(name='a/b', data={'x': object()})", "cannot be written as JSON"),
        ("Event(name='a/b', data={'x': 'y' * 20000})", "at most 10,000 are allowed"),
        ("[Event(name='a/b', key='2'), Event(name='a/b')]", "different keys"),
    ],
)
def test_an_event_that_would_be_refused_is_an_error_before_it_is_sent(tmp_path: Path, event: str, said: str) -> None:
    result = run(of_text(tmp_path, f"from bridge import Event\ndef transform(d): return {event}"))
    assert result.outcome is Outcome.RAISED
    assert said in result.error


def test_version_and_user_are_filled_in(tmp_path: Path) -> None:
    text = "from bridge import Event\nVERSION = '2026-01-31.2'\ndef transform(d): return Event(name='a/b')"
    body = BODY.replace(b'"object":{}', b'"object":{"object":"customer","id":"cus_1","email":"ada@example.com"}')
    [event] = run(of_text(tmp_path, text), entry(body)).events
    assert b'"v":"2026-01-31.2"' in event
    assert b'"user":{"stripe_customer_id":"cus_1","email":"ada@example.com"}' in event


def test_a_purged_body_is_unusable() -> None:
    transforms, _ = Transforms.load([])
    assert run(transforms, entry(None)) == Result(outcome=Outcome.UNUSABLE, error="the body was purged")


def test_a_list_of_events_is_taken_as_it_is() -> None:
    events = [Event(name="a/b"), Event(name="a/c")]
    assert listed(events) == events


@pytest.mark.parametrize("after", ["float('inf')", "float('nan')"])
def test_a_retry_at_no_time_is_an_error_like_another(tmp_path: Path, after: str) -> None:
    """Once, it became no number on its way, and took the batch it was in with it."""
    result = run(of_text(tmp_path, f"from bridge import Retry\ndef transform(d): raise Retry(after={after})"))
    assert result.outcome is Outcome.RAISED


@pytest.mark.parametrize("after", ["1e300", "timedelta(days=4_000_000)"])
def test_a_retry_in_ages_is_a_retry_in_30_days(tmp_path: Path, after: str) -> None:
    text = f"from datetime import timedelta\nfrom bridge import Retry\ndef transform(d): raise Retry(after={after})"
    assert run(of_text(tmp_path, text)).after == 30 * 86_400


def test_an_exception_of_odd_text_is_kept_in_a_way_that_json_can_hold(tmp_path: Path) -> None:
    result = run(of_text(tmp_path, r"def transform(d): raise ValueError('\udc80')"))
    assert result.outcome is Outcome.RAISED
    assert r"ValueError: \udc80" in result.error


def test_a_built_in_one_can_be_named_after_a_source(tmp_path: Path) -> None:
    path = module(tmp_path, "acme", "def transform(delivery): return None")
    acme = Transform(path=path, function=lambda _: None, version=None)
    assert Transforms(own={}, built_in={"acme": acme}).find("acme", "stripe") is acme

"""What the fuzzer is given is tried without it too: its inputs, what it begins with, and that a fault would be seen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from strange import HEADER

from bridge import providers, schemes
from bridge.errors import Reason, Rejected
from bridge.model import Delivery, Handshake, Payload, WebhookRequest
from bridge.verify import Identity, Provider
from fuzz import promises, seeds
from fuzz import subjects as subjects_
from fuzz.__main__ import main
from fuzz.cases import Case, How
from fuzz.report import Report
from fuzz.subjects import configured, kinds, subjects
from fuzz.target import Target, fault_of

SEEDS = list(seeds.cases())
RIGHT = Case(subject="stripe", body=b'{"object":"event","id":"evt_1","type":"a.b"}')


# --- inputs


@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_case_in_which_every_promise_holds(data: bytes) -> None:
    assert fault_of(data) == ""


@settings(max_examples=200, deadline=None)
@given(
    case=st.builds(
        Case,
        subject=st.sampled_from([*subjects()]),
        how=st.sampled_from(How),
        header=st.integers(0, 255),
        start=st.integers(0, 65535),
        end=st.integers(0, 65535),
        text=HEADER.map(lambda text: text.encode("utf-8", "backslashreplace").decode().replace("\0", "")),
        body=st.binary(max_size=30),
    )
)
def test_a_case_is_read_as_it_was_written(case: Case) -> None:
    assert Case.read(case.written()) == case
    assert fault_of(case.written()) == ""


def test_a_header_that_is_no_text_is_read_as_the_server_reads_it() -> None:
    assert Case.read(replace(RIGHT, text="\udce9").written()).text == "\udce9"


def test_every_provider_and_scheme_is_reached_and_keeps_its_inputs_when_another_is_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {name: Case(subject=name).written() for name in subjects()}
    more = {**subjects(), "another": subjects()["stripe"]}
    monkeypatch.setattr("fuzz.cases.subjects", lambda: more)
    assert {name: Case.read(data).subject for name, data in before.items()} == {name: name for name in before}
    assert Case.read(Case(subject="another").written()).subject == "another"


# --- what is fuzzed, and what it begins with


def test_every_kind_of_scheme_is_configured_in_every_way_it_can_be() -> None:
    assert set(kinds()) >= {"BodyMac", "StampedMac", "StampedList"}
    for kind in kinds().values():
        for field in ("digest", "prefix", "before", "between", "stamp", "mac"):
            values = {getattr(scheme, field, None) for scheme in configured(kind).values()}
            assert values == {None} or len(values) > 1, (kind, field)


@dataclass(frozen=True, kw_only=True)
class Later:
    """A scheme with a field that nothing here knows."""

    encoding: Any
    url: str = "by default"


def test_a_scheme_with_a_field_nobody_has_thought_of_is_not_passed_over() -> None:
    with pytest.raises(LookupError, match=r"Later\.encoding: say in fuzz/subjects\.py"):
        configured(Later)


def test_of_a_field_that_has_two_values_both_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects_, "get_type_hints", lambda _: {"encoding": bool, "url": str})
    found: list[object] = list(configured(Later).values())
    assert found == [Later(encoding=False), Later(encoding=True)]


def test_it_begins_with_every_sample_right_and_with_each_thing_wrong_and_all_promises_hold() -> None:
    assert [case for case in SEEDS if fault_of(case.written())] == []
    for name in subjects():
        ours = [case for case in SEEDS if case.subject == name]
        assert {case.how for case in ours} == set(How)
        assert {case.body for case in ours} >= set(seeds.recorded(name))


def test_what_it_begins_with_reaches_every_answer() -> None:
    """Or every promise would hold of nothing."""
    asked = [(subjects()[case.subject], case.body) for case in SEEDS[::5] if case.how is How.RIGHT]
    found = [promises.verdict(provider, promises.signed(provider, body)) for provider, body in asked]
    with_fault = Counter(bool(each.fault) for each in found if isinstance(each, Delivery))
    assert min(with_fault[True], with_fault[False]) > 50, with_fault


def test_the_words_are_written_as_libfuzzer_reads_them() -> None:
    lines = seeds.dictionary().splitlines()
    assert all(re.fullmatch(r'"(\\x[0-9a-f]{2}){2,40}"', line) for line in lines)
    written = {bytes.fromhex(line.strip('"').replace("\\x", "")) for line in lines}
    assert written >= {b"event_callback", b"notification_event", b"created"}


# --- a fault is seen


def faults(hows: AbstractSet[How], *, of: AbstractSet[str] = frozenset(subjects())) -> set[str]:
    """What is found with that which it begins with."""
    return {fault_of(case.written()) for case in SEEDS if case.how in hows and case.subject in of} - {""}


def test_a_signature_that_is_not_checked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "_check_mac", lambda *_: None)
    assert faults(set(How) - {How.RIGHT}) == {
        "broken: what is not rightly signed is rejected",
        "broken: nobody forges a signature",
    }


def test_an_age_that_is_not_checked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "_check_age", lambda *_: None)
    assert faults({How.TIME}) == {"broken: what is not rightly signed is rejected"}


def test_a_right_signature_that_is_refused_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Rejected(Reason.MISMATCH)

    monkeypatch.setattr(schemes, "_check_mac", refuse)
    assert faults({How.RIGHT}, of={"slack"}) == {"broken: what is rightly signed is accepted"}


def raising(payload: Payload, request: WebhookRequest) -> Identity:
    del request
    return Identity(id=payload["id"], type="a.b")


def changing(payload: Payload, request: WebhookRequest) -> Identity:
    """An id of the time of the signature."""
    return Identity(id=str(sorted(request.headers.items())), type="a.b" if payload else "a.c")


def long(payload: Payload, request: WebhookRequest) -> Identity:
    del request
    return Identity(id="a\nb", type="a.b" if payload else "a.c")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"identify": raising}, "KeyError in test_fuzz.py"),
        ({"identify": changing}, "broken: what is sent again, signed anew, is the same delivery"),
        ({"identify": long}, "broken: an id is printable, and short enough for an index"),
        ({"user": lambda payload: payload["customer"]}, "KeyError in test_fuzz.py"),
        ({"user": lambda _: None}, "broken: whom it is about can be asked of any payload"),
        ({"handshake": lambda _: Handshake(answer="\ud800")}, "broken: a handshake is answered with a short text"),
        ({"parse": lambda request: request.headers["x"]}, "KeyError in test_fuzz.py"),
    ],
    ids=["a KeyError", "another id", "an odd id", "no user", "no mapping", "an odd answer", "no parsing"],
)
def test_a_provider_that_breaks_a_promise_is_found(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], fault: str
) -> None:
    broken: dict[str, Provider] = {**subjects(), "stripe": replace(providers.load()["stripe"], **change)}
    monkeypatch.setattr("fuzz.cases.subjects", lambda: broken)
    ours = (case.written() for case in SEEDS if (case.subject, case.how) == ("stripe", How.RIGHT))
    assert any(fault_of(data).startswith(fault) for data in ours)


def test_one_input_of_each_fault_is_kept_and_the_fuzzer_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(schemes, "_check_mac", lambda *_: None)
    told: list[tuple[Path, str]] = []
    target = Target(tmp_path, tell=lambda file, fault: told.append((file, fault)))
    for body in (b"1", b"2", b"3"):
        target(Case(subject="stripe", how=How.STRANGER, body=body).written())
    [(file, fault)] = told
    assert fault == "broken: what is not rightly signed is rejected"
    assert file.read_bytes() == Case(subject="stripe", how=How.STRANGER, body=b"1").written()


# --- what is shown

SAID = """\
INFO: Running with entropic power schedule (0xFF, 100).
#2	INITED cov: 226 ft: 423 corp: 56/24Kb exec/s: 0 rss: 45Mb
#1024	NEW    cov: 230 ft: 430 corp: 57/25Kb lim: 4096 exec/s: 10000 rss: 61Mb L: 17/2066 MS: 1 EraseBytes-
fuzz: fault: /tmp/x/fault-0	broken: what is not rightly signed is rejected
==1== ERROR: libFuzzer: timeout after 10 seconds
artifact_prefix='/tmp/x/'; Test unit written to /tmp/x/timeout-1
#2048	DONE   cov: 237 ft: 507 corp: 96/20Kb lim: 2477 exec/s: 10178 rss: 49Mb
stat::number_of_executed_units: 2050
stat::peak_rss_mb:              62
"""


def test_a_run_is_told_in_figures_and_each_input_that_failed() -> None:
    report = Report()
    for line in SAID.splitlines(keepends=True):
        report.read(line)
    assert report.figures(seconds=10) == {
        "runs": "2,050",
        "runs a second": "205",
        "branches reached": "237, at first 226",
        "features": "507, at first 423",
        "inputs in the corpus": "96",
        "most memory": "62 MB",
        "inputs that failed": "2",
    }
    assert report.faults == {
        Path("/tmp/x/fault-0"): "broken: what is not rightly signed is rejected",  # noqa: S108 - as it was said
        Path("/tmp/x/timeout-1"): "timeout: it ended the process",  # noqa: S108 - as it was said
    }


def test_an_input_is_tried_once_more_and_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "fault-0"
    file.write_bytes(replace(RIGHT, how=How.STRANGER).written())
    good = CliRunner().invoke(main, ["repro", str(file)])
    assert good.exit_code == 0, good.output
    assert "Every promise holds." in good.output
    assert all(word in good.output for word in ("stripe", "STRANGER", "evt_1"))
    monkeypatch.setattr(schemes, "_check_mac", lambda *_: None)
    bad = CliRunner().invoke(main, ["repro", str(file)])
    assert bad.exit_code == 1
    assert "Broken: what is not rightly signed is rejected" in bad.output


@pytest.fixture
def without_atheris(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.__main__.find_spec", lambda _: None)


@pytest.mark.usefixtures("without_atheris")
def test_where_atheris_is_not_installed_it_says_how_it_comes_there(tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["run", "--folder", str(tmp_path)])
    assert said.exit_code == 1
    assert "make fuzz" in said.output


@pytest.mark.parametrize("name", ["run", "repro"])
def test_every_command_shows_examples(name: str) -> None:
    for arguments in (["--help"], [name, "--help"]):
        assert "python -m fuzz " + name in CliRunner().invoke(main, arguments).output

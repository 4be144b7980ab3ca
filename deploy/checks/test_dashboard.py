"""The dashboard: every query asked of a real Prometheus that watches a real bridge, and everything else read as Grafana does."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from itertools import combinations
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from exported import unknown
from grafana import dashboard, label_values, misunderstood, panels, queries, substituted, variable
from grafana_foundation_sdk.models import units
from receiving import another
from rules import Yaml, recorded, rules
from service import Service, delivery, service
from tools import DEPLOY, ROOT
from watching import Prometheus, prometheus

from bridge.errors import Reason
from bridge.event_api import Verdict
from bridge.metrics import DELIVERY_OUTCOMES
from bridge.model import State
from bridge.stand_in import StandIn

TOKEN = "token of the tests"
SOURCES = {"stripe", "slack", "intercom", "stripe-test"}
ANOTHER = """
[sources.stripe-test]
provider = "stripe"
secrets = ["env:STRIPE_WEBHOOK_SECRET"]
"""
# The way of a webhook, a column each.
COLUMNS = (0, 8, 16)
# Of the labels that legends show: all values a panel has to have.
VALUES = {
    "Received, by outcome": set(DELIVERY_OUTCOMES),
    "Rejected, by reason": set(Reason),
    "What became of entries": set(State),
    "Answers of the Event API": set(Verdict),
    "Dead, by source": SOURCES,
    "Forwarded, by source": SOURCES,
}
# What a panel shows of what is sent below.
HAPPENED = {
    "Received, by outcome": {"accepted", "duplicate", "rejected", "handshake"},
    "Rejected, by reason": {"mismatch", "missing"},
    "What became of entries": {"forwarded", "dead"},
    "Answers of the Event API": {"accepted"},
    "Dead, by source": {"stripe"},
    "Forwarded, by source": {"stripe", "intercom"},
}


async def send_some(running: Service, first: int) -> None:
    """10 requests of each outcome but `failed`; the accepted without an id are dead."""
    url = f"{running.public}/webhooks/stripe"
    for n in range(first, first + 10):
        assert (await running.post(delivery(n))).status == 200
        assert (await running.post(delivery(n))).status == 200
        assert (await running.post(another("intercom", n), source="intercom")).status == 200
        assert (await running.post(b'{"object":"event","type":"a","n":%d}' % n)).status == 200
        assert (await running.post(b'{"type":"url_verification","challenge":"c"}', source="slack")).status == 200
        for headers in ({}, {"Stripe-Signature": "t=1767225600,v1=" + "0" * 64}):
            assert (await running.ask("POST", url, data=b"{}", headers=headers)).status == 401


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    folder = tmp_path_factory.mktemp("watched")
    api = StandIn(key="k")
    await api.start()
    (folder / "bridge.toml").write_text(ANOTHER)
    more = {"INNGEST_EVENT_KEY": "k", "INNGEST_EVENT_API_BASE_URL": api.url, "BRIDGE_ADMIN_TOKEN": TOKEN}
    async with service(folder, "", more) as running:
        target = running.private.removeprefix("http://")
        async with prometheus(folder, target=target, token=TOKEN) as found:
            await found.until("count(bridge_deliveries_total)", len(SOURCES) * len(DELIVERY_OUTCOMES))
            for first in (0, 10):
                await send_some(running, first)
                await found.until("sum(bridge_deliveries_total)", 7 * (first + 10))
                await found.until("sum(bridge_events_total)", 2 * (first + 10))
            yield found
    await api.stop()


# One bridge and one Prometheus for all that ask them.
asking = pytest.mark.asyncio(loop_scope="module")


@asking
@pytest.mark.parametrize("title", queries())
async def test_every_query_gives_something_with_what_its_legend_shows(watched: Prometheus, title: str) -> None:
    found = await watched.query(substituted(queries()[title]))
    assert found and not [value for _, value in found if math.isnan(value)]
    panel, _, letter = title.partition(": ")
    [legend] = [
        each["legendFormat"]
        for shown in panels()
        if shown["title"] == panel
        for each in shown["targets"]
        if each["refId"] == letter
    ]
    shown = re.findall(r"{{(\w+)}}", legend)
    assert all(sorted(labels) == shown for labels, _ in found), (
        "the legend tells the series apart, and shows all there is"
    )
    for label in shown:
        assert {labels[label] for labels, _ in found} == VALUES[panel]
        assert {labels[label] for labels, value in found if value > 0} == HAPPENED[panel]


@asking
async def test_the_row_on_top_tells_what_is(watched: Prometheus) -> None:
    said = {}
    for panel in panels():
        if panel["type"] == "stat":
            [query] = [each["expr"] for each in panel["targets"]]
            [(_, said[panel["title"]])] = await watched.query(substituted(query))
    assert said["Oldest pending"] < 30 and said["Dead in the last day"] >= 10
    assert {
        title: value for title, value in said.items() if title not in {"Oldest pending", "Dead in the last day"}
    } == {
        "Bridges that receive": 1,
        "Not stored": 0,
        "Forwarding held": 0,
        "Alerts": 1,  # BridgeEntriesDead
    }


@asking
async def test_the_sources_to_choose_from_are_those_there_are_and_choosing_leaves_the_others_out(
    watched: Prometheus,
) -> None:
    assert await offered(watched, "source", namespace="") == SOURCES
    for title, query in queries().items():
        chosen = await watched.query(substituted(query, source="(stripe|slack)"))
        assert chosen and "intercom" not in str(chosen), title


async def offered(by: Prometheus, name: str, **chosen: str) -> set[str]:
    """What there is to choose from."""
    series, label = label_values(substituted(variable(name)["query"]["query"], **chosen))
    return set(await by.api(f"label/{label}/values", **{"match[]": series}))


@asking
@pytest.mark.parametrize("elsewhere", [{"namespace": "staging"}, {"job": "another"}], ids=str)
async def test_what_is_shown_is_of_the_namespace_and_the_job_that_are_chosen(
    watched: Prometheus, elsewhere: dict[str, str]
) -> None:
    shown = {title: await watched.query(substituted(query, **elsewhere)) for title, query in queries().items()}
    assert {title: found for title, found in shown.items() if [value for _, value in found if value]} == {}


@asking
async def test_where_there_are_namespaces_one_is_shown_at_a_time(watched: Prometheus, tmp_path: Path) -> None:
    """On Kubernetes every series has one; elsewhere none has, and there is nothing to choose from."""
    for name in ("namespace", "job"):
        assert not variable(name)["multi"] and not variable(name)["includeAll"]
    assert await offered(watched, "namespace") == set() and await offered(watched, "job") == {"bridge"}
    [target] = (await watched.api("targets"))["activeTargets"]
    address, both = target["discoveredLabels"]["__address__"], {"production", "staging"}
    async with prometheus(tmp_path, target=address, token=TOKEN, namespaces=both) as found:
        await found.until("count(bridge_journal_readable)", len(both))
        assert await offered(found, "namespace") == both
        for namespace in both:
            assert await offered(found, "job", namespace=namespace) == {"bridge"}
            assert await offered(found, "source", namespace=namespace) == SOURCES
            bridges = substituted(queries()["Bridges that receive: A"], namespace=namespace)
            assert await found.query(bridges) == [({}, 1)]


@asking
async def test_the_rules_work_in_a_real_prometheus(watched: Prometheus) -> None:
    groups = (await watched.api("rules"))["groups"]
    loaded = {rule["name"]: (rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]}
    assert loaded == dict.fromkeys((*rules("alert"), *rules("record")), ("ok", None))


@asking
async def test_whoever_has_a_wrong_token_sees_nothing(watched: Prometheus, tmp_path: Path) -> None:
    [target] = (await watched.api("targets"))["activeTargets"]
    async with prometheus(tmp_path, target=target["discoveredLabels"]["__address__"], token="another") as stranger:
        await stranger.until('up{job="bridge"}', 0)
        [refused] = (await stranger.api("targets"))["activeTargets"]
        assert "401" in refused["lastError"]


def test_grafana_understands_all_of_it() -> None:
    assert misunderstood() == []
    assert dashboard()["uid"] and "id" not in dashboard(), "a provisioned one has a name of its own, and no number"


def test_what_it_asks_for_is_what_the_bridge_exports() -> None:
    named = {title: unknown(query, beside=recorded()) for title, query in queries().items()}
    assert {title: names for title, names in named.items() if names} == {}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_has_a_unit_and_says_what_good_looks_like_and_where_to_read_on(panel: Yaml) -> None:
    shown = [panel["fieldConfig"]["defaults"]["unit"]]
    shown += [
        each["value"]
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "unit"
    ]
    assert set(shown) <= {value for name, value in vars(units).items() if name[0].isupper()}
    assert "Good: " in panel["description"]
    linked = {link["title"] for link in panel.get("links", ())}
    assert set(re.findall(r"\bBridge[A-Z]\w+", panel["description"])) <= linked
    assert {each["datasource"]["uid"] for each in (panel, *panel["targets"])} == {"${datasource}"}


def test_every_alert_is_linked_to_its_page_somewhere() -> None:
    headings = re.findall(r"^##+ (.+)$", (ROOT / "deploy/README.md").read_text(), re.MULTILINE)
    pages = {f"deploy/README.md#{heading.lower().replace(' ', '-')}": heading for heading in headings}
    links = [link for panel in panels() for link in panel.get("links", ())] + dashboard()["links"]
    assert {link["title"] for link in links} == {*rules("alert"), "When an alert comes"}
    assert [link["title"] for link in links] == [pages.get(link["url"]) for link in links]


def test_the_panels_go_the_way_of_a_webhook_from_left_to_right_and_none_covers_another() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    for one, other in combinations(places, 2):
        apart = (one["x"] + one["w"] <= other["x"], other["x"] + other["w"] <= one["x"])
        above = (one["y"] + one["h"] <= other["y"], other["y"] + other["h"] <= one["y"])
        assert any((*apart, *above)), (one, other)
    assert places == sorted(places, key=lambda place: (place["y"], place["x"])), "as they are read"
    for y in {place["y"] for place in places}:
        row = [place for place in places if place["y"] == y]
        assert sum(place["w"] for place in row) == 24 and len({place["h"] for place in row}) == 1
    headings = {p["gridPos"]["x"]: p["options"]["content"] for p in dashboard()["panels"] if p["type"] == "text"}
    assert [re.search(r"Receive|journal|forward", headings[x])[0] for x in COLUMNS] == ["Receive", "journal", "forward"]  # type: ignore[index]  # it is there
    graphs = [panel for panel in panels() if panel["type"] == "timeseries"]
    for x, metrics in zip(
        COLUMNS,
        ("deliveries|ack|rejections", "journal|oldest|entries_settled", "events|forward|event_api"),
        strict=True,
    ):
        asked = [each["expr"] for panel in graphs if panel["gridPos"]["x"] == x for each in panel["targets"]]
        assert asked and all(re.search(rf"bridge_({metrics})", query) for query in asked)


def test_the_thresholds_are_those_of_the_alerts() -> None:
    """Each is the first number that an alert about the same metric compares with."""
    for panel, alerts in {
        "Oldest pending": ["BridgeForwardingStalled", "BridgePendingTooOld"],
        "Not stored": ["BridgeDeliveriesNotStored"],
        "Pending, and the age of the oldest": ["BridgeForwardingStalled", "BridgePendingTooOld"],
    }.items():
        first = [re.search(r"> ([\d.]+)$", rules("alert")[alert]["expr"], re.MULTILINE) for alert in alerts]
        assert {float(found[1]) for found in first if found} <= set(_thresholds(panel)) and all(first), panel
    assert 2.5 in _thresholds("Time to the answer")


def _thresholds(title: str) -> list[float]:
    [panel] = [panel for panel in panels() if panel["title"] == title]
    config = panel["fieldConfig"]
    overridden = [
        each["value"] for one in config["overrides"] for each in one["properties"] if each["id"] == "thresholds"
    ]
    [thresholds] = overridden or [config["defaults"]["thresholds"]]
    return [step["value"] for step in thresholds["steps"] if step["value"]]


def test_what_grafana_is_provided_with_fits_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards/bridge.yaml").read_text())["providers"]
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["type"] == variable("datasource")["query"] and source["jsonData"]["timeInterval"] == scraped
    assert source["url"] == "http://prometheus:9090"
    assert provider["type"] == "file" and provider["options"]["path"] == "/var/lib/grafana/dashboards"

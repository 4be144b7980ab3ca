"""The tables: ratios first, beside the goal, then what they are made of. Markdown, for the README and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.bodies import SIZES
from bench.latency import HALVES, RATES
from bench.rows import Row, median, ratio, select
from bench.throughput import CEILING, HANDWRITTEN, JOURNALS, WEBHOOK

_SMALL = SIZES["0.7 KB"]
_SQLITE = JOURNALS["sqlite"]
_MEANWHILE = {False: "where none are forwarded", True: "where all are forwarded meanwhile"}


def ratios(rows: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """What, the goal, what it is."""

    def acknowledged(subject: str) -> Row:
        return {"figure": "acknowledged", "subject": subject, "size": _SMALL}

    def of(field: str, value: Row, to: str) -> str:
        return _number(ratio(rows, field, value, acknowledged(to)), 2)

    yield "acknowledged and synced, SQLite / the ceiling", "0.55", of("rate", acknowledged(_SQLITE), CEILING)
    end_to_end = {"figure": "end to end", "subject": _SQLITE, "size": _SMALL}
    yield "end to end while receiving, SQLite / the ceiling", "0.22", of("rate", end_to_end, CEILING)
    yield "acknowledged, SQLite / FastAPI + SDKs", "25", of("rate", acknowledged(_SQLITE), HANDWRITTEN)
    at = {"figure": "at a rate", "subject": _SQLITE}
    yield "receipt to Event API at 500/s, p50, p99", "10 ms, 60 ms", _both(rows, "arrival", **at, rate=500)
    for top, forwarding in HALVES:
        half = {"figure": "at half", "subject": _SQLITE, "of": top, "forwarding": forwarding}
        rate = _number(median(rows, "rate", **half), after="/s")
        what = f"answer at {rate}, half of the top rate {top}, {_MEANWHILE[forwarding]}: p99"
        yield what, "20 ms", _ms(median(rows, "ack_p99", **half))
    for name in JOURNALS.values():
        yield from _grown(rows, name)


def _grown(rows: Sequence[Row], name: str) -> Iterator[tuple[str, str, str]]:
    grown = select(rows, figure="growth", subject=name)
    new = next((row for row in grown if not row["settled"] and not row["pending"]), None)
    old = max(grown, key=lambda row: row["settled"], default=None)
    full = max(grown, key=lambda row: row["pending"], default=None)
    if new is None or old is None or full is None:
        return
    slower = old["claim_and_settle"] / new["claim_and_settle"]
    yield f"{name}: claim and settle, {old['settled']:,} settled / none", "1.3", f"{slower:.2f}"
    for row, goal in ((new, "150 MB"), (full, "200 MB")):
        memory = row["memory"]
        what = f"{name}: memory of all processes of the bridge, {row['pending']:,} pending (and as RSS)"
        yield what, goal, f"{memory['pss']:.0f} MB ({memory['rss']:.0f} MB)"
    yield f"{name}: ready after SIGKILL, {full['pending']:,} pending", "2 s", f"{full['ready']:.1f} s"


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """All of it, table by table."""
    yield table(("what", "goal", "measured"), list(ratios(rows)))
    names = [CEILING, *JOURNALS.values(), HANDWRITTEN, WEBHOOK]
    yield table(
        ("acknowledged", *SIZES, "p50", "p99", "p99.9", "CPU s/1,000"),
        [[name, *_acknowledged(rows, name)] for name in names if select(rows, figure="acknowledged", subject=name)],
    )
    yield table(
        ("end to end", *SIZES, "CPU s/1,000"),
        [[name, *_end_to_end(rows, name)] for name in JOURNALS.values()],
    )
    yield table(
        ("receipt to Event API, p50, p99", *(f"{rate:,}/s" for rate in RATES)),
        [[name, *_at_rates(rows, name, "arrival")] for name in JOURNALS.values()],
    )
    yield table(
        ("answer, p50, p99", *(f"{rate:,}/s" for rate in RATES)),
        [[name, *_at_rates(rows, name, "ack")] for name in JOURNALS.values()],
    )
    yield table(
        ("answer at half of a top rate, p50, p99", *(f"{top}, {_MEANWHILE[forwarding]}" for top, forwarding in HALVES)),
        [[name, *_at_halves(rows, name)] for name in JOURNALS.values()],
    )
    yield table(
        ("bytes on disk a delivery", *SIZES),
        [
            [name, *(_number(median(rows, "bytes", figure="on disk", subject=name, size=s)) for s in SIZES.values())]
            for name in JOURNALS.values()
        ],
    )
    grown = select(rows, figure="growth")
    yield table(
        ("entries", "acknowledged/s", "p50", "p99", "p99.9", "with random ids", "end to end/s", "at 500/s: p50, p99"),
        [_growth(row) for row in grown],
    )
    yield table(
        ("entries", "claim 500 and settle", "CPU s/1,000 acknowledged", "memory", "ready after SIGKILL"),
        [_cost(row) for row in grown],
    )


def whole(machine: Row, rows: Sequence[Row]) -> str:
    """A page of its own."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return "\n\n".join(
        (
            "# What was measured",
            (
                f"By `make bench`, {machine['date']}: {machine['cores']} cores, {machine['processor']}, {machine['memory_gb']} GB,"
                f" {machine['system']}, {_disk(machine['disk'])}. {versions}. Raw figures: [figures.json](figures.json)."
            ),
            _READING,
            *tables(rows),
            "![Acknowledged and forwarded a second](throughput.svg)",
            "![Latency](latency.svg)",
            "![Growth](growth.svg)\n",
        )
    )


_READING = (
    "All servers take the same webhooks over HTTP from one generator in a process of its own, each a delivery of its own, with an"
    " id as Stripe's are, 128 at a time; FastAPI and webhook 32, with which they are faster. Servers are asked in turn, round by"
    " round; medians count, and a ratio is the median of the ratios within a round. What is in `entries` and on the"
    " disk is not measured in turn, but for the claims.\n\n"
    "- The ceiling is an aiohttp handler on uvloop that reads the body and does nothing.\n"
    "- *Acknowledged*: synced to the disk and answered, while the Event API is away. So its CPU seconds are those of receiving"
    " alone, but FastAPI's include sending.\n"
    "- FastAPI checks the signature with Stripe's SDK and sends the event with Inngest's before it answers, and keeps nothing: that"
    " is its best case.\n"
    "- *End to end*: from the first webhook that is sent to the last event at the Event API, which takes it at once; those that are"
    " acknowledged are forwarded meanwhile.\n"
    "- *Top rate*: what is acknowledged while the Event API is away, or what goes end to end.\n"
    "- *At a rate*: from when a webhook was due, whether those before it were answered or not, while all are forwarded.\n"
    "- Memory is the sum of the PSS of all processes, which counts once what they share, some of it with the benchmark itself;"
    " PostgreSQL's own is not in it, for that is what its settings allow.\n"
    "- Bodies of 4 and 60 KB repeat themselves, as invoices do: PostgreSQL compresses them, SQLite does not.\n"
    "- In `entries`, settled ones have bodies of 100 bytes, pending ones of 700. Where a million is pending, *end to end* is how"
    " fast they go out. A service is killed while 2,000 a second come in."
)


def _disk(found: Row) -> str:
    return f"{found['file_system']}, which takes {_ms(found['sync'])} to sync 4 KB"


def replicas(rows: Sequence[Row]) -> str:
    """The table of `python -m bench replicas`."""
    lines = []
    for delay in sorted({row["delay"] for row in rows}):
        one, two = (median(rows, "rate", delay=delay, replicas=count) for count in (1, 2))
        lines.append([f"{delay * 1000:.0f} ms", _number(one), _number(two), _number((two or 0) / (one or 1), 2)])
    return table(("Event API answers after", "one bridge, a second", "two", "two / one"), lines)


def _acknowledged(rows: Sequence[Row], name: str) -> Iterator[str]:
    for size in SIZES.values():
        yield _number(median(rows, "rate", figure="acknowledged", subject=name, size=size), after="/s")
    for field in ("p50", "p99", "p99.9"):
        yield _ms(median(rows, field, figure="acknowledged", subject=name, size=_SMALL))
    yield _number(median(rows, "cpu_per_1000", figure="acknowledged", subject=name, size=_SMALL), 3)


def _end_to_end(rows: Sequence[Row], name: str) -> Iterator[str]:
    for size in SIZES.values():
        yield _number(median(rows, "rate", figure="end to end", subject=name, size=size), after="/s")
    yield _number(median(rows, "cpu_per_1000", figure="end to end", subject=name, size=_SMALL), 3)


def _at_rates(rows: Sequence[Row], name: str, what: str) -> Iterator[str]:
    for rate in RATES:
        yield _both(rows, what, figure="at a rate", subject=name, rate=rate)


def _at_halves(rows: Sequence[Row], name: str) -> Iterator[str]:
    for top, forwarding in HALVES:
        half = {"figure": "at half", "subject": name, "of": top, "forwarding": forwarding}
        yield f"{_number(median(rows, 'rate', **half), after='/s')}: {_both(rows, 'ack', **half)}"


def _entries(row: Row) -> str:
    entries = f"{row['settled']:,} settled" if not row["pending"] else f"{row['pending']:,} pending"
    return f"{row['subject']}, {entries}"


def _growth(row: Row) -> list[str]:
    arrival = row.get("arrival", {})
    return [
        _entries(row),
        _number(row["rate"]),
        *(_ms(row[quantile]) for quantile in ("p50", "p99", "p99.9")),
        _number(row["rate_random"]),
        _number(row["end_to_end"]),
        ", ".join(_ms(arrival.get(f"arrival_{quantile}")) for quantile in ("p50", "p99")) if arrival else "-",
    ]


def _cost(row: Row) -> list[str]:
    return [
        _entries(row),
        _ms(row["claim_and_settle"]),
        _number(row["cpu_per_1000"], 3),
        f"{row['memory']['pss']:.0f} MB",
        f"{row['ready']:.1f} s",
    ]


def _both(rows: Sequence[Row], what: str, **wanted: object) -> str:
    """The medians of both quantiles over the rounds."""
    return ", ".join(_ms(median(rows, f"{what}_{quantile}", **wanted)) for quantile in ("p50", "p99"))


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def _number(value: float | None, digits: int = 0, after: str = "") -> str:
    return "-" if value is None else f"{value:,.{digits}f}{after}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    written = [head, ["---", *("--:" for _ in head[1:])], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in written)

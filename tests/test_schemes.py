"""The signature schemes, each against what it signs written out, and all against what nobody may send."""

from __future__ import annotations

import hmac

import pytest

from bridge.errors import Reason, Rejected
from bridge.model import WebhookRequest
from bridge.schemes import BodyMac, Scheme, StampedList, StampedMac

NOW = 1_795_000_000_999  # the last ms of its second
SECONDS = NOW // 1000
TOLERANCE = 300_000
BODY = b"\x00 body \xff"

PLAIN = BodyMac(header="x-mac")
PREFIXED = BodyMac(header="x-mac", prefix="sha512=", digest="sha512")
TWO_HEADERS = StampedMac(stamp_header="x-time", header="x-mac", prefix="v0=", before=b"v0:", between=b":")
LIST = StampedList(header="x-list")
SCHEMES = (PLAIN, PREFIXED, TWO_HEADERS, LIST)

every = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: type(scheme).__name__)


def check(scheme: Scheme, headers: dict[str, str], *secrets: bytes, body: bytes = BODY, now: int = NOW) -> None:
    request = WebhookRequest(headers=headers, body=body, received_at=now)
    scheme.check(request, secrets=secrets or (b"right",), now=now, tolerance=TOLERANCE)


def reason(scheme: Scheme, headers: dict[str, str], *secrets: bytes, body: bytes = BODY, now: int = NOW) -> Reason:
    with pytest.raises(Rejected) as caught:
        check(scheme, headers, *secrets, body=body, now=now)
    assert caught.value.status == 401
    return caught.value.reason


def mac(message: bytes, secret: bytes = b"right", digest: str = "sha256") -> str:
    return hmac.new(secret, message, digest).hexdigest()


# --- all of them


@every
def test_what_it_signs_it_accepts_under_the_headers_it_names(scheme: Scheme) -> None:
    headers = scheme.sign(BODY, secret=b"right", now=NOW)
    assert tuple(headers) == scheme.headers
    check(scheme, headers)
    check(scheme, headers, b"new", b"right")
    check(scheme, headers, b"right", b"new")


@every
def test_another_secret_and_another_body_are_a_mismatch(scheme: Scheme) -> None:
    headers = scheme.sign(BODY, secret=b"right", now=NOW)
    assert reason(scheme, headers, b"wrong", b"wrong too") is Reason.MISMATCH
    assert reason(scheme, headers, body=BODY + b"\n") is Reason.MISMATCH


@every
def test_hex_in_upper_case_names_the_same_bytes(scheme: Scheme) -> None:
    headers = scheme.sign(BODY, secret=b"right", now=NOW)
    digits = headers[scheme.headers[-1]].rpartition("=")[2]
    check(scheme, {name: value.replace(digits, digits.upper()) for name, value in headers.items()})


@every
@pytest.mark.parametrize("wrong", ["zz", "0", "é", "\udce9\udcff", "０" * 64, "0x00", "00 11", "{mac},{mac}", "{mac}="])
def test_what_is_no_hex_is_malformed(scheme: Scheme, wrong: str) -> None:
    headers = scheme.sign(BODY, secret=b"right", now=NOW)
    digits = headers[scheme.headers[-1]].rpartition("=")[2]
    spoilt = {name: value.replace(digits, wrong.format(mac=digits)) for name, value in headers.items()}
    if scheme is LIST and "," in wrong:
        check(scheme, spoilt)  # a list is what it is; a part without a name is not looked at
    else:
        assert reason(scheme, spoilt) is Reason.MALFORMED


@every
@pytest.mark.parametrize("length", [0, 2, 62, 66, 128, 10_000])
def test_hex_of_another_length_is_a_mismatch(scheme: Scheme, length: int) -> None:
    headers = scheme.sign(BODY, secret=b"right", now=NOW)
    digits = headers[scheme.headers[-1]].rpartition("=")[2]
    spoilt = {name: value.replace(digits, "0" * length) for name, value in headers.items()}
    empty = scheme is PLAIN and not length
    assert reason(scheme, spoilt) is (Reason.MISSING if empty else Reason.MISMATCH)


@every
def test_a_header_sent_twice_is_malformed(scheme: Scheme) -> None:
    """It arrives joined with `, `: which of the two was meant is not ours to guess."""
    for name, value in (headers := scheme.sign(BODY, secret=b"right", now=NOW)).items():
        assert reason(scheme, {**headers, name: f"{value}, {value}"}) is Reason.MALFORMED


# --- what each signs, written out


def test_a_body_mac_is_the_hex_mac_of_the_body() -> None:
    assert PLAIN.sign(BODY, secret=b"right", now=NOW) == {"x-mac": mac(BODY)}
    assert PREFIXED.sign(BODY, secret=b"right", now=NOW) == {"x-mac": "sha512=" + mac(BODY, digest="sha512")}


def test_a_body_mac_without_its_prefix_is_malformed() -> None:
    right = mac(BODY, digest="sha512")
    for given in (right, "SHA512=" + right, " sha512=" + right, "sha1=" + right, "sha512"):
        assert reason(PREFIXED, {"x-mac": given}) is Reason.MALFORMED


def test_a_body_mac_never_grows_old() -> None:
    check(PLAIN, PLAIN.sign(BODY, secret=b"right", now=0))


def test_a_stamped_mac_covers_the_time_as_the_header_writes_it() -> None:
    assert TWO_HEADERS.sign(BODY, secret=b"right", now=NOW) == {
        "x-time": str(SECONDS),
        "x-mac": "v0=" + mac(b"v0:%d:%b" % (SECONDS, BODY)),
    }
    check(TWO_HEADERS, {"x-time": f"00{SECONDS}", "x-mac": "v0=" + mac(b"v0:00%d:%b" % (SECONDS, BODY))})
    swapped = {"x-time": str(SECONDS - 1), "x-mac": "v0=" + mac(b"v0:%d:%b" % (SECONDS, BODY))}
    assert reason(TWO_HEADERS, swapped) is Reason.MISMATCH


def test_a_stamped_list_covers_the_time_and_any_v1_will_do() -> None:
    right = mac(b"%d.%b" % (SECONDS, BODY))
    assert LIST.sign(BODY, secret=b"right", now=NOW) == {"x-list": f"t={SECONDS},v1={right}"}
    for written in (
        f"v1={right},t={SECONDS}",
        f"t={SECONDS},v1={'0' * 64},v1={right}",
        f"t={SECONDS},v1={right},v1={'0' * 64}",
        f"t={SECONDS}, v1={right}",  # some senders of this scheme put a space there
        f"t={SECONDS},v1={right},v0=zz,v2=,x,",
        f"t=00{SECONDS},v1={mac(b'00%d.%b' % (SECONDS, BODY))}",  # the time as the header writes it
    ):
        check(LIST, {"x-list": written})


def test_of_a_stamped_list_only_v1_counts() -> None:
    right = mac(b"%d.%b" % (SECONDS, BODY))
    assert reason(LIST, {"x-list": f"t={SECONDS},v0={right}"}) is Reason.MALFORMED
    assert reason(LIST, {"x-list": f"t={SECONDS},v1={'0' * 64},v0={right}"}) is Reason.MISMATCH
    check(LIST, {"x-list": f"t={SECONDS},v1=zz,v1={right}"})  # as Stripe's SDK has it
    assert reason(LIST, {"x-list": f"t={SECONDS},v1=é,v1={right}"}) is Reason.MALFORMED


@pytest.mark.parametrize(
    "written", ["v1={mac}", "t={now},t={now},v1={mac}", "t=,v1={mac}", "t,v1={mac}", "t={now}", ","]
)
def test_a_stamped_list_without_exactly_one_time_and_a_v1_is_malformed(written: str) -> None:
    right = mac(b"%d.%b" % (SECONDS, BODY))
    assert reason(LIST, {"x-list": written.format(now=SECONDS, mac=right)}) is Reason.MALFORMED


def test_the_names_in_a_stamped_list_can_be_others() -> None:
    other = StampedList(header="x-list", stamp="time", mac="sig1", digest="sha512")
    headers = other.sign(BODY, secret=b"right", now=NOW)
    assert headers == {"x-list": f"time={SECONDS},sig1={mac(b'%d.%b' % (SECONDS, BODY), digest='sha512')}"}
    check(other, headers)


# --- age


@pytest.mark.parametrize("scheme", [TWO_HEADERS, LIST])
def test_whole_seconds_are_within_the_tolerance_to_the_millisecond(scheme: Scheme) -> None:
    start = SECONDS * 1000
    headers = scheme.sign(BODY, secret=b"right", now=start)
    for now in (start, start - TOLERANCE, start + TOLERANCE, start + TOLERANCE + 999):
        check(scheme, headers, now=now)
    assert reason(scheme, headers, now=start + TOLERANCE + 1000) is Reason.TOO_OLD
    assert reason(scheme, headers, now=start - TOLERANCE - 1) is Reason.IN_FUTURE


def test_neither_a_secret_nor_a_signature_is_in_what_is_raised() -> None:
    for scheme in SCHEMES:
        headers = scheme.sign(BODY, secret=b"wrong", now=NOW)
        with pytest.raises(Rejected) as caught:
            check(scheme, headers, b"sesame")
        assert str(caught.value) == "mismatch"
        assert "sesame" not in repr(caught.value)

"""When to try again, and when it was the last time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.retry import (
    MISCONFIGURED,
    OUTAGE,
    REFUSED,
    REFUSED_OBSCURELY,
    STUCK,
    UNCLEAR,
    Policy,
    delay,
)

POLICIES = st.builds(
    Policy,
    first=st.integers(0, 10_000),
    longest=st.integers(0, 1_000_000),
    attempts=st.none() | st.integers(1, 20),
)
DICE = st.floats(0, 1, exclude_max=True)


def test_delays_double_until_the_longest() -> None:
    policy = Policy(first=100, longest=1_000)
    # The largest throw: next to no jitter.
    assert [delay(policy, attempt=attempt, dice=0.999_999) for attempt in range(1, 7)] == [
        100,
        200,
        400,
        800,
        1000,
        1000,
    ]


def test_a_quarter_of_the_delay_is_jitter() -> None:
    policy = Policy(first=1_000, longest=10_000)
    assert [delay(policy, attempt=1, dice=dice) for dice in (0.0, 0.5, 0.999_999)] == [750, 875, 1000]


def test_after_the_last_attempt_there_is_no_delay() -> None:
    policy = Policy(first=100, longest=100, attempts=3)
    assert [delay(policy, attempt=attempt, dice=0.999_999) for attempt in (1, 2, 3, 4)] == [100, 100, None, None]


def test_a_delay_of_nothing_is_another_try_not_the_end() -> None:
    assert delay(REFUSED, attempt=1, dice=0.5) == 0
    assert delay(REFUSED, attempt=2, dice=0.5) is None


@pytest.mark.parametrize("policy", [OUTAGE, MISCONFIGURED])
def test_an_event_api_that_is_away_is_never_given_up(policy: Policy) -> None:
    """However long it lasts: the doubling may not overflow either."""
    assert delay(policy, attempt=10**18, dice=0.999_999) == policy.longest


def test_what_is_refused_in_words_we_do_not_know_has_ten_seconds_and_for_ever_where_nothing_is_accepted() -> None:
    delays = [delay(REFUSED_OBSCURELY, attempt=attempt, dice=0) for attempt in range(1, 6)]
    assert delays[-1] is None
    assert sum(each for each in delays if each is not None) > 10_000
    assert delay(UNCLEAR, attempt=10**6, dice=0) is not None


def test_what_is_stuck_is_tried_thrice() -> None:
    assert [delay(STUCK, attempt=attempt, dice=0) is None for attempt in (1, 2, 3)] == [False, False, True]


@given(POLICIES, st.integers(1, 100), DICE)
def test_a_delay_is_between_three_quarters_and_all_of_what_is_due(policy: Policy, attempt: int, dice: float) -> None:
    found = delay(policy, attempt=attempt, dice=dice)
    if found is None:
        assert policy.attempts is not None and attempt >= policy.attempts
        return
    due = min(policy.longest, policy.first * 2 ** (attempt - 1))
    assert 0.75 * due - 0.5 <= found <= due


@given(POLICIES, st.integers(1, 100), DICE)
def test_delays_never_shrink_but_for_the_dice(policy: Policy, attempt: int, dice: float) -> None:
    found, later = (delay(policy, attempt=each, dice=dice) for each in (attempt, attempt + 1))
    assert later is None or (found is not None and later >= found)

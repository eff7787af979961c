"""What sessions show: questions asked again, tool calls repeated, errors of tools, turns; within bounds."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palegreen.evaluators.sample import Message, Sample
from palegreen.evaluators.sessions import Ended, Sessions, Signals
from palegreen.evaluators.toolerrors import reports_error

RESET = "How do I reset my password for the billing portal?"
AGAIN = "how do I reset my password for the billing portal"
OTHER = "Which of the two plans has telephone support at night?"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str, *calls: tuple[str, str]) -> Message:
    return {"role": "assistant", "content": text, "tool_calls": [{"name": n, "arguments": a} for n, a in calls]}


def tool(text: str) -> Message:
    return {"role": "tool", "content": text}


def sample(*messages: Message, at: float = 0.0, session: str = "s", **fields: Any) -> Sample:
    return Sample("Answer.", session=session, time=at, messages=list(messages), **fields)


def unit(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def test_a_question_asked_again_is_seen_whether_or_not_history_is_resent() -> None:
    for history in ((), (user(RESET), assistant("Click."))):
        sessions = Sessions()
        assert not sessions.observe(sample(user(RESET), at=10)).repeated_question
        assert sessions.observe(sample(*history, user(AGAIN), at=60)).repeated_question


def test_history_that_is_resent_is_no_question_asked_again() -> None:
    sessions = Sessions()
    sessions.observe(sample(user(RESET), at=10))
    later = sessions.observe(sample(user(RESET), assistant("Click."), user(OTHER), at=60))
    assert later == Signals(turns=2)


def test_a_question_that_history_alone_holds_counts_too() -> None:
    signals = Sessions().observe(sample(user(RESET), assistant("Click."), user(AGAIN), at=60))
    assert signals == Signals(turns=2, repeated_question=True)


def test_with_vectors_their_cosine_decides() -> None:
    sessions = Sessions()
    assert not sessions.observe(sample(user(RESET), at=10), unit(1, 2, 3, 4)).repeated_question
    assert sessions.observe(
        sample(user("I forgot the billing secret, what now"), at=60), unit(1, 2, 3, 4.1)
    ).repeated_question
    assert not sessions.observe(sample(user(AGAIN), at=120), unit(4, -3, 2, -1)).repeated_question


def test_beyond_what_an_embedder_reads_words_decide() -> None:
    sessions = Sessions()
    text = " ".join(f"word{chr(97 + at % 26)}{chr(97 + at // 26)}" for at in range(200))
    sessions.observe(sample(user(text), at=10), unit(1, 1))
    other = " ".join(f"more{chr(97 + at % 26)}{chr(97 + at // 26)}" for at in range(200))
    assert not sessions.observe(sample(user(f"{text} {other}"), at=60), unit(1, 1)).repeated_question
    assert sessions.observe(sample(user(f"{text} please"), at=120), unit(1, 0)).repeated_question


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is the price of article 1234 in Berlin today?", "What is the price of article 1235 in Berlin today?"),
        ("continue", "continue"),
        ("yes please", "Yes, please!"),
        (RESET, OTHER),
    ],
)
def test_questions_that_differ_and_short_replies_are_not_repeated(first: str, second: str) -> None:
    for vector in (None, unit(1, 2, 3)) if first != RESET else (None,):
        sessions = Sessions()
        sessions.observe(sample(user(first), at=10), vector)
        assert not sessions.observe(sample(user(second), at=60), vector).repeated_question


def test_questions_in_scripts_without_spaces_are_compared_too() -> None:
    sessions = Sessions()
    sessions.observe(sample(user("如何重置账单门户的密码"), at=10))
    assert sessions.observe(sample(user("如何重置账单门户的密码!"), at=60)).repeated_question
    assert not sessions.observe(sample(user("哪个套餐晚上有电话支持"), at=90)).repeated_question


def test_the_same_request_at_once_or_after_a_failure_is_a_retry() -> None:
    sessions = Sessions()
    assert sessions.observe(sample(user(RESET), at=10, duration_seconds=2.0)).turns == 1
    assert sessions.observe(sample(user(RESET), at=12.5, ended="client_abort")) == Signals(turns=1)
    assert sessions.observe(sample(user(RESET), at=40, status=503)) == Signals(turns=1)
    assert sessions.observe(sample(user(RESET), at=95)) == Signals(turns=1)
    assert sessions.observe(sample(user(RESET), at=130)) == Signals(turns=2, repeated_question=True)


def test_a_retry_repeats_no_tool_call() -> None:
    sessions = Sessions()
    call = [{"name": "find", "arguments": '{"q": 1}'}]
    for at in (10.0, 10.2):
        assert sessions.observe(sample(user(RESET), at=at, tool_calls=call)).repeated_tool_calls == 0


def test_calls_of_a_retry_that_succeeded_are_known_later() -> None:
    sessions = Sessions()
    call = [{"name": "find", "arguments": '{"q": 1}'}]
    sessions.observe(sample(user(RESET), at=10, status=503))
    assert sessions.observe(sample(user(RESET), at=12, tool_calls=call)) == Signals(turns=1)
    assert sessions.observe(sample(user(OTHER), at=60, tool_calls=call)).repeated_tool_calls == 1


def test_further_choices_of_a_response_are_not_counted_again() -> None:
    sessions = Sessions()
    call = [{"name": "find", "arguments": "{}"}]
    first = sessions.observe(sample(user(RESET), tool("Error: no"), at=10, tool_calls=call))
    assert first == Signals(turns=1, tool_errors=1)
    assert sessions.observe(sample(user(RESET), tool("Error: no"), at=10, tool_calls=call, choice=1)) == Signals(
        turns=1
    )


def test_new_tool_calls_that_were_made_before_are_counted() -> None:
    sessions = Sessions()
    first = {"name": "find", "arguments": '{"q": "x", "n": 1}'}
    same = {"name": "find", "arguments": '{"n":1,"q":"x"}'}
    other = {"name": "find", "arguments": '{"q": "y"}'}
    history = (user(RESET), assistant("", ("find", '{"q": "x", "n": 1}')), tool("nothing"))
    assert sessions.observe(sample(user(RESET), at=10, tool_calls=[first, other])).repeated_tool_calls == 0
    assert sessions.observe(sample(*history, at=20, tool_calls=[same])).repeated_tool_calls == 1
    assert sessions.observe(sample(*history, tool("x"), at=30, tool_calls=[same, other])).repeated_tool_calls == 2
    assert sessions.observe(sample(*history, tool("y"), at=40)).repeated_tool_calls == 0
    assert sessions.observe(sample(user("a"), at=50, session="t", tool_calls=[same])).repeated_tool_calls == 0


def test_calls_that_only_history_holds_and_calls_twice_in_one_response_count() -> None:
    call = {"name": "find", "arguments": "not JSON"}
    history = (user(RESET), assistant("", ("find", "not  JSON ")), tool("nothing"))
    assert Sessions().observe(sample(*history, tool_calls=[call, call])).repeated_tool_calls == 2


def test_only_errors_that_came_since_the_latest_answer_count() -> None:
    sessions = Sessions()
    history = (user(RESET), assistant("", ("f", "{}")), tool("Error: no route"), tool("fine"))
    assert sessions.observe(sample(*history, at=10)).tool_errors == 1
    assert sessions.observe(sample(*history, assistant("Hm.", ("f", "{}")), tool("ok"), at=20)).tool_errors == 0


def test_steps_of_an_agent_are_one_turn() -> None:
    sessions = Sessions()
    steps = [user(RESET)]
    for at in range(5):
        assert sessions.observe(sample(*steps, at=10.0 * at)) == Signals(turns=1)
        steps += [assistant("", ("f", f"{at}")), tool("fine")]
    assert sessions.observe(sample(*steps, user(OTHER), at=100)).turns == 2


def test_turns_that_were_not_sampled_are_counted_from_history() -> None:
    history = [message for at in range(4) for message in (user(f"Question {at}"), assistant("Answer"))]
    assert Sessions().observe(sample(*history, user(OTHER))).turns == 5


def test_without_a_session_there_is_nothing() -> None:
    sessions = Sessions()
    assert sessions.observe(sample(user(RESET), tool("Error: x"), session="")) == Signals()
    assert len(sessions) == 0


def test_a_session_ends_after_an_hour_without_a_sample() -> None:
    clock = Clock()
    sessions = Sessions(clock=clock)
    sessions.observe(sample(user(RESET), session="a", model="m", endpoint="chat"))
    clock.now += 3000
    sessions.observe(sample(user(RESET), session="b", model="m"))
    assert list(sessions.ended()) == []
    clock.now += 700
    assert list(sessions.ended()) == [Ended("m", "chat", 1, evicted=False)]
    assert list(sessions.ended()) == []
    assert sessions.observe(sample(user(RESET), session="a")).turns == 1


def test_jumps_of_the_wall_clock_end_no_session_and_raise_nothing() -> None:
    sessions = Sessions()
    for at in (1.7e9, 1.0, 4e9, -5.0, 1.7e9):
        sessions.observe(sample(user(RESET), at=at))
    assert list(sessions.ended()) == []
    assert len(sessions) == 1


def test_sessions_are_bounded_and_the_one_silent_longest_makes_room() -> None:
    sessions = Sessions(limit=3)
    for name in ("a", "b", "c", "a", "d"):
        sessions.observe(sample(user(RESET), session=name, model=name))
    assert len(sessions) == 3
    assert list(sessions.ended()) == [Ended("b", "", 1, evicted=True)]
    for at in range(1000):
        sessions.observe(sample(user(RESET), session=f"new {at}"))
    assert len(sessions) == 3
    assert len(list(sessions.ended())) == 3


def test_no_text_is_kept_and_what_a_session_holds_is_bounded() -> None:
    sessions = Sessions()
    for at in range(300):
        text = f"{RESET} {at} {'x' * at}"
        call = [{"name": "secretive", "arguments": f'{{"word": "{text}"}}'}]
        sessions.observe(
            sample(user(text), assistant("Aha"), user(text), at=100.0 * at, tool_calls=call), unit(*range(1, 385))
        )
        if at == 100:
            middle = len(pickle.dumps(sessions))
    held = pickle.dumps(sessions)
    assert len(held) < middle + 200
    assert len(held) < 8000
    for word in (b"reset", b"password", b"secretive", b"xxxx", b"Aha"):
        assert word not in held


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", ""]),
            st.lists(
                st.tuples(st.sampled_from(["user", "assistant", "tool", "system"]), st.text(max_size=20)), max_size=5
            ),
            st.lists(st.text(max_size=10), max_size=3),
            st.floats(-1e12, 1e12),
        ),
        max_size=8,
    )
)
def test_any_samples_give_signals_that_make_sense(
    rows: list[tuple[str, list[tuple[str, str]], list[str], float]],
) -> None:
    sessions = Sessions(limit=1)
    for session, messages, calls, at in rows:
        made: list[Message] = [{"role": role, "content": text} for role, text in messages]
        signals = sessions.observe(
            sample(*made, session=session, at=at, tool_calls=[{"name": "f", "arguments": call} for call in calls]),
            np.zeros(4, np.float32),
        )
        assert 0 <= signals.repeated_tool_calls <= len(calls)
        assert 0 <= signals.tool_errors <= len(made)
        assert (
            signals.turns >= sum(role == "user" for role, _ in messages)
            or not session
            or signals == Signals(signals.turns)
        )


@pytest.mark.parametrize(
    "content",
    [
        '{"error": "not found"}', '{"errors": [{"message": "x"}]}', '{"isError": true, "content": []}',
        '{"success": false}',
        '{"status": "error", "message": "x"}', '{"exit_code": 1, "stdout": ""}', '{"status_code": 503}',
        '[{"error": {"code": 3}}]', "Error: no such file", "ValueError: bad", "requests.exceptions.HTTPError: 404",

        "Traceback (most recent call last):\n  File", "<tool_use_error>no</tool_use_error>", "[Error] no",
        "**Error:** no",
        "Error executing tool find: no", "fatal: not a git repository", "ls: x\nProcess exited with code 2",
        "Exit code 127\nsh", "Command 'x' returned non-zero exit status 1.", "script exited with status 3",
        "Command failed with no output", "exit status 1",
    ],
)  # fmt: skip
def test_answers_of_tools_that_report_errors_are_told(content: str) -> None:
    assert reports_error(content)


@pytest.mark.parametrize(
    "content",
    [
        "", "fine", '{"error": null, "data": 1}', '{"errors": []}', '{"isError": false}', '{"success": true}',
        '{"error": ""}',
        '{"status": "ok"}', '{"exit_code": 0}', '{"status_code": 200}', '{"code": 5}',
        '{"job": "x", "status": "failed"}',
        '[{"error": "x"}, {"data": 1}]', "Errors in the translation are rare.", "Error handling in Go: a guide",
        "The log says: Error: no such file", "0 errors, 3 warnings", "Exit code 0", "Returned 5 rows",
        "exit 2 of the motorway", "Process exited with code 0",
        "exception handling (docs)", '{"truncated": ', "[1, 2, 3]", "def f(): raise ValueError('x')",
    ],
)  # fmt: skip
def test_answers_of_tools_that_only_mention_errors_are_not(content: str) -> None:
    assert not reports_error(content)

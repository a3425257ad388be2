"""Retries: what may pass is asked again, an answer is not."""

import pytest

from tl_dagster.runtime import retries


class HttpError(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (HttpError(503), 3),
        (HttpError(429), 3),
        (ConnectionResetError(), 3),
        (HttpError(404), 1),
        (PermissionError(), 1),
        (OSError(28, "no space left on device"), 1),
    ],
)
def test_only_errors_that_may_pass_are_repeated(monkeypatch, error, calls):
    monkeypatch.setattr(retries, "ATTEMPTS", 3)
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)
    made = []

    def request():
        made.append(1)
        raise error

    with pytest.raises(type(error)) as raised:
        retries.call_with_retries(request)
    assert raised.value is error and len(made) == calls


def test_the_first_success_is_returned(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)
    outcomes = [ConnectionResetError(), "answer"]

    def request():
        if isinstance(outcome := outcomes.pop(0), Exception):
            raise outcome
        return outcome

    assert retries.call_with_retries(request) == "answer"

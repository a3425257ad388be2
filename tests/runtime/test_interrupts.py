"""Interrupts: not within an import, and never lost."""

import contextlib
import gc
import os
import signal
import threading
import time
import weakref

import pytest

from tl_dagster.cli.signals import Interrupts
from tl_dagster.runtime.interrupts import SafeInterrupts
from tl_dagster.runtime.progress import Progress

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
MODULE = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.3)
except:
    raise RuntimeError("interrupted")
whole = True
"""


class Collected:
    """Something that is collected in a cycle."""

    def __init__(self):
        self.itself = self


def test_an_import_is_not_interrupted_but_what_follows_is(tmp_path, monkeypatch):
    (tmp_path / "slow_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    with Interrupts() as interrupts, SafeInterrupts():
        import slow_module

        assert slow_module.whole
        time.sleep(5)
        pytest.fail("it was not interrupted")
    assert interrupts.received == signal.SIGTERM


@pytest.mark.parametrize("number", SIGNALS)
def test_work_whose_interrupt_was_swallowed_stops_at_its_next_progress(number):
    progress, after = Progress(print), []
    with Interrupts() as interrupts, SafeInterrupts():
        progress.update(1, 10)
        with contextlib.suppress(BaseException):  # as a library that catches whatever comes
            os.kill(os.getpid(), number)
            time.sleep(5)
        after.append("swallowed")
        progress.update(2, 10)
        after.append("went on")
    assert after == ["swallowed"] and interrupts.received == number


@pytest.mark.parametrize("number", SIGNALS)
def test_what_was_swallowed_until_the_end_is_raised_there(number):
    ended = []
    with Interrupts(), SafeInterrupts():
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
            time.sleep(5)
        ended.append("the inner block")
    assert ended == ["the inner block"]
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt), SafeInterrupts():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except BaseException as error:
            raise RuntimeError("something went wrong inside of C++") from error
    assert interrupts.received == number


def test_an_interrupt_in_a_callback_of_the_collector_is_neither_printed_nor_lost(capsys):
    kept = []
    with Interrupts() as interrupts, SafeInterrupts():
        thing = Collected()
        kept.append(weakref.ref(thing, lambda _: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(0.2))))
        del thing
        gc.collect()
        time.sleep(5)
        pytest.fail("it was not interrupted")
    assert interrupts.received == signal.SIGTERM
    assert capsys.readouterr().err == ""


def test_nothing_happens_where_nothing_came_and_in_other_threads():
    before = signal.getsignal(signal.SIGTERM)
    with SafeInterrupts():
        Progress(print).update(1, 10)
        assert signal.getsignal(signal.SIGTERM) != before or not callable(before)

    def work() -> None:
        with SafeInterrupts():
            Progress(print).update(1, 10)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before

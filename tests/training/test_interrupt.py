"""Ctrl-C during a training in one process: whatever it meets, it is heard once the step is over."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from mobileface.training import interrupt
from mobileface.training.interrupt import Interrupt


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Ctrl-C may be ignored where the tests run, and stays so behind them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_it_waits_for_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), Interrupt() as asked:
        signal.raise_signal(signal.SIGINT)
        done.append(asked.asked)
    assert done == [True]


@pytest.mark.parametrize("error", [ValueError("pruned by a search"), RuntimeError("a loading process died")])
def test_it_is_not_lost_behind_an_error(error: Exception) -> None:
    """A search that ends a training at a validation would begin the next one."""
    with pytest.raises(KeyboardInterrupt), Interrupt():
        signal.raise_signal(signal.SIGINT)
        raise error


def test_a_full_disk_is_still_said() -> None:
    with pytest.raises(OSError, match="the disk is full"), Interrupt():
        signal.raise_signal(signal.SIGINT)
        raise OSError("the disk is full")


def test_a_second_one_stops_at_once() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), Interrupt():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("not reached")
    assert done == []


def test_without_one_nothing_is_raised() -> None:
    with Interrupt() as asked:
        pass
    assert not asked.asked
    with pytest.raises(RuntimeError, match="mine"), Interrupt():
        raise RuntimeError("mine")


def test_a_rank_that_is_over_does_not_leave_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "world_size", lambda: 2)
    with Interrupt() as asked:
        signal.raise_signal(signal.SIGINT)
    assert asked.asked

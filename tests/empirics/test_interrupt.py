import os
import signal
import threading

import pytest

from empirics.interrupt import Interrupted, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with interruptible() as stop:
        assert not stop.made
        os.kill(os.getpid(), number)
        assert stop.made
        assert signal.getsignal(number) == before  # a second one acts as usual
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_interrupts_at_once():
    with interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_run_without_signals():
    made = []

    def body():
        with interruptible() as stop:
            made.append(stop.made)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert made == [False]


def test_exit_code_and_sentence():
    stop = Interrupted("saved")
    assert stop.code == 130
    assert str(stop) == "saved"

import io

from rich.console import Console

from empirics import progress
from empirics.progress import Display


def test_plain_lines_come_at_intervals_and_say_how_a_run_ended(monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 11.0, 11.0, 12.0, 12.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with Display(console=Console(file=out, width=40)) as display:
        for done, loss in ((1, 3.0), (2, 2.0), (3, 1.0)):
            display.update("a" * 50, done, 10, loss)
        display.follow("b")(4, 10, 0.5)
        display.close("b", "finished [ok]")
    a = "a" * 50
    assert out.getvalue().splitlines() == [
        f"{a}: 1/10 steps, loss 3.000",
        f"{a}: 3/10 steps, loss 1.000",
        "b: 4/10 steps, loss 0.500",
        "b: finished [ok]",
    ]


def test_on_a_terminal_there_is_a_bar():
    out = io.StringIO()
    with Display(console=Console(file=out, force_terminal=True, width=100)) as display:
        display.update("digits", 5, 10, 1.25)
        display.overall(7, 12, 3)
        display.close("digits", "finished")
    assert "5/10" in out.getvalue()
    assert "loss 1.250" in out.getvalue()
    assert "digits: finished" in out.getvalue()
    assert "7/12" in out.getvalue()
    assert "3 failed or diverged" in out.getvalue()

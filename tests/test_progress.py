"""What a terminal shows of long work: the progress bar and the time left for everything."""

import io
import time

import pytest

from textladder.comparison.budget import FitEstimate
from textladder.comparison.time_left import TimeLeft
from textladder.progress import Monitor, SpeakingMonitor, TerminalMonitor


class Told(Monitor):
    def __init__(self):
        self.told = []

    def left(self, seconds, then):
        self.told.append((round(seconds), list(then)))


def test_a_level_is_timed_by_its_first_training_and_others_are_named_until_then():
    told = Told()
    time_left = TimeLeft({"tfidf": 100, "lstm": 100}, {}, told)
    now = time.perf_counter()
    time_left.expect("lstm", 6)
    time_left.trained("tfidf", 1, now - 2, 0)
    assert told.told[-1] == (0, ["lstm"])
    time_left.expect("tfidf", 2)
    assert told.told[-1] == (4, ["lstm"])
    time_left.trained("lstm", 1, now - 30, 0)
    assert told.told[-1] == (4 + 150, [])
    # one that an earlier comparison finished takes no time now
    time_left.trained("lstm", 1, time.perf_counter(), 40)
    assert told.told[-1] == (4 + 4 * 35, [])
    # a level that failed
    time_left.expect("lstm", 0)
    assert told.told[-1] == (4, [])


def test_probes_tell_the_time_left_from_the_start():
    told = Told()
    estimates = {"lstm": FitEstimate(5.0, 0.1, 105.0, 3.0), "ulmfit": FitEstimate(5.0, 1.0, 1005.0, 3.0)}
    time_left = TimeLeft({"lstm": 500}, estimates, told)  # ulmfit was left out
    time_left.expect("lstm", 2)
    assert told.told == [(110, [])]


def test_the_time_left_stands_below_the_progress_bar():
    from rich.console import Console

    shown = io.StringIO()
    monitor = TerminalMonitor()
    monitor._console = Console(file=shown, width=80, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    monitor.begin("lstm, fold 2 of 5")
    monitor.left(855, ["ulmfit", "transformer"])
    monitor.start("epoch 1 of 10", 100)
    monitor.advance(40)
    monitor._progress.refresh()
    monitor.stop()
    lines = shown.getvalue().splitlines()
    assert any("lstm, fold 2 of 5: epoch 1 of 10" in line and "40%" in line for line in lines)
    assert any("About 14 min left, then ulmfit and transformer" in line for line in lines)


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_nothing_is_said_of_work_that_takes_longer_than_expected(seconds):
    monitor = TerminalMonitor()
    monitor.left(seconds, [])
    assert monitor._left() == ""


EVIL = "\x1b]0;title\x07\x9b2J\u202e"
SAFE = r"\x1b]0;title\x07\x9b2J\u202e"


@pytest.mark.parametrize("kind", [SpeakingMonitor, TerminalMonitor])
def test_sentences_do_not_command_the_terminal(kind, capsys):
    kind().say(f"label '{EVIL}' of हिन्दी\u200d 😀\ufe0f\u3000文")
    shown = capsys.readouterr().err.replace("\n", "")
    assert SAFE in shown.replace(" ", "")
    assert "हिन्दी\u200d 😀\ufe0f\u3000文" in shown

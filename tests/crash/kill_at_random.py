"""Run one command to its end, and again in a copy, killed three times at random moments before it goes on to its end.

    python kill_at_random.py FOLDER SEED COMMAND...

FOLDER holds what the command needs. One line of JSON is printed for each of the two: the place and the exit status.
"""

import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from kill_each import attempt, import_for

KILLS = 3


def kill_at_random(folder: Path, seed: int, command: list[str]) -> None:
    """Kill three times, each within half of the time that the undisturbed run took, and go on."""
    import_for(command)
    whole, place = folder.with_name("undisturbed"), folder.with_name("killed")
    shutil.copytree(folder, whole)
    shutil.copytree(folder, place)
    started = time.monotonic()
    found = attempt(whole, command)
    seconds = time.monotonic() - started
    print(json.dumps({"place": str(whole), **found}), flush=True)
    moments = random.Random(seed)
    killed = []
    for kill_after in [moments.uniform(0.2, 0.5) * seconds for _ in range(KILLS)] + [None]:
        last = attempt(place, command, kill_after=kill_after)
        killed.append(last["status"])
        if last["status"] != -signal.SIGKILL:  # it came to its end before it was killed, or not at all
            break
    print(json.dumps({"place": str(place), "killed": killed, **last}), flush=True)


if __name__ == "__main__":
    kill_at_random(Path(sys.argv[1]).resolve(), int(sys.argv[2]), sys.argv[3:])

"""The loop that every peer shares: one JSON request a line on stdin, one JSON answer a line on stdout.

A request is {"measure": NAME, ...arguments}; the answer {"ok": VALUE} or {"error": TEXT}. Times are seconds.
"""

import json
import os
import sys
import time
import traceback


def serve(measures):
    """Answers requests by calling measures[NAME](**arguments) until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print must not land between the answers.
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": measures[request.pop("measure")](**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


def now():
    """The clock that all processes of a machine share, in seconds."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def dying_code(stamp):
    """Code that writes the moment of its death to a file and dies."""
    return (
        "import os, time\n"
        f"f = open({stamp!r}, 'w')\n"
        "f.write(repr(time.clock_gettime(time.CLOCK_MONOTONIC))); f.close()\n"
        "os._exit(1)"
    )


def died_at(stamp):
    """The moment that `dying_code` wrote."""
    with open(stamp) as file:
        moment = float(file.read())
    os.unlink(stamp)
    return moment


def print_code(lines, flush):
    """Code that prints numbered lines."""
    return f"for i in range({lines}): print('line', i, flush={flush})"


def summary(began, text):
    """What came of a printing cell."""
    return {"seconds": now() - began, "lines": text.count("\n"), "characters": len(text)}

"""The command of a test's machine: does what comes as a JSON line on standard input, and answers each with one.

{"run": argv, "input": text, "limit": seconds}   -> {"code", "out"}      both outputs as they came
{"until": argv, "limit": seconds}                -> {"code", "out"}      of the first run that exits with 0, or the last
{"start": argv, "log": path, "environment": {}}  -> {"pid"}
{"stop": pid}                                    -> {"code"}             asked by SIGTERM
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

PAUSE = 0.02  # seconds between two looks at what nobody announces

started: dict[int, subprocess.Popen[bytes]] = {}


def run(ask: dict[str, Any]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            ask["run"],
            input=ask.get("input", ""),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=ask["limit"],
            check=False,
        )
        return {"code": done.returncode, "out": done.stdout}
    except subprocess.TimeoutExpired as error:
        return {"code": -1, "out": f"no end after {ask['limit']} s; {error.stdout!r}"}
    except OSError as error:
        return {"code": 127, "out": str(error)}


def until(ask: dict[str, Any]) -> dict[str, Any]:
    end = time.monotonic() + ask["limit"]
    while True:
        answer = run({"run": ask["until"], "limit": ask["limit"]})
        if answer["code"] == 0 or time.monotonic() > end:
            return answer
        time.sleep(PAUSE)


def start(ask: dict[str, Any]) -> dict[str, Any]:
    with open(ask["log"], "wb") as log:
        environment = {**os.environ, **ask["environment"]}
        process = subprocess.Popen(ask["start"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    started[process.pid] = process
    return {"pid": process.pid}


def stop(ask: dict[str, Any]) -> dict[str, Any]:
    process = started.pop(ask["stop"])
    process.terminate()
    return {"code": process.wait()}


DO: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"run": run, "until": until, "start": start, "stop": stop}

if __name__ == "__main__":
    for line in sys.stdin:
        question = json.loads(line)
        answer = DO[next(iter(question))](question)
        print(json.dumps(answer), flush=True)  # noqa: T201

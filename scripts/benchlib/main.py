"""`scripts/bench`: choose the measures, run them one by one, print the table."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from .measures import Measure, Scale, measures
from .report import Row, as_json, as_table
from .servers import CannotMeasureError, Machines

MDEVFS = Path(__file__).parents[2] / ".venv" / "bin" / "mdevfs"
QUICK = Scale(rounds=3, count=100, mounts=1, mdevs=10_000)


def pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure mdevfs in one run with what each figure is compared with: real sysfs, a bare"
        " pyfuse3 file system (scripts/barefs.py), or mdevfs with few mdevs. Goals are shown, not enforced:"
        " exit 0 when every figure was had, 3 when one could not be.",
        epilog="Example: scripts/bench --quick --only 'handshake|stat'",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--only", type=pattern, metavar="REGEX", help="only figures whose name matches")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, 10,000 mdevs: for a first look")
    parser.add_argument("--host", default="mtty", help="host of the plain rows (default mtty)")
    parser.add_argument("--mdevfs", default=str(MDEVFS), metavar="COMMAND", help="the mdevfs to measure")
    return parser.parse_args()


def measured(measure: Measure, machines: Machines, scale: Scale) -> Row:
    print(f"measuring: {measure.name}", file=sys.stderr)
    try:
        return Row(measure, measure.run(machines, scale))
    except (CannotMeasureError, OSError) as error:
        return Row(measure, None, f"not measured: {error}")


def main() -> int:
    chosen = arguments()
    # Whether client and server share a CPU changes a round trip threefold; the scheduler must not decide a ratio.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    scale = QUICK if chosen.quick else Scale()
    wanted = [
        measure for measure in measures(scale, chosen.host) if chosen.only is None or chosen.only.search(measure.name)
    ]
    with tempfile.TemporaryDirectory(prefix="mdevfs-bench-") as scratch, ExitStack() as stack:
        machines = Machines(chosen.mdevfs, chosen.host, Path(scratch), stack)
        rows = [measured(measure, machines, scale) for measure in wanted]
    print(as_json(rows) if chosen.json else as_table(rows))
    return 3 if any(row.result is None for row in rows) else 0

"""Where the parts of a machine wait while it is built: below a private /run, which the machine's own then covers.

A directory that every system has and every command gets a private one of: what is mounted below the first private one
is out of the command's sight, and needs no directory on the host.
"""

from pathlib import Path

BACKSTAGE = Path("/run")
TREE = BACKSTAGE / "tree"
STATE = BACKSTAGE / "state"
DEV = BACKSTAGE / "dev"  # the machine's own, to be
REAL_SYS = BACKSTAGE / "real/sys"
REAL_DEV = BACKSTAGE / "real/dev"
RUN = BACKSTAGE / "run"  # the machine's own, to be
LAYERS = BACKSTAGE / "layers"
CONTROL = "mdevfs/control"  # the control socket, below the machine's /run

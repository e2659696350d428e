"""A link that breaks: passes frames on to a target's process until the one that it was told.

link_proxy.py KIND before|after COMMAND...     KIND: the frame's name, such as R; the answers' names too
link_proxy.py KIND PATH=TEXT COMMAND...        writes the text to the path before that frame, and goes on
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from pathlib import Path


def frame(descriptor: int) -> bytes:
    """One whole frame, or what there is of it."""
    head = exactly(descriptor, 5)
    return head + exactly(descriptor, struct.unpack(">cI", head)[1]) if len(head) == 5 else head


def exactly(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := os.read(descriptor, size - len(data))):
        data += piece
    return data


def main() -> None:
    kind, when, *command = sys.argv[1:]
    target = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert target.stdin is not None and target.stdout is not None
    inward, outward = target.stdin.fileno(), target.stdout.fileno()

    dead = threading.Event()

    def passing(reader: int, writer: int) -> None:
        while data := frame(reader):
            if dead.is_set():
                return
            hit, (path, write, text) = data[:1] == kind.encode(), when.partition("=")
            if hit and write:
                Path(path).write_text(text)
            elif hit:
                dead.set()
                if when == "after":
                    os.write(writer, data)
                # Closing both of the target's ends is the link's death to it; ours ends with the process.
                os.close(inward)
                os.close(outward)
                target.wait()
                os._exit(1)
            os.write(writer, data)
        if reader == 0:  # the source is gone, and so is the link
            os.close(inward)
            os._exit(target.wait())

    threading.Thread(target=passing, args=(outward, 1), daemon=True).start()
    passing(0, inward)


main()

"""A worker that runs a pool's `setup` where it is, and tells what that says."""

from __future__ import annotations

import os
import shutil
import subprocess

from skybatch.worker.serve import Channel

PIECE = 1 << 16


def prepare(channel: Channel, line: str) -> None:
    """Run the shell line to its end; its output is told as it comes, then its exit status, negative for a signal."""
    shell = shutil.which("bash") or "sh"
    reads, writes = os.pipe()
    process = subprocess.Popen([shell, "-c", line], stdin=subprocess.DEVNULL, stdout=writes, stderr=writes)
    os.close(writes)
    while True:
        data = os.read(reads, PIECE)
        if not data:
            break
        channel.send({"op": "said", "text": data.decode("utf-8", "replace")})
    channel.send({"op": "prepared", "status": process.wait()})

"""A file system that never answers, as a mount whose server is gone: whoever asks it waits, and cannot be killed.

A frozen file system still reads; this one does not even do that, so that no program that lies on it can be started.
"""

import os
import struct
import subprocess
import threading
from pathlib import Path

REQUEST = struct.Struct("<IIQ")
"""The beginning of what the kernel asks (linux/fuse.h): length, kind, number."""
ANSWER = struct.Struct("<IiQ")
INIT, MINOR = 26, 31
INIT_ANSWER = struct.Struct("<IIIIHHIIHHIIIIIIII")
LARGEST = 1 << 20


class DeadMount:
    """Mounted by root, over FUSE. What is asked is taken, so that the kernel waits for the answer, and none comes."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        mount.mkdir()
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        subprocess.run(["mount", "-i", "-t", "fuse", "-o", options, "dead", mount], check=True, pass_fds=[self._fd])
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                asked = os.read(self._fd, LARGEST)
            except OSError:  # it is unmounted
                return
            _, kind, number = REQUEST.unpack_from(asked)
            if kind == INIT:
                answer = INIT_ANSWER.pack(7, MINOR, 0, 0, 12, 10, 4096, 1, *[0] * 10)
                os.write(self._fd, ANSWER.pack(ANSWER.size + len(answer), 0, number) + answer)

    def close(self) -> None:
        """Unmount it; whoever waits gets an error."""
        for how in ("-f", "-l"):
            subprocess.run(["umount", how, self.mount], check=False, capture_output=True)
        os.close(self._fd)

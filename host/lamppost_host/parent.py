"""Ending when the parent ends, however it ended: a child that outlives a killed parent holds its port and its database."""

import ctypes
import os
import signal
import sys
import threading
import time

END_WITH_PARENT = "LAMPPOST_END_WITH_PARENT"
"""Set by a parent for its children: they get SIGTERM when it dies."""

_PR_SET_PDEATHSIG = 1
_POLL_S = 1.0


def end_with_parent(ending: signal.Signals = signal.SIGTERM) -> None:
    """Have `ending` sent to this process when its parent dies. Call first thing in the child.

    Linux: prctl(2), PR_SET_PDEATHSIG; it stays set through exec. Elsewhere a thread watches the parent's process id.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(ending), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), ending)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os.kill(os.getpid(), ending)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()

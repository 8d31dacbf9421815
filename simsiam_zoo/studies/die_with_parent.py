"""A command that is asked to stop when its parent dies.

The file is also a program, `die_with_parent.py PARENT PROGRAM ARGUMENT...`, that becomes the
command: the process and its id stay the same. A program, since what would do the same between fork
and exec (`preexec_fn`) may deadlock in a process that has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(argv: Sequence[str]) -> list[str]:
    """`argv` as a child of this process that gets SIGTERM when this process dies, even by SIGKILL.

    Linux only; elsewhere `argv` as it is. The kernel watches the thread that starts the child: it
    should live as long as the process.
    """
    if sys.platform != "linux":
        return list(argv)
    # -I -S: neither the user's environment nor site-packages, which take time, are of use here
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _run(arguments: Sequence[str]) -> int:
    """Become the command; returns only where that cannot be, with the shell's exit code for it."""
    parent, *argv = arguments
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before it was watched
        return 128 + signal.SIGTERM
    # Python ignores these, and a command would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"{argv[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))

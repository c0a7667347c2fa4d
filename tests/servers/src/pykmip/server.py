"""Runs PyKMIP's server. Its helper processes, which it leaves behind when it is killed, die with it."""

import ctypes
import multiprocessing
import os
import signal

from kmip.services.server.server import main

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)

multiprocessing.set_start_method("fork")
os.register_at_fork(
    after_in_child=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
)
main()

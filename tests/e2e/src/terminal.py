"""Runs a program at a terminal of its own: python3 -c SCRIPT JSON, with {"steps", "argv"}.

Each step is [what to wait for, what to type then]. Prints JSON: all that was seen, how the
program ended, and whether the terminal echoes at the end.
"""
import json, os, pty, select, sys, termios, time

asked = json.loads(sys.argv[1])
end = time.monotonic() + 60
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(asked["argv"][0], asked["argv"])

seen = b""


def more():
    """Reads on; False at the end."""
    global seen
    left = end - time.monotonic()
    if left <= 0 or not select.select([terminal], [], [], left)[0]:
        os.kill(pid, 9)
        sys.exit("no answer in time; seen so far: %r" % seen)
    try:
        read = os.read(terminal, 4096)
    except OSError:
        read = b""
    seen += read
    return read != b""


at = 0
for expected, typed in asked["steps"]:
    expected = expected.encode()
    while expected not in seen[at:]:
        if not more():
            sys.exit("ended before %r; seen: %r" % (expected, seen))
    at = seen.index(expected, at) + len(expected)
    os.write(terminal, typed.encode())
while more():
    pass
_, status = os.waitpid(pid, 0)
echoes = bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
ended = os.waitstatus_to_exitcode(status)
json.dump({"seen": seen.decode("latin-1"), "status": ended, "echoes": echoes}, sys.stdout)

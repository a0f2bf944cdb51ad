"""`python -m reslight` is `reslight`: a command in a process of its own."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # Python puts the current folder first. As for the script `reslight`, a random.py in it must not hide a module of Python's.
    sys.path.append(sys.path.pop(0))

from reslight.interrupts import end_quietly, ending_at_once


def run() -> int:
    """Run the command that was typed; return its exit code, with which the process is to end."""
    with ending_at_once():
        from reslight.cli.main import main
    code = main()
    end_quietly(code)
    return code


if __name__ == "__main__":
    sys.exit(run())

"""Run a script as __main__, in a process that ends when the one that started it does.

    python guarded_main.py SCRIPT ARGUMENTS...

The starter holds the other end of our stdin. However it ends, kill -9 included, that end is closed then.
"""

import os
import runpy
import sys
import threading


def _end_with_starter() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_starter, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")

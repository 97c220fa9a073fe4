"""Start of a worker process: makes `skybatch` importable, and nothing else of its folder, then serves.

Run as a script under the Python of the user's environment, where skybatch need not be installed.
"""

import importlib.util
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def make_importable() -> None:
    """Load the very skybatch this file belongs to, without its neighbours in site-packages."""
    init = os.path.join(ROOT, "__init__.py")
    spec = importlib.util.spec_from_file_location("skybatch", init, submodule_search_locations=[ROOT])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["skybatch"] = module
    spec.loader.exec_module(module)


def refuse_old_python(channel: int) -> None:
    """Say that this Python is too old, in frames, and end."""
    from frames import encode  # type: ignore[import-not-found]

    version = "%d.%d" % sys.version_info[:2]
    message = "the workers' Python, %s, is %s; skybatch needs 3.9 or newer there" % (sys.executable, version)
    os.write(channel, encode({"op": "broken", "message": message, "expected": True}))
    sys.exit(1)


def tell_stacks_when_asked(fd: int, number: int) -> None:
    """Have signal `number` write all threads' stacks to `fd`, whatever they are at."""
    import faulthandler

    faulthandler.register(number, file=fd, all_threads=True)


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        refuse_old_python(int(sys.argv[1]))
    tell_stacks_when_asked(int(sys.argv[3]), int(sys.argv[4]))
    sys.path.pop(0)
    make_importable()
    from skybatch.worker.serve import serve_process

    serve_process(int(sys.argv[1]), int(sys.argv[2]))

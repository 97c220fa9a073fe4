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


if __name__ == "__main__":
    sys.path.pop(0)
    make_importable()
    from skybatch.worker.serve import serve_process

    serve_process(int(sys.argv[1]), int(sys.argv[2]))

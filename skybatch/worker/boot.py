"""The first of ours to run on another machine: takes over what it lacks, and becomes the worker's parent.

Its text comes over stdin, as one line, to `python3 -S -c` and LOADER; so it stands alone, and is kept to what old
Pythons can compile, which then can say that they are too old. Frames are as in `frames`, on stdin and stdout:

    engine: boot    what is to be there (parts: name and size), the environment, a line to activate another Python
    here:   hello   what this machine is, where parts are kept, which are needed;  or `unfit`, and why
    engine: those parts' bytes, zip files, one after the other
    here:   present

and then whatever the worker's parent says and hears, or, where a keeper is wanted, an answer to each `ping`. Parts are
named by their content, and kept in a folder of the user's cache between jobs.
"""

import json
import os
import struct
import sys

LEAST = (3, 9)
OLD_S = 30 * 86400
ACTIVATED = '{ eval "$SKYBATCH_ACTIVATE"\n} >&2 </dev/null && exec python -I -S "$0"'
UNWRITABLE = (1, 2, 13, 20, 30)  # not allowed, not there, no access, no folder, read-only


def read(count):
    data = b""
    while len(data) < count:
        piece = os.read(0, min(count - len(data), 1 << 20))
        if not piece:
            sys.exit(0)
        data += piece
    return data


def receive():
    return json.loads(read(struct.unpack("<I", read(4))[0]).decode())


def send(frame):
    body = json.dumps(frame).encode()
    data = struct.pack("<I", len(body)) + body
    while data:
        data = data[os.write(1, data) :]


def unfit(message):
    send({"op": "unfit", "message": message})
    sys.exit(1)


def main():
    asked = receive()
    if sys.version_info < LEAST:
        version = "%d.%d" % sys.version_info[:2]
        least = "%d.%d" % LEAST
        unfit("its Python, %s, is %s; workers need %s or newer" % (sys.executable, version, least))
    os.umask(0o077)
    os.environ.update(asked["env"])
    try:
        root = cache()
        needed = [part for part in asked["parts"] if not present(root, part["name"])]
        send(dict(facts(root), op="hello", root=root, needed=[part["name"] for part in needed]))
        for part in needed:
            take(root, part["name"], part["size"])
        forget_old(root)
    except OSError as error:
        unfit("%s: %s" % (error.filename or "the folder for what workers need", error.strerror))
    core = os.path.join(root, asked["core"], "skybatch", "worker")
    if asked.get("keep"):
        keep(core)
    send({"op": "present"})
    parent = os.path.join(core, "parent.py")
    if asked.get("activate_env"):
        os.environ["SKYBATCH_ACTIVATE"] = asked["activate_env"]
        os.execvp("bash", ["bash", "-c", ACTIVATED, parent])
    os.execv(sys.executable, [sys.executable, "-I", "-S", parent])


def cache():
    """The folder that parts are kept in: the user's cache, or, where there is none to be had, a temporary folder."""
    import tempfile

    home = os.path.expanduser("~")
    places = [os.environ.get("SKYBATCH_CACHE"), os.environ.get("XDG_CACHE_HOME")]
    places = [place for place in places if place][:1] or [os.path.join(home, ".cache")]
    temporary = os.path.join(tempfile.gettempdir(), "skybatch-%d" % os.getuid())
    try:
        return private(os.path.join(places[0], "skybatch"))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
    return private(temporary)


def private(folder):
    os.makedirs(folder, 0o700, exist_ok=True)
    found = os.lstat(folder)
    if found.st_uid != os.getuid() or found.st_mode & 0o022 or os.path.islink(folder):
        unfit("%s: others could have written to it; it will not be used" % folder)
    probe = os.path.join(folder, "probe-%d" % os.getpid())
    with open(probe, "wb") as file:
        file.write(b"-" * 4096)
    os.unlink(probe)
    return folder


def present(root, name):
    try:
        os.utime(os.path.join(root, name))
        return True
    except OSError:
        return False


def take(root, name, size):
    """Unpack the next `size` bytes, a zip file, as a folder of this name. Raises OSError."""
    import shutil
    import tempfile
    import zipfile

    place = tempfile.mkdtemp(prefix="new-", dir=root)
    try:
        packed = os.path.join(place, "packed")
        with open(packed, "wb") as file:
            while size:
                data = read(min(size, 1 << 20))
                file.write(data)
                size -= len(data)
        unpacked = os.path.join(place, "unpacked")
        os.mkdir(unpacked)
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(unpacked)
        try:
            os.rename(unpacked, os.path.join(root, name))
        except OSError:
            if not present(root, name):  # another worker here was as quick
                raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


def forget_old(root):
    import shutil
    import time

    for name in os.listdir(root):
        path = os.path.join(root, name)
        try:
            if "-" in name and os.path.getmtime(path) < time.time() - OLD_S:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass


def facts(root):
    free = os.statvfs(root)
    return {
        "host": os.uname().nodename,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "executable": sys.executable,
        "cpus": len(os.sched_getaffinity(0)),
        "disk_free": free.f_bavail * free.f_frsize,
    }


def keep(core):
    """Answer until the engine leaves: the connection is what others go through, and how that is noticed."""
    sys.path.insert(0, core)
    from gpus import devices

    send({"op": "present", "gpus": devices()})
    while True:
        send({"op": "pong", "id": receive().get("id")})


main()

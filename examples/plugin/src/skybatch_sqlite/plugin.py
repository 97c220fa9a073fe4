"""What the entry point names: the classes by the names that job files use."""

from skybatch import hookimpl


@hookimpl
def skybatch_input_readers():
    from skybatch_sqlite.reader import SqliteReader

    return {"sqlite": SqliteReader}


@hookimpl
def skybatch_output_writers():
    from skybatch_sqlite.writer import SqliteWriter

    return {"sqlite": SqliteWriter}


@hookimpl
def skybatch_executors():
    from skybatch_sqlite.nice import NiceExecutor

    return {"nice": NiceExecutor}

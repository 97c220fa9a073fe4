"""Mapper, reader and writers of a job, made from its stored code."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Dict, List, Tuple

from skybatch.errors import MapperError
from skybatch.formats.base import InputReader, OutputWriter
from skybatch.worker import code, runtime
from skybatch.worker.frames import Frame


def load_code(config: Frame) -> Tuple[Any, InputReader, List[OutputWriter]]:
    """Mapper, reader and writers. Raises whatever their import raises."""
    if "live" in config:
        return config["live"]  # type: ignore[no-any-return]
    objects = _objects(config, config["refs"])
    reader, writers = _formats(config, objects)
    return objects.get("mapper"), reader, writers


def load_mapper(config: Frame) -> Any:
    """The mapper alone. Raises whatever its import raises."""
    return _objects(config, {"mapper": config["refs"]["mapper"]})["mapper"]


def load_formats(config: Frame) -> Tuple[InputReader, List[OutputWriter]]:
    """Reader and writers, with what they need. Raises whatever their import raises, MapperError for what is missing."""
    refs = {key: ref for key, ref in config["refs"].items() if key != "mapper"}
    reader, writers = _formats(config, _objects(config, refs))
    require_all(reader, writers)
    return reader, writers


def _objects(config: Frame, refs: Dict[str, Dict[str, str]]) -> Dict[str, Any]:
    with runtime.loading_code():
        return code.load(config["code"], refs)


def _formats(config: Frame, objects: Dict[str, Any]) -> Tuple[InputReader, List[OutputWriter]]:
    reader = objects["reader"](**config["reader"]) if "reader" in objects else None
    writers = [objects[f"output{k}"](**fields) for k, fields in enumerate(config["outputs"])]
    return reader, writers  # type: ignore[return-value]


def require_all(reader: InputReader, writers: List[OutputWriter]) -> None:
    """Raise MapperError, with the command that installs it, for a module that a format needs and that is not there."""
    _require(reader)
    for writer in writers:
        _require(writer)


def _require(format: InputReader | OutputWriter) -> None:
    for module, distribution in format.requires.items():
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            raise MapperError(
                f"{type(format).__name__} needs {module}, which the workers' Python does not have; "
                f"install it there: {sys.executable} -m pip install {distribution}"
            ) from None

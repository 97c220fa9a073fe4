"""Putting an output in its place, atomically, on the condition that nobody else did.

The token says how what stands there is recognised as this job's: a local file by its inode, size and modification
time, an object by the owner it was put with.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from skybatch.formats import by_hand, storage, stores
from skybatch.formats.base import OutputWriter
from skybatch.formats.masking import masked
from skybatch.formats.stores.base import Composer, ObjectInfo, Store

Token = dict[str, Any]


class Conflict(Exception):
    """Something that is not this job's stands at an output's place; it was left untouched."""


def token_of(path: str) -> Token | None:
    """How the local file at `path` is recognised; None when there is none."""
    try:
        return _token(os.stat(path))
    except FileNotFoundError:
        return None


def standing(writer: OutputWriter) -> Token | None:
    """What stands where an output will be committed, so that it can be replaced on that condition; None for nothing."""
    path = writer.commit_path()
    if storage.is_local(path):
        return token_of(storage.local_path(path))
    found = _found(stores.of(path), path)
    return {"version": found.version} if found else None


class Place(ABC):
    """Where one output is committed."""

    def __init__(self, writer: OutputWriter, job_id: str, replaces: Token | None) -> None:
        self.writer, self.job_id, self.replaces = writer, job_id, replaces
        self.path = writer.commit_path()

    @abstractmethod
    def token_for(self, staged: str) -> Token:
        """How the staged local file will be recognised once it is published."""

    @abstractmethod
    def stands(self, token: Token) -> bool:
        """Whether what this token was given for is published."""

    @abstractmethod
    def publish(self, staged: str) -> None:
        """Put the staged local file in its place. Raises Conflict."""

    def finish(self, composer: Composer) -> None:
        """Have a composer do its atomic step. Raises Conflict."""
        raise NotImplementedError("only objects are composed")

    def is_staged(self, staged: str, token: Token) -> bool:
        """Whether the staged local file is still the one that the token was given for."""
        found = token_of(staged)
        return found is not None and found.items() <= token.items()

    def _conflict(self) -> Conflict:
        change = "was changed by someone else" if self.replaces else "has come into existence"
        return Conflict(f"{masked(self.path)} {change} meanwhile; it was left as it is")


class LocalPlace(Place):
    """A local file: linked to its name, or renamed to it where something may be replaced."""

    def __init__(self, writer: OutputWriter, job_id: str, replaces: Token | None) -> None:
        super().__init__(writer, job_id, replaces)
        self._final = storage.local_path(self.path)

    def token_for(self, staged: str) -> Token:
        """By inode, size and modification time, which a link and a rename keep."""
        return _token(os.stat(staged))

    def stands(self, token: Token) -> bool:
        """Whether that very file has its name."""
        return token_of(self._final) == token

    def publish(self, staged: str) -> None:
        """Link or rename it, durably. Raises Conflict."""
        storage.make_folders(os.path.dirname(self._final))
        there = token_of(self._final)
        if there is not None and (there == self.replaces or there in by_hand.tokens(self.writer.path, self.job_id)):
            os.rename(staged, self._final)
        else:
            try:
                os.link(staged, self._final)
            except FileExistsError:
                raise self._conflict() from None
        storage.sync_folder(os.path.dirname(self._final))


class StorePlace(Place):
    """An object: put or composed on the condition that what was there at the start is there still."""

    def __init__(self, writer: OutputWriter, job_id: str, replaces: Token | None, idx: int) -> None:
        super().__init__(writer, job_id, replaces)
        self.store = stores.of(self.path)
        self.owner = f"{job_id}.{idx}"

    def token_for(self, staged: str) -> Token:
        """By the owner; and how the staged file is recognised until then."""
        return {"owner": self.owner, **_token(os.stat(staged))}

    def stands(self, token: Token) -> bool:
        """Whether an object of this owner is there."""
        found = _found(self.store, self.path)
        return found is not None and found.owner == token["owner"]

    def publish(self, staged: str) -> None:
        """Put it. Raises Conflict."""
        try:
            self.store.put(self.path, Path(staged), replaces=self._replaces(), owner=self.owner)
        except FileExistsError:
            raise self._conflict() from None

    def finish(self, composer: Composer) -> None:
        """Have a composer do its atomic step. Raises Conflict."""
        try:
            composer.finish(replaces=self._replaces())
        except FileExistsError:
            raise self._conflict() from None

    def _replaces(self) -> str | None:
        """The version that may be replaced: what was there at the start, or what was put there by hand."""
        found = _found(self.store, self.path)
        if found is None:
            return None
        if found.owner == by_hand.owner(self.job_id):
            return found.version
        return self.replaces["version"] if self.replaces else None


def place_of(writer: OutputWriter, job_id: str, replaces: Token | None, idx: int) -> LocalPlace | StorePlace:
    """Where output `idx` is committed."""
    if storage.is_local(writer.commit_path()):
        return LocalPlace(writer, job_id, replaces)
    return StorePlace(writer, job_id, replaces, idx)


def _token(stat: os.stat_result) -> Token:
    return {"inode": stat.st_ino, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _found(store: Store, path: str) -> ObjectInfo | None:
    try:
        return store.info(path)
    except FileNotFoundError:
        return None

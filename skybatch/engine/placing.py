"""Putting an output in its place, atomically, on the condition that nobody else did.

The token says how what stands there is recognised as this job's: a local file by its inode, size and modification
time, an object by the owner it was put with.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path

from skybatch import disk
from skybatch.engine.spec import JobSpec
from skybatch.failpoints import reach
from skybatch.formats import by_hand, members, storage, stores, tokens
from skybatch.formats.base import OutputWriter
from skybatch.formats.masking import masked
from skybatch.formats.stores.base import Composer, ObjectInfo, Store
from skybatch.formats.tokens import Token, token_of


class Conflict(Exception):
    """Something that is not this job's stands at an output's place; it was left untouched."""


def standing(writer: OutputWriter) -> Token | None:
    """What stands where an output will be committed, so that it can be replaced on that condition; None for nothing."""
    path = writer.commit_path()
    if storage.is_local(path):
        return token_of(storage.local_path(path))
    found = _found(stores.of(path), path)
    return {"version": found.version} if found else None


def is_folder(writer: OutputWriter) -> bool:
    """Whether an output is a folder with a manifest."""
    return writer.commit_path() != writer.path


class Place(ABC):
    """Where output `idx` of a job is committed."""

    def __init__(self, writer: OutputWriter, spec: JobSpec, idx: int, earlier: Token | None = None) -> None:
        """`earlier` is the token of this job's earlier publication, which may be replaced."""
        self.writer, self.job_id, self.replaces = writer, spec.id, spec.replaces[idx]
        self.overwrite, self.earlier = spec.overwrite, earlier
        self.path = writer.commit_path()
        self.folder = self.path.rpartition("/")[0]

    @abstractmethod
    def token_for(self, staged: str) -> Token:
        """How the staged local file will be recognised once it is published."""

    @abstractmethod
    def stands(self, token: Token) -> bool:
        """Whether what this token was given for is published."""

    def publish(self, staged: str) -> None:
        """Put the staged local file in its place, the files that were built with it before it. Raises Conflict.

        A manifest that is to be replaced goes first: while its files are replaced it says what is not so.
        """
        if os.path.isdir(members.folder(staged)) or (self.replaces and is_folder(self.writer)):
            self.withdraw(lambda manifest: members.note_replaced(staged, manifest))
            self._put_members(staged)
            reach("half-published")
        self._put(staged)

    def sweep(self, staged: str) -> None:
        """Once it is published: delete what only the replaced manifest listed, and what is staged for this one."""
        self._delete(f"{self.folder}/{name}" for name in members.replaced(staged))
        members.remove(staged)

    @abstractmethod
    def withdraw(self, on_found: Callable[[bytes], None] = lambda content: None) -> None:
        """Delete the file that may be replaced, if it still stands there; `on_found` is told before what is in it."""

    @abstractmethod
    def _put_members(self, staged: str) -> None: ...

    @abstractmethod
    def _put(self, staged: str) -> None: ...

    @abstractmethod
    def _delete(self, paths: Iterable[str]) -> None: ...

    def finish(self, composer: Composer) -> None:
        """Have a composer do its atomic step. Raises Conflict."""
        raise NotImplementedError("only objects are composed")

    def is_staged(self, staged: str, token: Token) -> bool:
        """Whether the staged local file is still the one that the token was given for."""
        found = token_of(staged)
        return found is not None and found.items() <= token.items()

    def _conflict(self, path: str | None = None) -> Conflict:
        change = "was changed by someone else" if self.replaces and path is None else "has come into existence"
        return Conflict(f"{masked(path or self.path)} {change} meanwhile; it was left as it is")


class LocalPlace(Place):
    """A local file: linked to its name, or renamed to it where something may be replaced."""

    def __init__(self, writer: OutputWriter, spec: JobSpec, idx: int, earlier: Token | None = None) -> None:
        super().__init__(writer, spec, idx, earlier)
        self._final = storage.local_path(self.path)
        self.folder = os.path.dirname(self._final)

    def token_for(self, staged: str) -> Token:
        """By inode, size and modification time, which a link and a rename keep."""
        token = token_of(staged)
        assert token is not None
        return token

    def stands(self, token: Token) -> bool:
        """Whether that very file has its name."""
        return token_of(self._final) == token

    def withdraw(self, on_found: Callable[[bytes], None] = lambda content: None) -> None:
        """Delete the file that may be replaced, if it still stands there; `on_found` is told before what is in it."""
        there = token_of(self._final)
        if there is not None and there in (self.replaces, self.earlier):
            manifest = storage.read_bytes(self._final)
            if there == self.earlier:
                self._refuse_changed(members.listed(manifest), there)
            on_found(manifest)
            disk.unlink("manifest", self._final)
            storage.sync_folder(self.folder)

    def _refuse_changed(self, names: Iterable[str], manifest: Token) -> None:
        """Raise Conflict for a file of the earlier publication that was written to since."""
        for name in names:
            found = token_of(f"{self.folder}/{name}")
            if found is not None and found["mtime_ns"] > manifest["mtime_ns"]:
                raise self._conflict(f"{self.folder}/{name}")

    def _put_members(self, staged: str) -> None:
        storage.make_folders(self.folder)
        ours = tokens.noted(self.writer.path, self.job_id)
        if self.earlier:
            ours += filter(None, (token_of(f"{self.folder}/{name}") for name in members.noted_replaced(staged)))
        try:
            members.put(staged, self.folder, ours=ours, overwrite=self.overwrite)
        except FileExistsError as error:
            raise self._conflict(error.filename) from None

    def _put(self, staged: str) -> None:
        storage.make_folders(self.folder)
        there = token_of(self._final)
        ours = [self.replaces, self.earlier, *tokens.noted(self.writer.path, self.job_id)]
        if there is not None and there in ours:
            disk.rename("output", staged, self._final)
        else:
            try:
                disk.link("output", staged, self._final)
            except FileExistsError:
                if not tokens.is_same(staged, self._final):
                    raise self._conflict() from None
        storage.sync_folder(self.folder)

    def _delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            storage.unlink_if_there(path)


class StorePlace(Place):
    """An object: put or composed on the condition that what was there at the start is there still."""

    def __init__(self, writer: OutputWriter, spec: JobSpec, idx: int, earlier: Token | None = None) -> None:
        super().__init__(writer, spec, idx, earlier)
        self.store = stores.of(self.path)
        self.owner = f"{earlier['owner']}+" if earlier else f"{spec.id}.{idx}"

    def token_for(self, staged: str) -> Token:
        """By the owner; and how the staged file is recognised until then."""
        return {"owner": self.owner, **(token_of(staged) or {})}

    def stands(self, token: Token) -> bool:
        """Whether an object of this owner is there."""
        found = _found(self.store, self.path)
        return found is not None and found.owner == token["owner"]

    def withdraw(self, on_found: Callable[[bytes], None] = lambda content: None) -> None:
        """Delete the object that may be replaced, if it still stands there; `on_found` is told before what is in it."""
        found = _found(self.store, self.path)
        if found is None:
            return
        is_replaced = self.replaces is not None and found.version == self.replaces["version"]
        if is_replaced or (self.earlier is not None and found.owner == self.earlier["owner"]):
            on_found(self.store.read(self.path))
            self.store.delete([self.path])

    def _put_members(self, staged: str) -> None:
        ours = [by_hand.owner(self.job_id), *([self.earlier["owner"]] if self.earlier else [])]
        try:
            members.put_in_store(staged, self.folder, self.store, owner=self.owner, ours=ours, overwrite=self.overwrite)
        except FileExistsError as error:
            raise self._conflict(error.filename) from None

    def _put(self, staged: str) -> None:
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

    def _delete(self, paths: Iterable[str]) -> None:
        self.store.delete(paths)

    def _replaces(self) -> str | None:
        """The version that may be replaced: what was there at the start, put there by hand, or published earlier."""
        found = _found(self.store, self.path)
        if found is None:
            return None
        if found.owner == by_hand.owner(self.job_id) or (self.earlier and found.owner == self.earlier["owner"]):
            return found.version
        return self.replaces["version"] if self.replaces else None


def place_of(writer: OutputWriter, spec: JobSpec, idx: int, earlier: Token | None = None) -> Place:
    """Where output `idx` is committed; `earlier` is the token of what this job published there before."""
    return (LocalPlace if storage.is_local(writer.commit_path()) else StorePlace)(writer, spec, idx, earlier)


def _found(store: Store, path: str) -> ObjectInfo | None:
    try:
        return store.info(path)
    except FileNotFoundError:
        return None

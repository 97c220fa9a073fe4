"""What a script's definitions need of the script: the smallest text that defines them again elsewhere.

Python's own compiler says which names a statement binds and uses, so scoping rules (comprehensions, walrus
targets, class bodies, nested functions, `global`) are never second-guessed here.

Kept are the imports, definitions and assignments that the asked names need, directly or through each
other. Never kept are bare expressions and the `if __name__ == "__main__":` block. A compound statement
(`try`, `if`, `with`, `for`) that binds a needed name is kept whole. Kept lines stay on their line numbers, so
tracebacks point into the user's own file.
"""

from __future__ import annotations

import ast
import builtins
import dis
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import decode_source
from pathlib import Path
from types import CodeType

from skybatch.errors import MapperError, nearest

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_IMPORTERS = ("import_module", "__import__")
_ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign)
_NEVER = (ast.Expr, ast.Delete, ast.Assert, ast.Raise)
_NAMESPACE_TRICKS = {"globals", "vars", "locals", "exec", "eval", "setattr", "__builtins__"}
_MODULE_NAMES = {"__name__", "__file__", "__doc__", "__package__", "__spec__", "__loader__", "__path__"}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The part of a source file that some of its names need."""

    text: str  # Python source; what was dropped is blank
    imports: frozenset[str]  # top-level names of the modules it imports, anywhere in it
    notes: tuple[str, ...]  # statements left out that may have mattered
    missing: frozenset[str]  # needed names that the `__main__` block binds, if perhaps not it alone


@dataclass(frozen=True, kw_only=True)
class _Statement:
    """One top-level statement and what the compiler says of it."""

    node: ast.stmt
    binds: frozenset[str]  # names bound when it runs
    uses: frozenset[str]  # names of the module looked up when it runs, or when what it defines runs
    is_main_guard: bool

    @property
    def changes(self) -> frozenset[str]:
        """Names whose value a subscript or attribute assignment changes in place."""
        if not isinstance(self.node, _ASSIGNMENTS):
            return frozenset()
        targets = self.node.targets if isinstance(self.node, ast.Assign) else [self.node.target]
        return frozenset(_root_name(target) for target in targets if not isinstance(target, ast.Name)) - {""}


class SourceFile:
    """A parsed source file. Raises MapperError, naming the file, when it cannot be read or parsed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.source = decode_source(path.read_bytes())
            self.tree = ast.parse(self.source, str(path))
        except (OSError, SyntaxError, ValueError) as error:
            raise MapperError(f"{path}: cannot be read as Python: {error}") from error

    @cached_property
    def statements(self) -> list[_Statement]:
        """The top-level statements in order. Raises MapperError, naming the file, when it cannot be compiled."""
        try:
            compile(self.tree, str(self.path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise MapperError(f"{self.path}: cannot be read as Python: {error}") from error
        return [self._statement(node) for node in self.tree.body]

    def _statement(self, node: ast.stmt) -> _Statement:
        code = _compile(node, str(self.path))
        top = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_NAME", "STORE_GLOBAL")}
        uses = {name for inner in _codes(code) for name, _ in _looked_up(inner)}
        return _Statement(
            node=node, binds=frozenset(top), uses=frozenset(uses), is_main_guard=_is_main_guard(node)
        )

    def defines(self, name: str) -> bool:
        """Whether a top-level `def` or `class` binds `name`."""
        return any(isinstance(node, _DEFINITIONS) and node.name == name for node in self.tree.body)

    def binds(self, name: str) -> bool:
        """Whether a statement that can travel binds `name`."""
        return any(name in statement.binds for statement in self.statements if _can_travel(statement))

    @property
    def imports(self) -> frozenset[str]:
        """Top-level names of all modules that the file imports absolutely, anywhere in it."""
        calls = any(name in self.source for name in _IMPORTERS)
        return frozenset(_imported_roots(self.tree, "", calls=calls))

    def slice(self, names: Iterable[str], *, package: str = "") -> Slice:
        """What `names` need; relative imports are rewritten as absolute ones of `package`."""
        kept, needed = self._closure(set(names))
        bound = {name for statement in kept for name in statement.binds}
        roots = {root for statement in kept for root in _imported_roots(statement.node, package)}
        return Slice(
            text=self._text(kept, package),
            imports=frozenset(roots),
            notes=tuple(self._left_out(kept, needed)),
            missing=frozenset(needed & self._set_in_guard(bound)),
        )

    def _set_in_guard(self, bound: set[str]) -> set[str]:
        # Importing once more in the block what is imported above changes nothing.
        guards = [statement for statement in self.statements if statement.is_main_guard]
        return {
            name
            for statement in guards
            for name in statement.binds
            if name not in bound or name not in _imported_names(statement.node)
        }

    def _closure(self, needed: set[str]) -> tuple[list[_Statement], set[str]]:
        kept: dict[int, _Statement] = {}
        grew = True
        while grew:
            grew = False
            own = {name for s in kept.values() if not isinstance(s.node, _IMPORTS) for name in s.binds}
            for position, statement in enumerate(self.statements):
                if position not in kept and self._wanted(statement, needed, own):
                    kept[position] = statement
                    needed |= statement.uses
                    grew = True
        return [kept[position] for position in sorted(kept)], needed

    @staticmethod
    def _wanted(statement: _Statement, needed: set[str], own: set[str]) -> bool:
        if isinstance(statement.node, ast.ImportFrom):
            always = statement.node.module == "__future__" or statement.node.names[0].name == "*"
            if always:
                return True
        # What an import brought is everybody's: the script's changes to it stay with the script.
        return _can_travel(statement) and bool(statement.binds & needed or statement.changes & own)

    def _text(self, kept: list[_Statement], package: str) -> str:
        source_lines = self.source.split("\n")
        lines = [""] * len(source_lines)
        for statement in kept:
            node = statement.node
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            assert node.end_lineno is not None and node.end_col_offset is not None
            for number in range(first, node.end_lineno + 1):
                line = source_lines[number - 1].encode()
                end = node.end_col_offset if number == node.end_lineno else len(line)
                start = node.col_offset if number == node.lineno == first else 0
                before = lines[number - 1]
                lines[number - 1] = (before + "; " if before else "") + line[start:end].decode()
            if package:
                _make_absolute(lines, node, package)
        return "\n".join(lines).rstrip() + "\n"

    def _left_out(self, kept: list[_Statement], needed: set[str]) -> Iterator[str]:
        variables = {n for s in kept if isinstance(s.node, _ASSIGNMENTS) for n in s.binds}
        stays = [s for s in self.statements if s not in kept and not s.is_main_guard]
        for statement in stays:
            if isinstance(statement.node, _DEFINITIONS + _IMPORTS):
                continue
            set_by_call = {name for used in statement.uses for name in self._set_globally.get(used, ())}
            for name in sorted(_touched(statement.node) & variables | set_by_call & needed):
                yield (
                    f"{self.path}:{statement.node.lineno}: this statement may change {name!r};"
                    " it does not run in workers"
                )

    def check_names(self, name: str, live: Mapping[str, object]) -> None:
        """Raise MapperError when what defines `name` uses a name that nothing at all could bind.

        `live` is the running module's namespace. In doubt (star imports, `globals()`, a handler for
        NameError) the question is left to run time.
        """
        if self._doubtful_names:
            return
        known = self._assigned | set(dir(builtins)) | _MODULE_NAMES | set(live)
        for statement in self.statements:
            if name in statement.binds and isinstance(statement.node, _DEFINITIONS):
                self._check_statement(statement, known)

    def _check_statement(self, statement: _Statement, known: Collection[str]) -> None:
        for code in _codes(_compile(statement.node, str(self.path), deferred_annotations=True)):
            looked_up = list(_looked_up(code, optimised_only=True))
            if any(used == "NameError" for used, _ in looked_up):
                continue
            for used, line in looked_up:
                if used not in known:
                    raise MapperError(
                        f"{self.path}:{line}: name {used!r} is not defined{nearest(used, known)}"
                    )

    @cached_property
    def _assigned(self) -> set[str]:
        whole = compile(self.tree, str(self.path), "exec", dont_inherit=True)
        stores = ("STORE_NAME", "STORE_GLOBAL")
        return {i.argval for code in _codes(whole) for i in dis.get_instructions(code) if i.opname in stores}

    @cached_property
    def _set_globally(self) -> dict[str, set[str]]:
        """What each top-level function assigns to names of the module when it is called."""
        return {
            name: {
                i.argval
                for code in _codes(_compile(statement.node, str(self.path)))
                for i in dis.get_instructions(code)
                if i.opname == "STORE_GLOBAL"
            }
            for statement in self.statements
            if isinstance(statement.node, _DEFINITIONS)
            for name in statement.binds
        }

    @property
    def _doubtful_names(self) -> bool:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                return True
            if isinstance(node, ast.Name) and node.id in _NAMESPACE_TRICKS:
                return True
        return False


def _compile(node: ast.stmt, filename: str, *, deferred_annotations: bool = False) -> CodeType:
    # Annotations count as uses even where `from __future__ import annotations` defers them: dataclasses and
    # pydantic look their names up in the module later.
    import __future__

    flags = __future__.annotations.compiler_flag if deferred_annotations else 0
    module = ast.Module([node], [])
    code: CodeType = compile(module, filename, "exec", flags=flags, dont_inherit=True)
    return code


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _looked_up(code: CodeType, *, optimised_only: bool = False) -> Iterator[tuple[str, int | None]]:
    """Names looked up in the module, with their lines; `optimised_only` leaves class bodies out."""
    for instruction in dis.get_instructions(code):
        is_global = "GLOBAL" in instruction.opname
        if is_global or (not optimised_only and instruction.opname == "LOAD_NAME"):
            line = instruction.positions.lineno if instruction.positions else None
            yield instruction.argval, line


def _can_travel(statement: _Statement) -> bool:
    return not statement.is_main_guard and not isinstance(statement.node, _NEVER)


def _is_main_guard(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If):
        return False
    for part in ast.walk(node.test):
        if isinstance(part, ast.Compare) and isinstance(part.ops[0], ast.Eq):
            sides = {ast.unparse(side) for side in (part.left, *part.comparators)}
            if sides == {"__name__", "'__main__'"}:
                return True
    return False


def _root_name(node: ast.AST) -> str:
    """`a` of `a.b[c].d`, or an empty string."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _touched(node: ast.stmt) -> set[str]:
    """Names whose value the statement may change in place."""
    touched = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            touched.add(_root_name(part.func))
        elif isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
            touched.add(_root_name(part))
    return touched


def _imported_names(tree: ast.AST) -> set[str]:
    aliases = [alias for node in ast.walk(tree) if isinstance(node, _IMPORTS) for alias in node.names]
    return {alias.asname or alias.name.partition(".")[0] for alias in aliases}


def _imported_roots(tree: ast.AST, package: str, *, calls: bool = True) -> Iterator[str]:
    """Of imports anywhere in `tree`; without `calls`, those by a function are not looked for, which is much faster."""
    for node in ast.walk(tree) if calls else _statements_in(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = package if node.level else node.module or ""
            if name:
                yield name.partition(".")[0]
        elif isinstance(node, ast.Call) and node.args:
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            literal = getattr(node.args[0], "value", None)
            imports = function in _IMPORTERS
            if imports and isinstance(literal, str) and not literal.startswith("."):
                yield literal.partition(".")[0]


def _statements_in(tree: ast.AST) -> Iterator[ast.AST]:
    """Every statement in `tree`, nested ones included."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for field in _BLOCKS:
            waiting += getattr(node, field, ())


def _make_absolute(lines: list[str], tree: ast.AST, package: str) -> None:
    """Rewrite relative imports: the stored copy of a script is in no package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1])
            target = f"{base}.{node.module}" if node.module else base
            pattern = r"\bfrom\s*\.[.\s]*" + re.escape(node.module or "") + r"\s*\bimport\b"
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = re.sub(pattern, f"from {target} import", line, count=1)

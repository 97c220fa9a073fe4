"""What a script's part contains: enough to define the names again, and nothing that should not run."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from skybatch.engine.code_slice import Slice, SourceFile
from skybatch.errors import MapperError


@pytest.fixture
def source_file(tmp_path: Path) -> Any:
    def write(text: str) -> SourceFile:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        return SourceFile(path)

    return write


def run(part: Slice) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "elsewhere"}
    exec(compile(part.text, "script.py", "exec", dont_inherit=True), namespace)
    return namespace


def test_bare_expressions_and_the_main_block_stay_behind(source_file: Any) -> None:
    part = source_file("""\
        import os
        print("side effect")
        assert os is None
        def mapper(batch): return [os.sep for _ in batch]
        ds.map(mapper)
        if __name__ == "__main__":
            raise SystemExit("must not run")
        """).slice(["mapper"])
    assert "side effect" not in part.text and "SystemExit" not in part.text and "ds" not in part.text
    assert len(run(part)["mapper"]([1, 2])) == 2


def test_only_what_is_needed_travels_directly_or_through_others(source_file: Any) -> None:
    part = source_file("""\
        import json, heavy_unused_module_of_json_line
        import unused
        SCALE = 3
        FACTOR = SCALE * 2
        def helper(x): return x * FACTOR
        def unrelated(): return unused
        def mapper(batch): return [helper(x) for x in batch]
        """).slice(["mapper"])
    assert "unused" not in part.text and "json" not in part.text
    assert run(part)["mapper"]([1]) == [6]


def test_lines_keep_their_numbers(source_file: Any) -> None:
    part = source_file("""\
        import sys
        print(1)

        def mapper(batch):
            raise ValueError
        """).slice(["mapper"])
    assert part.text.split("\n")[4].strip() == "raise ValueError"


def test_statements_that_share_a_line_are_separated(source_file: Any) -> None:
    part = source_file("""\
        A = "é"; print("no"); B = 2
        def mapper(batch): return [A, B]
        """).slice(["mapper"])
    assert run(part)["mapper"]([]) == ["é", 2] and "print" not in part.text


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("def f(b): return [y for x in b if (y := x + ONE)]", [2, 3]),
        ("def f(b): (p, q), *r = (b, ONE), 3; return [v + q for v in p]", [2, 3]),
        ("def f(b, one=ONE): return [x + one for x in b]", [2, 3]),
        ("def f(b: 'Undefined') -> list[int]: return [x + ONE for x in b]", [2, 3]),
        ("f = lambda b: [x + ONE for x in b]", [2, 3]),
        ("class Base:\n def add(self, x): return x + ONE\nclass f(Base):\n pass\nf = f()", None),
        ("def f(b):\n global count\n count += ONE\n return [count]\ncount = 1", [2]),
        ("def f(b): return [1]\ndef f(b): return [ONE, *b]", [1, 1, 2]),
        ("if True:\n def f(b): return [x + ONE for x in b]", [2, 3]),
        ("try:\n import nowhere_to_be_found as n\nexcept ImportError:\n n = ONE\ndef f(b): return [n]", [1]),
        ("for k in (5, 6):\n last = k\ndef f(b): return [last + ONE]", [7]),
        ("T = []\nT += [4]\ndef f(b): return T + [ONE]", [4, 1]),
        ("T = {}\nT['a'] = ONE\ndef f(b): return [T['a']]", [1]),
        ("x = ONE\nclass C:\n x = x\ndef f(b): return [C.x]", [1]),
        ("def w(g): return lambda b: g(b)\ndef v(g): return w(g)\n@v\n@w\ndef f(b): return [ONE]", [1]),
        ("def f(b):\n match b:\n  case [x, *_]: return [x + ONE]", [2]),
        ("def f(b):\n def inner(): return ONE\n return [inner()]", [1]),
        ("from os.path import *\ndef f(b): return [basename('a/b'), ONE]", ["b", 1]),
    ],
)
def test_forms_of_definitions(source_file: Any, definition: str, expected: list[Any] | None) -> None:
    part = source_file(f"ONE = 1\ndel nothing_that_exists\n{definition}\n")
    namespace = run(part.slice(["f"]))
    result = namespace["f"].add(0) if expected is None else namespace["f"]([1, 2])
    assert result == (1 if expected is None else expected)


def test_annotations_count_even_when_deferred(source_file: Any) -> None:
    # Without ClassVar in the module, dataclasses would take `shared` for a field.
    part = source_file("""\
        from __future__ import annotations
        from dataclasses import dataclass, fields
        from typing import ClassVar
        @dataclass
        class Mapper:
            shared: ClassVar[int] = 1
            size: int = 2
        """).slice(["Mapper"])
    assert "ClassVar" in part.text.split("class Mapper")[0]


def test_imports_inside_functions_are_told(source_file: Any) -> None:
    part = source_file("""\
        import importlib
        import unrelated
        def mapper(batch):
            import lazy.inner
            from other import thing
            importlib.import_module("by_name.sub")
        """).slice(["mapper"])
    assert part.imports == {"importlib", "lazy", "other", "by_name"}


BLOCKS = """\
try:
    import a.sub
except ImportError:
    import b
else:
    from c import x
finally:
    import d
if x:
    import e
elif y:
    import f
for each in x:
    while each:
        with each:
            import g
    else:
        import h
class Mapper:
    import i
    async def run(self):
        async with self:
            match self:
                case 1:
                    import j
"""


def test_every_import_of_a_module_that_travels_whole_is_found(source_file: Any) -> None:
    assert source_file(BLOCKS).imports == {*"abcdefghij"}
    by_name = 'import importlib\nfound = [importlib.import_module("k.sub"), __import__("l")]\n'
    assert source_file(by_name).imports == {"importlib", "k", "l"}


def test_relative_imports_become_absolute(source_file: Any) -> None:
    part = source_file("""\
        from . import near
        from ..far import thing
        def mapper(batch): return near, thing
        """).slice(["mapper"], package="top.middle")
    assert "from top.middle import near" in part.text and "from top.far import thing" in part.text
    assert part.imports == {"top"}


def test_a_change_that_does_not_travel_is_noted(source_file: Any) -> None:
    part = source_file("""\
        LABELS = []
        LABELS.append(1)
        for n in range(3):
            LABELS[n] = n
        def mapper(batch): return LABELS
        """).slice(["mapper"])
    assert [note.split(":")[1] for note in part.notes] == ["2", "3"]
    assert all("'LABELS'" in note for note in part.notes)


def test_a_call_that_sets_a_needed_name_is_noted(source_file: Any) -> None:
    part = source_file("""\
        model = None
        def setup():
            global model
            model = len
        setup()
        def mapper(batch): return [model(x) for x in batch]
        """).slice(["mapper"])
    assert [note.split(":")[1] for note in part.notes] == ["5"] and "'model'" in part.notes[0]


def test_what_imports_brought_is_not_changed_in_workers(source_file: Any) -> None:
    part = source_file("""\
        import os
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"
        def mapper(batch): return [os.sep]
        """).slice(["mapper"])
    assert "environ" not in part.text


def test_names_that_the_main_block_sets_are_told(source_file: Any) -> None:
    part = source_file("""\
        model = None
        def mapper(batch): return [model(x) for x in batch]
        if "__main__" == __name__:
            model = len
        """).slice(["mapper"])
    assert part.missing == {"model"}


def test_an_import_repeated_in_the_main_block_is_not_missing(source_file: Any) -> None:
    part = source_file("""\
        import os
        def mapper(batch): return [os.sep]
        if __name__ == "__main__":
            import os
        """).slice(["mapper"])
    assert not part.missing


def test_a_typo_is_found_with_its_line_and_the_nearest_name(source_file: Any) -> None:
    source = source_file("""\
        TOKENIZER = 1
        def mapper(batch):
            return [TOKENISER for _ in batch]
        """)
    with pytest.raises(MapperError, match=r"script\.py:3: name 'TOKENISER'.*did you mean 'TOKENIZER'"):
        source.check_names("mapper", {})


@pytest.mark.parametrize(
    "text",
    [
        "from os import *\ndef f(b): return basename",
        "globals()['x'] = 1\ndef f(b): return x",
        "def g():\n global x\n x = 1\ndef f(b): return x",
        "def f(b):\n try: return unicode\n except NameError: return str",
        "def f(b):\n x: Undefined = 1\n return len(b)",
        "from __future__ import annotations\ndef f(b: Undefined): return __file__",
        "class f:\n def g(self): return __class__, self.__mangled",
        "def f(b): return injected",
    ],
)
def test_in_doubt_a_name_is_left_to_run_time(source_file: Any, text: str) -> None:
    source_file(text + "\n").check_names("f", {"injected": 1})


def test_a_file_that_does_not_parse_is_named(source_file: Any) -> None:
    with pytest.raises(MapperError, match=r"script\.py: cannot be read as Python"):
        source_file("def broken(:\n")

"""What can be broken in a module, one place at a time: operators, conditions, numbers, enum members, statements, rules.

Docstrings, annotations, decorators and the texts of errors are left alone: no test should hold their wording. So is
what means the same when it is broken: a ``return`` or ``continue`` after which nothing comes anyway, and a None that is
returned for a False, which no condition tells apart (a True for it is tried).
"""

import ast
import copy
import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

COMPARISONS: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
UNTOUCHED: Final = ("annotation", "returns", "decorator_list", "bases", "type_comment", "format_spec")
CALLS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Place:
    """A node of a tree, and where it hangs."""

    where: str
    """The function or class that it is in."""
    parent: ast.AST
    name: str
    index: int | None
    node: ast.AST

    def put(self, node: ast.AST) -> None:
        """Hang another node there."""
        if self.index is None:
            setattr(self.parent, self.name, node)
        else:
            getattr(self.parent, self.name)[self.index] = node


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one thing in it broken."""

    module: str
    """The file, from the root of the repository."""
    text: str
    """What is broken, as ``function: before -> after``; with ``#2`` for the second of the same kind."""
    tree: ast.Module
    place: Place
    broken: ast.AST

    def source(self) -> str:
        """Return the broken module, without comments, as the parser prints it."""
        self.place.put(self.broken)
        try:
            return ast.unparse(ast.fix_missing_locations(self.tree))
        finally:
            self.place.put(self.place.node)

    def diff(self) -> str:
        """Return what differs from the module as it is."""
        before, after = ast.unparse(self.tree).splitlines(), self.source().splitlines()
        return "\n".join(difflib.unified_diff(before, after, self.module, "mutant", n=2, lineterm=""))


def enums() -> dict[str, list[str]]:
    """Return the members of every enum of the core."""
    return {
        node.name: [name for statement in node.body for name in _member(statement)]
        for path in sorted((ROOT / "rotator/core").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in node.bases)
    }


def _member(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return [name]
        case _:
            return []


def mutants(module: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its text; the same ones each time."""
    tree = ast.parse((ROOT / module).read_text())
    members = enums()
    needless = {id(statement) for statement in _needless(tree)}
    told: Counter[str] = Counter()
    found: list[Mutant] = []
    for place in list(_places(tree, "module")):
        if id(place.node) in needless:
            continue
        for broken in _variants(place, members):
            text = f"{place.where}: {_brief(place.node)} -> {_brief(broken)}"
            told[text] += 1
            found.append(Mutant(module, text if told[text] == 1 else f"{text} #{told[text]}", tree, place, broken))
    return found


def _brief(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 160 else text[:157] + "..."


def _places(node: ast.AST, where: str) -> Iterator[Place]:
    """Walk through what may be broken."""
    for name, field in ast.iter_fields(node):
        if name in UNTOUCHED:
            continue
        for index, child in enumerate(field) if isinstance(field, list) else [(None, field)]:
            if not isinstance(child, ast.AST) or _is_text(child) or _is_type(child):
                continue
            inner = where
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = child.name if where == "module" else f"{where}.{child.name}"
            yield Place(inner, node, name, index, child)
            # The words of an error stay; whether it is raised does not.
            if not isinstance(child, ast.Raise | ast.JoinedStr):
                yield from _places(child, inner)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_type(node: ast.AST) -> bool:
    """Tell an alias of a type or an import, which no run notices."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.Call):
        return ast.unparse(node.value).startswith(("Callable[", "NewType(", "TypeVar("))
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
        return isinstance(node.value.op, ast.BitOr)
    return isinstance(node, ast.Import | ast.ImportFrom)


def _needless(tree: ast.Module) -> Iterator[ast.stmt]:
    """Find each ``return`` and ``continue`` after which nothing comes anyway."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(body=body):
                yield from (last for last in _last(body) if ast.unparse(last) in {"return", "return None"})
            case ast.For(body=body) | ast.While(body=body):
                yield from (last for last in _last(body) if isinstance(last, ast.Continue))


def _last(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Find the statements that can be the last one to run of a body."""
    match body:
        case [*_, ast.If(body=then, orelse=otherwise)]:
            yield from (*_last(then), *_last(otherwise))
        case [*_, ast.Try(body=tried, handlers=handlers, orelse=otherwise, finalbody=[])]:
            yield from _last(otherwise or tried)
            for handler in handlers:
                yield from _last(handler.body)
        case [*_, ast.With(body=inner)]:
            yield from _last(inner)
        case [*_, ast.Match(cases=cases)]:
            for each in cases:
                yield from _last(each.body)
        case [*_, last]:
            yield last


def _variants(place: Place, members: dict[str, list[str]]) -> Iterator[ast.AST]:
    node = place.node
    yield from _expressions(node)
    yield from _leaves(node, members)
    yield from _statements(node)
    yield from _collections(node, place.where)


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for index, operator in enumerate(ops):
                for other in COMPARISONS[type(operator)]:
                    yield ast.Compare(node.left, [*ops[:index], other(), *ops[index + 1 :]], node.comparators)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            for index in range(len(values)):
                rest = values[:index] + values[index + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(op=operator) if type(operator) in ARITHMETIC:
            yield ast.BinOp(node.left, ARITHMETIC[type(operator)](), node.right)
        case ast.comprehension(ifs=[_, *_]):
            yield ast.comprehension(node.target, node.iter, [], node.is_async)
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            yield ast.Call(ast.Name(CALLS[name]), node.args, node.keywords)


def _leaves(node: ast.AST, members: dict[str, list[str]]) -> Iterator[ast.AST]:
    match node:
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Constant(value=str() as value) if " " not in value:  # else it is words for people
            yield ast.Constant(value + "X")
        case ast.Constant(value=bytes() as value):
            yield ast.Constant(value + b"X")
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if attribute in members.get(name, ()):
            others = members[name]
            yield ast.Attribute(node.value, others[(others.index(attribute) + 1) % len(others)])


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.IfExp(test=test) if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            yield ast.IfExp(ast.UnaryOp(ast.Not(), test), node.body, node.orelse)
        case ast.If(test=test) if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            yield ast.If(ast.UnaryOp(ast.Not(), test), node.body, node.orelse)
        case ast.Return(value=ast.Constant(value=False)):
            pass
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield ast.Return(ast.Constant(None))
        case ast.Return():
            yield ast.Pass()
        case ast.Expr(value=ast.Call(func=ast.Name(id="assert_never"))):
            pass  # mypy proves that nothing comes there
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Continue() | ast.Break():
            yield ast.Pass()


def _collections(node: ast.AST, where: str) -> Iterator[ast.AST]:
    if not isinstance(node, ast.Tuple | ast.List | ast.Set) or isinstance(getattr(node, "ctx", None), ast.Store):
        return
    elements = node.elts
    for index in range(len(elements) if len(elements) > 1 else 0):
        dropped = copy.copy(node)
        dropped.elts = elements[:index] + elements[index + 1 :]
        yield dropped
    # The order counts in a table of rules, and means nothing in a set or among the members of a document.
    ordered = not isinstance(node, ast.Set) and not all(isinstance(element, ast.Constant) for element in elements)
    for index in range(len(elements) - 1 if where == "module" and ordered else 0):
        swapped = copy.copy(node)
        swapped.elts = [*elements[:index], elements[index + 1], elements[index], *elements[index + 2 :]]
        yield swapped

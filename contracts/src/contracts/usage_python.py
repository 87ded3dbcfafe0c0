"""Which messages a service's Python builds and handles, by its syntax tree."""

import ast
from pathlib import Path
from typing import NamedTuple

from contracts.definitions import Contracts
from contracts.usage_sql import read_inserts

MODULE = "contracts.messages"
KAFKA_LIBRARIES = ("aiokafka", "confluent_kafka", "faststream", "kafka")
# A file without any of them publishes and consumes nothing.
WORDS = [word.encode() for word in ("contracts", "outbox", *KAFKA_LIBRARIES)]

Version = tuple[str, int]


class PythonUsage(NamedTuple):
    """`published` has the place of each message that is built, as file:line; `handled` None: unreadable."""

    published: list[tuple[Version, str]]
    handled: set[Version] | None
    unreadable: list[str]


def read_python(folder: Path, service: str, contracts: Contracts) -> PythonUsage:
    """`folder` is the service's; its tests do not count."""
    structs = {each.struct: version for version, each in contracts.messages.items()}
    own = {
        version
        for version, each in contracts.messages.items()
        if contracts.topics[each.topic].owner == service
    }
    published: list[tuple[Version, str]] = []
    unreadable: list[str] = []
    handled: set[Version] | None = set()
    for path in sorted((folder / "src").rglob("*.py")):
        place = f"services/{path.relative_to(folder.parent).as_posix()}"
        text = path.read_bytes()
        if path.name != "consumers.py" and not any(word in text for word in WORDS):
            continue
        tree = ast.parse(text, filename=place)
        module = _Module(place, tree, structs, own, contracts)
        module.visit(tree)
        if path == folder / "src" / service / "consumers.py":
            handled = module.handlers(tree)
        published.extend(module.published)
        unreadable.extend(module.unreadable)
    return PythonUsage(published, handled, unreadable)


class _Module(ast.NodeVisitor):
    """Collects the messages that are built, or handed on to be built.

    The struct of a message of one's own counts wherever it is used as a value (`store(kind=EventCreated)`),
    that of another service only where it is called: a consumer may compare or decode it.
    """

    def __init__(
        self,
        place: str,
        tree: ast.Module,
        structs: dict[str, Version],
        own: set[Version],
        contracts: Contracts,
    ) -> None:
        self._place = place
        self._structs = structs
        self._own = own
        self._contracts = contracts
        self._names, self._modules = _imported(tree, structs)
        self.published: list[tuple[Version, str]] = []
        self.unreadable: list[str] = []

    def version_of(self, node: ast.AST) -> Version | None:
        """The message that an expression names."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute) and node.attr in self._structs:
            return self._structs[node.attr] if ast.unparse(node.value) in self._modules else None
        return None

    def handlers(self, tree: ast.Module) -> set[Version] | None:
        """The messages that `HANDLERS` names; None when it is no plain dict of them."""
        for statement in tree.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id="HANDLERS"), value=ast.Dict(keys=keys)):
                    pass
                case ast.Assign(targets=[ast.Name(id="HANDLERS")], value=ast.Dict(keys=keys)):
                    pass
                case _:
                    continue
            versions = [None if key is None else self.version_of(key) for key in keys]
            found = {each for each in versions if each is not None}
            if None in versions or self._is_changed_later(tree):
                break
            return found
        self.unreadable.append(
            f"{self._place}: the messages that are handled cannot be read. Write HANDLERS as one dict whose"
            " keys are"
            " structs of contracts.messages"
        )
        return None

    @staticmethod
    def _is_changed_later(tree: ast.Module) -> bool:
        return sum(isinstance(node, ast.Name) and node.id == "HANDLERS" for node in ast.walk(tree)) > 1

    def _publish(self, version: Version, node: ast.expr) -> None:
        self.published.append((version, f"{self._place}:{node.lineno}"))

    def visit(self, node: ast.AST) -> None:
        if (version := self.version_of(node)) is not None:
            if version in self._own and isinstance(node, ast.expr):
                self._publish(version, node)
            return
        super().visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        if called in ("isinstance", "issubclass", "cast"):
            self.visit(node.args[1 if called == "cast" else 0])  # the value; the other one is a type
            return
        version = self.version_of(node.func)
        if version is not None:
            self._publish(version, node)
        else:
            self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg != "type":  # decode(..., type=OrderPaid)
                self.visit(keyword.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self.version_of(node.value) is None:  # OrderPaid.TOPIC only reads
            self.visit(node.value)

    def visit_Dict(self, node: ast.Dict) -> None:
        for value in node.values:
            self.visit(value)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if not isinstance(node.op, ast.BitOr):  # A | B is a type
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for each in (node.left, *node.comparators):
            if self.version_of(each) is None and not isinstance(each, ast.Tuple):
                self.visit(each)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        for pattern in (*node.patterns, *node.kwd_patterns):
            self.visit(pattern)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)  # type[OrderPaid]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        """Its annotation publishes nothing."""

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for each in (*node.decorator_list, node.args, *node.body):
            self.visit(each)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and "outbox" in node.value:
            found = read_inserts(node.value, f"{self._place}:{node.lineno}", self._contracts)
            self.published.extend(found.published)
            self.unreadable.extend(found.unreadable)

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            self._refuse_kafka(each.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._refuse_kafka(node.module or "", node)

    def _refuse_kafka(self, module: str, node: ast.stmt) -> None:
        if module.split(".", maxsplit=1)[0] in KAFKA_LIBRARIES:
            self.unreadable.append(
                f"{self._place}:{node.lineno}: {module} is imported: what is sent or read with it is in no"
                " contract."
                " Publish through libs.messaging.outbox, consume through HANDLERS"
            )


def _imported(tree: ast.Module, structs: dict[str, Version]) -> tuple[dict[str, Version], set[str]]:
    """The names by which a module calls structs, and the one of `contracts.messages` itself."""
    names: dict[str, Version] = {}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == MODULE:
            names |= {
                each.asname or each.name: structs[each.name] for each in node.names if each.name in structs
            }
        elif isinstance(node, ast.ImportFrom) and node.module == "contracts":
            modules |= {each.asname or each.name for each in node.names if each.name == "messages"}
        elif isinstance(node, ast.Import):
            modules |= {each.asname or each.name for each in node.names if each.name == MODULE}
    return names, modules

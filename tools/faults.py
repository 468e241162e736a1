"""Small faults in sources, for tools/mutate.py: what may be changed in a text of Python, Cython or C, and to what.

Only code is changed: no string, comment, type hint or import, and in C no directive but `#define`. In Python `ast`
tells what is code; Cython and C are read as tokens.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

#: a token -> what may stand in its place, between spaces: so no sign, pointer or cast is taken for an operator
OPERATORS = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "//": ("*",),
    "%": ("*",),
    "+=": ("-=", "="),
    "-=": ("+=", "="),
    "*=": ("/=", "="),
    "|=": ("&=", "="),
    "<<": (">>",),
    ">>": ("<<",),
    "&&": ("||",),
    "||": ("&&",),
    "and": ("or",),
    "or": ("and",),
}
WORDS = {"True": "False", "False": "True", "break": "continue", "continue": "break"}
#: arguments that assert: no correct program depends on them
ASSERTS = ("strict", "frozen")
#: functions of the same arguments
CALLED = {"min": "max", "maximum": "minimum", "any": "all", "floor": "ceil", "zeros": "ones", "isfinite": "isnan"}
CALLED |= {new: old for old, new in CALLED.items()}

NAME = r"[^\W\d]\w*"
NUMBER = r"0[xX][\da-fA-F_]+[uUlL]*|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?[uUlLfFj]*"
OPERATOR = r"<<=|>>=|\*\*=|//=|[=!<>+*/%&|^@:-]=|->|&&|\|\||<<|>>|\*\*|//|\+\+|--|[^\w\s]"
TEXT = r"\b[rbfuRBFU]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?''')|"
SHORT = r"(?:\b[rbfuRBFU]{1,2})?(?:\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
DIRECTIVE = r"^[ \t]*\#[ \t]*(?!define)(?:\\\n|[^\n])*"
NO_CODE = {"python": TEXT.replace(r"\b", r"(?:\b", 1).replace("{0,2}", "{1,2})?", 1) + SHORT + r"|\#[^\n]*"}
NO_CODE["c"] = r"/\*.*?\*/|//[^\n]*|" + SHORT + "|" + DIRECTIVE
TOKENS = {
    language: re.compile(
        rf"(?P<skip>{skip})|(?P<number>{NUMBER})|(?P<name>{NAME})|(?P<operator>{OPERATOR})", re.S | re.M
    )
    for language, skip in NO_CODE.items()
}

#: whole statements on a line, which may be left out, and what then stands there; declarations do not fit
STATEMENTS = {
    ".pyx": (re.compile(r"^[ ]+((?:raise|return) .*|[\w.\[\]*, ]*[\w\]] [-+*/|&]?= .*|[\w.]+\(.*\))$", re.M), "pass"),
    ".h": (re.compile(r"^\s+(return .*;|[*\w.>\[\]-]+ (?:[-+*/|&^]|<<|>>)?= .*;|\w+\(.*\);)$", re.M), ";"),
}
CONDITION = {
    ".pyx": (re.compile(r"^ +(?:if|elif|while) (.+):$", re.M), "not ({})"),
    ".h": (re.compile(r"^\s+(?:if|while) \((.+)\)(?: \{)?$", re.M), "!({})"),
}
#: in Cython, what a function returns when it has raised
EXCEPT = re.compile(r"\bexcept\??[ ]*-?\d+")


@dataclass(frozen=True)
class Fault:
    """A change of `file`: the characters from `start` to `end` become `new`."""

    file: str
    line: int
    start: int
    end: int
    new: str
    above: str  # the line above
    before: str  # the line, or the first of several
    after: str

    def put(self, text: str) -> str:
        """The text with the fault in it."""
        return text[: self.start] + self.new + text[self.end :]

    @property
    def key(self) -> str:
        """What this fault is called."""
        return f"{self.file}:{self.line}: {self.before} -> {self.after}"


def faults(file: str, text: str) -> list[Fault]:
    """All faults that this file may get; some of them do not compile."""
    suffix = PurePath(file).suffix
    changes = {*in_tokens(text, "c" if suffix == ".h" else "python")}
    changes |= {*in_python(text)} if suffix == ".py" else {*in_lines(text, suffix.replace("pxd", "pyx"))}
    kept = no_code(text, suffix)
    found = []
    for start, end, new in sorted(changes):
        if text[start:end] != new and not any(begin < end and start < stop for begin, stop in kept):
            found.append(one(file, text, start, end, new))
    return found


def one(file: str, text: str, start: int, end: int, new: str) -> Fault:
    """A fault, and how its line looks before and after."""
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", start) % (len(text) + 1)
    after = text[begin:start] + new + (text[end:stop] if end <= stop else "")
    above = text[text.rfind("\n", 0, max(begin - 1, 0)) + 1 : begin]
    line = text.count("\n", 0, start) + 1
    return Fault(file, line, start, end, new, above.strip(), text[begin:stop].strip(), after.strip())


def is_python(text: str) -> bool:
    """Whether a text can be compiled."""
    try:
        compile(text, "fault", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


Change = tuple[int, int, str]


def in_tokens(text: str, language: str) -> Iterator[Change]:
    """Changes of one operator, word or number."""
    tokens = [m for m in TOKENS[language].finditer(text) if m.lastgroup != "skip"]
    loops = 0  # how many `for` wait for their `in`
    for k, token in enumerate(tokens):
        word, spaced = token[0], f"{text[token.start() - 1]}{text[token.end() : token.end() + 1]}".isspace()
        next_word = tokens[k + 1][0] if k + 1 < len(tokens) else ""
        for new in OPERATORS.get(word, ()) if spaced else ():
            yield *token.span(), new
        if word in CALLED and next_word == "(":
            yield *token.span(), CALLED[word]
        if token.lastgroup == "number":
            yield from ((*token.span(), new) for new in other_numbers(word))
        elif language == "c":
            if word == "!":
                yield *token.span(), ""
        elif word in WORDS and tokens[k - 2][0] not in ASSERTS:
            yield *token.span(), WORDS[word]
        elif word == "for":
            loops += 1
        elif word == "in" and loops:
            loops -= 1
        elif word == "in" and tokens[k - 1][0] != "not":
            yield *token.span(), "not in"
        elif word == "is":
            yield (
                token.start(),
                tokens[k + 1].end() if next_word == "not" else token.end(),
                {"not": "is"}.get(next_word, "is not"),
            )
        elif word == "not" and tokens[k - 1][0] != "is":
            yield token.start(), tokens[k + 1].start(), ""


def other_numbers(written: str) -> list[str]:
    """What may stand for a number."""
    bare = written.rstrip("uUlLfFj") if written[:2] not in ("0x", "0X") else written.rstrip("uUlL")
    suffix = written[len(bare) :]
    if bare[:2] in ("0x", "0X"):
        return [f"{int(bare, 16) + 1:#x}{suffix}"]
    if bare.replace("_", "").isdecimal():
        value = int(bare)
        return [f"{value + 1}{suffix}", *([f"{value - 1}{suffix}"] if value else [])]
    return [f"{float(bare) * 2 or 1.0!r}{suffix}"]


def in_lines(text: str, suffix: str) -> Iterator[Change]:
    """Changes of a line of Cython or C: a statement is left out, a condition turned round."""
    pattern, nothing = STATEMENTS[suffix]
    for found in pattern.finditer(text):
        if all(found[1].count(opened) == found[1].count(closed) for opened, closed in ("()", "[]", "{}")):
            yield *found.span(1), nothing
    pattern, turned = CONDITION[suffix]
    for found in pattern.finditer(text):
        if not re.search(r"[<>=]", found[1]):  # a comparison is a token
            yield *found.span(1), turned.format(found[1])


def in_python(text: str) -> Iterator[Change]:
    """Changes of Python that need its syntax: a statement is left out, a condition turned round, a bound moved."""
    tree, place = ast.parse(text), Places(text)
    for function in (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
        stored = [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        stored += [n.arg for n in ast.walk(function) if isinstance(n, ast.arg)]
        for node in ast.walk(function):
            if is_spare(node, stored) and node is not function.body[-1]:
                yield *place(node), "pass"
            elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
                if isinstance(node.test, (ast.Name, ast.Attribute, ast.Call, ast.NamedExpr)):
                    yield *place(node.test), f"not ({place.text(node.test)})"
            elif isinstance(node, ast.Slice):
                for bound in filter(None, (node.lower, node.upper)):
                    if not isinstance(bound, ast.Constant):
                        yield *place(bound), f"({place.text(bound)}) + 1"


def is_spare(node: ast.AST, stored: list[str]) -> bool:
    """Whether a statement may be left out: where a name is bound once, that would be found at once."""
    if isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return all(stored.count(name) > 1 for name in names)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, (ast.Call, ast.Await))
    return isinstance(node, (ast.AugAssign, ast.Raise, ast.Return, ast.Delete, ast.Assert))


class Places:
    """Where nodes stand in a text; `ast` counts bytes of a line."""

    def __init__(self, given: str) -> None:
        self.given, self.lines, self.starts = given, given.splitlines(keepends=True), [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def __call__(self, node: ast.AST) -> tuple[int, int]:
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.AST) -> str:
        start, end = self(node)
        return self.given[start:end]


def no_code(text: str, suffix: str) -> list[tuple[int, int]]:
    """What is left alone beside strings and comments."""
    if suffix != ".py":
        return [found.span() for found in EXCEPT.finditer(text)]
    place, kept = Places(text), []
    for node in ast.walk(ast.parse(text)):
        hints = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        kept += [place(hint) for hint in hints if hint]
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            kept.append(place(node))
    return kept

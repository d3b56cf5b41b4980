"""Every function fits on one screen."""

import ast
import io
import tokenize

import pytest

from support import CHECKOUT

PACKAGE = CHECKOUT / "gunicorn_expect"

#: Lines of code that fit on a screen.
MOST = 40

#: Tokens on lines that don't count.
NOT_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def lengths(source):
    """Yield each function's name and its number of lines of code."""
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = code.intersection(range(node.lineno, node.end_lineno + 1))
            if ast.get_docstring(node) is not None:
                docstring = node.body[0]
                lines -= {*range(docstring.lineno, docstring.end_lineno + 1)}
            yield node.name, len(lines)


@pytest.mark.parametrize(
    "path", sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")), ids=str
)
def test_no_function_is_longer_than_a_screen(path):
    long = [found for found in lengths((PACKAGE / path).read_text("utf-8")) if found[1] > MOST]
    assert not long


def test_comments_blank_lines_and_docstrings_do_not_count():
    source = '''
def long(a,
         b):
    """Say
    this."""
    # and that

    return """
    text"""  # 2 lines
'''
    assert [*lengths(source)] == [("long", 4)]

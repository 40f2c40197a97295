"""The tables of the studies: columns once, then Markdown, HTML or text of them."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Column(NamedTuple):
    """One column of a table."""

    head: str
    text: Callable[[Mapping[str, Any]], str]  # of a row's cell
    is_number: bool = True  # aligned to the right


def column(head: str, key: str, form: str = "{}") -> Column:
    """A column of the rows' values by `key`; `form` as in '{:.2%}', '{}' for text.

    None is an empty cell.
    """

    def text(row):
        return "" if row[key] is None else form.format(row[key])

    return Column(head, text, is_number=form != "{}")


class Table(NamedTuple):
    """Rows of values, and how to show them."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]

    @property
    def heads(self) -> list[str]:
        return [one.head for one in self.columns]

    def cells(self) -> list[list[str]]:
        return [[one.text(row) for one in self.columns] for row in self.rows]

    def to_markdown(self) -> str:
        rules = ["---:" if one.is_number else "---" for one in self.columns]
        lines = [f"| {' | '.join(x)} |" for x in (self.heads, rules, *self.cells())]
        return "\n".join(lines) + "\n"

    def to_text(self) -> str:
        """For a terminal: columns of one width, two spaces apart."""
        lines = [self.heads, *self.cells()]
        widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]

        def align(text, width, one):
            return text.rjust(width) if one.is_number else text.ljust(width)

        return "".join(
            "  ".join(map(align, line, widths, self.columns)).rstrip() + "\n"
            for line in lines
        )

    def to_html(self) -> str:
        def line(tag, texts):
            inner = "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
            return f"<tr>{inner}</tr>"

        body = "\n".join(line("td", texts) for texts in self.cells())
        return (
            f"<table><thead>{line('th', self.heads)}</thead>\n"
            f"<tbody>{body}</tbody></table>"
        )

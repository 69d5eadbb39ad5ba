"""Tables of text and HTML."""

from collections.abc import Callable, Sequence

Table = list[list[str]]

SHOWN = 16
"""Devices in a table."""


def text(table: Sequence[Sequence[str]]) -> str:
    """Return rows with columns of one width, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)


def html(table: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    head, *body = table
    rows = "".join(row(cells, "td") for cells in body)
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{rows}</tbody></table>"


def by_device(count: int, columns: dict[str, Callable[[int], str]]) -> Table:
    """Return a row for each of the first devices."""
    rows = [[str(n), *(cell(n) for cell in columns.values())] for n in range(min(count, SHOWN))]
    if count > SHOWN:
        rows.append([f"{count} in all", *[""] * len(columns)])
    return [["device", *columns], *rows]

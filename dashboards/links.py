"""Links from a cell of a table to another board, at the same time and from the same data source."""

from __future__ import annotations

_KEPT = "${datasource:queryparam}&${cluster:queryparam}&${__url_time_range}"


def to(board: str, **variables: str) -> str:
    """The board with each variable set to the value in the column of this title."""
    chosen = "".join(f'&var-{name}=${{__data.fields["{column}"]}}' for name, column in variables.items())
    return f"/d/{board}?{_KEPT}{chosen}"

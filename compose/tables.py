"""Documents in rows: CSV and Parquet. A column has the text, one may have ids, and the others
become metadata. `compose.reading` uses it.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import orjson

from compose.errors import InputError
from compose.formats import BLOCK_BYTES, Line
from compose.items import Item, make_item

DELIMITERS = ",;\t"
BATCH_ROWS = 256
"""Rows of a Parquet file that are held in memory."""
BUFFER_BYTES = 1024 * 1024
"""Of each column's pages that are read at once: a row group is never held whole."""
EXACT_FLOAT = 2**53 - 1
"""Larger floats may have been other whole numbers."""

Skip = Callable[[], None]
"""Told of each row that has no text."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns that have texts and ids; without `id` it is `id` where there is
    such a column."""

    text: str = "text"
    id: str | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where in a row the text, the id and the metadata are."""

    text: int
    id: int | None
    metadata: tuple[tuple[int, str], ...]

    def item(self, row: Sequence[Any], place: str) -> Item | None:
        """None: it has no text. Raises InputError."""
        text = row[self.text]
        if text is None or (isinstance(text, str) and not text.strip()):
            return None
        if not isinstance(text, str):
            raise InputError(f"{place}: the text is not a string but {type(text).__name__}")
        document: dict[str, Any] = {"text": text}
        own_id = None if self.id is None else _read_id(row[self.id], place)
        if own_id:
            document["id"] = own_id
        if self.metadata:
            named = {name: row[index] for index, name in self.metadata}
            document["metadata"] = _jsonable(named, place)
        return make_item(place, document)


def read_csv(lines: Iterable[Line], source: str, columns: Columns, skip: Skip) -> Iterator[Item]:
    """A header and rows; commas, semicolons or tabs between them. Raises InputError."""
    csv.field_size_limit(BLOCK_BYTES)
    rest = iter(lines)
    header = next(rest, None)
    if header is None:
        return
    delimiter = _delimiter(header.text, columns)
    names = next(csv.reader([header.text], delimiter=delimiter), [])
    layout = _lay_out(names, columns, source)
    rows = csv.reader((line.text for line in rest), delimiter=delimiter, strict=True)
    for number, row in _numbered(rows, source):
        place = f"{source}:{number}"
        if row and len(row) != len(names):
            raise InputError(f"{place}: {len(row)} fields, the header has {len(names)}")
        item = layout.item(row, place) if row else None
        if item is not None:
            yield item
        elif row:
            skip()


def read_parquet(
    name: str, columns: Columns, skip: Skip, note_share: Callable[[float], None]
) -> Iterator[Item]:
    """Rows, in constant memory; `note_share` hears how much of them has been read, from 0 to 1.
    Raises InputError, also where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(
            f"{name}: Parquet needs pyarrow: pip install 'embedmill[parquet]'"
        ) from error
    number = 0
    try:
        with ParquetFile(Path(name), buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
            layout = _lay_out(file.schema_arrow.names, columns, name)
            for batch in file.iter_batches(BATCH_ROWS):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    item = layout.item(row, f"{name}:{number}")
                    if item is None:
                        skip()
                    else:
                        yield item
                note_share(number / file.metadata.num_rows)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{name}: cannot be read as Parquet after row {number}: {error}"
        ) from error


def _delimiter(header: str, columns: Columns) -> str:
    """The one that shows a column of texts; a comma when none does."""
    for delimiter in DELIMITERS:
        if columns.text in next(csv.reader([header], delimiter=delimiter), []):
            return delimiter
    return DELIMITERS[0]


def _lay_out(names: Sequence[str], columns: Columns, source: str) -> _Layout:
    for wanted, option in ((columns.text, "--text-column"), (columns.id, "--id-column")):
        if wanted is not None and wanted not in names:
            raise InputError(
                f"{source}: there is no column {wanted!r}; name another with {option}: "
                + ", ".join(names)
            )
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{source}: there are two columns {repeated!r}")
    id_name = columns.id or "id"
    text = names.index(columns.text)
    own = {text}
    id_at = names.index(id_name) if id_name in names and id_name != columns.text else None
    if id_at is not None:
        own.add(id_at)
    # a data frame's index has a column without a name
    metadata = tuple(
        (index, name or f"column {index + 1}")
        for index, name in enumerate(names)
        if index not in own
    )
    return _Layout(text, id_at, metadata)


def _read_id(value: object, place: str) -> str | None:
    """Whole numbers may come as floats: so a data frame keeps them where some are missing, and the
    missing ones as NaN. Raises InputError for what could be the same for two documents."""
    match value:
        case None | str():
            return value
        case float() if isnan(value):
            return None
        case float() if value.is_integer() and abs(value) <= EXACT_FLOAT:
            return str(int(value))
        case int() if not isinstance(value, bool):
            return str(value)
    raise InputError(
        f"{place}: an id is a string or a whole number, not {type(value).__name__}"
        + (f" {value}" if isinstance(value, float) else "")
    )


def _numbered(rows: Any, source: str) -> Iterator[tuple[int, list[str]]]:
    """Each with the number of the line on which it begins; the header is line 1."""
    while True:
        number = rows.line_num + 2
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{source}:{number}: not CSV: {error}") from error
        yield number, row


def _jsonable(metadata: dict[str, Any], place: str) -> dict[str, Any]:
    """Dates and times in ISO 8601, decimals as strings, so that nothing is rounded."""
    try:
        plain: dict[str, Any] = orjson.loads(orjson.dumps(metadata, default=_say))
    except TypeError as error:
        raise InputError(f"{place}: metadata that is not JSON: {error}") from error
    return plain


def _say(value: object) -> str:
    if isinstance(value, bytes):
        raise TypeError("binary data; leave its column out")
    return str(value)

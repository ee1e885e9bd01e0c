"""JSON files as sources of rows: an object per line, an array of objects, or an object that holds one such array."""

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from typing import IO, TYPE_CHECKING, Any

from textladder.data.file_streams import MAX_LINE, TextFile, bounded_lines
from textladder.data.rows import BATCH_ROWS, as_text, in_batches
from textladder.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_FOR_NAMES = 256  # the columns are the keys of this many rows
BLOCK_CHARACTERS = 1 << 20
MAX_OBJECT = 1 << 28  # characters
LINES, ARRAY, OBJECT = "jsonl", "json array", "json object with an array"
ESCAPE = "textladder_json"  # how the writer treats what an encoding lacks, half a surrogate pair included
_decoder = json.JSONDecoder()


def _escape(error: UnicodeError) -> tuple[str, int]:
    """What cannot be encoded as JSON's escapes."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(ESCAPE, _escape)


def json_form(start: str) -> str | None:
    """Tell the form of a JSON file by its first characters; None if it is no JSON.

    >>> json_form('{"text": "good", "label": 1}\\n{"text": '), json_form('[{"text": "good"'), json_form("[1] a, b")
    ('jsonl', 'json array', None)
    """
    start = start.lstrip()
    if start.startswith("[") and start[1:].lstrip()[:1] in ("{", "]"):
        return ARRAY
    if not start.startswith("{"):
        return None
    first_line, _, rest = start.partition("\n")
    try:
        value = json.loads(first_line)
        return OBJECT if not rest.strip() and len(_arrays(value)) == 1 else LINES
    except (ValueError, RecursionError):
        pass
    if first_line.rstrip().endswith(("{", "[")):  # laid out over several lines
        return OBJECT
    quoted = start[1:].lstrip()
    if not quoted.startswith('"'):
        return None
    # a line that is cut or damaged is still a line if another object begins below it
    return LINES if "\n{" in start else OBJECT


def unlike_json(start: str) -> str | None:
    """Why a file that begins like JSON is no rows of JSON, as a sentence; None if that cannot be said.

    >>> unlike_json("{'text': 'good'}")
    'the lines are Python dictionaries; write them as JSON, with double quotes (json.dumps).'
    """
    first_line, _, rest = start.lstrip().partition("\n")
    if first_line.startswith("{'"):
        return "the lines are Python dictionaries; write them as JSON, with double quotes (json.dumps)."
    if first_line.startswith('["') and rest.startswith("["):
        try:
            json.loads(first_line)
        except (ValueError, RecursionError):
            return None
        return 'every line is a JSON array without names; write objects such as {"text": "...", "label": "..."}.'
    return None


def _arrays(value: Any) -> list[str]:
    """The keys of an object whose values are arrays of objects."""
    items = value.items() if isinstance(value, dict) else ()
    return [name for name, one in items if isinstance(one, list) and one and isinstance(one[0], dict)]


class JsonFile:
    """A JSON file whose rows are objects; keys may be missing from some.

    Args:
        file: its compression and encoding.
        kind: the result of `json_form`.

    Attributes:
        later_names: keys that none of the first rows has, with the first row that has them, as far as was read. They
            are no columns, but stay in the rows.
    """

    amazon_form = False
    typed = True

    def __init__(self, file: TextFile, kind: str) -> None:
        """Read the first rows.

        Raises:
            DataError: there are no rows.
        """
        self.file, self.path, self.kind = file, file.path, kind
        self.later_names: dict[str, int] = {}
        self.output = "jsonl" if kind == LINES else "json"
        self.line_end = "\n"
        with file.open() as text:
            if text.readline(BLOCK_CHARACTERS).endswith("\r\n"):
                self.line_end = "\r\n"
        first_rows = next(self.batches(ROWS_FOR_NAMES), None)
        if first_rows is None:
            raise DataError(f"{self.path}: the file has no rows.")
        self.names = list(dict.fromkeys(key for row in first_rows for key in row))
        self._known = set(self.names)

    @property
    def form(self) -> str:
        """What was found, in a few words."""
        parts = [self.kind, *([self.file.compression] if self.file.compression else [])]
        if self.later_names:
            shown = ", ".join(f"{name!r} at row {row:,}" for name, row in list(self.later_names.items())[:3])
            parts.append(f"keys that come up only later ({shown}) are no columns")
        return ", ".join(parts)

    def _rows(self) -> Iterator[dict[str, Any]]:
        with self.file.open() as text:
            text.reconfigure(newline="\n")  # a JSON string may contain other line ends
            rows = {LINES: self._lines, ARRAY: self._array, OBJECT: self._object}[self.kind](text)
            for number, (place, row) in enumerate(rows, start=1):
                if not isinstance(row, dict):
                    raise DataError(f"{self.path}: {place} is a {type(row).__name__}, not a JSON object.")
                if number > ROWS_FOR_NAMES and not row.keys() <= self._known:
                    self.later_names |= {
                        name: number for name in row.keys() - self._known if name not in self.later_names
                    }
                yield row

    def _lines(self, text: TextIOWrapper) -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(bounded_lines(text, self.path), start=1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{self.path}: line {number} is not JSON ({error}).") from None

    def _array(self, text: TextIOWrapper) -> Iterator[tuple[str, Any]]:
        """The elements one at a time, so that memory holds a block of the file and not all of it."""
        buffer, position, number = text.read(BLOCK_CHARACTERS).lstrip(), 1, 0
        while True:
            while position < len(buffer) and buffer[position] in ", \t\r\n":
                position += 1
            if position < len(buffer) and buffer[position] == "]":
                if buffer[position + 1 :].strip() or text.read(BLOCK_CHARACTERS).strip():
                    raise DataError(f"{self.path}: something follows the array, as if files were put together.")
                return
            try:
                value, position = _decoder.raw_decode(buffer, position)
            except (json.JSONDecodeError, RecursionError) as error:
                if len(buffer) - position > MAX_LINE:
                    raise DataError(
                        f"{self.path}: row {number + 1} of the array has more than {MAX_LINE:,} characters, or is not "
                        "JSON."
                    ) from None
                more = text.read(max(BLOCK_CHARACTERS, len(buffer) - position))
                if not more or isinstance(error, RecursionError):
                    raise DataError(f"{self.path}: row {number + 1} of the array is not JSON ({error}).") from None
                buffer, position = buffer[position:] + more, 0
                continue
            number += 1
            yield f"row {number} of the array", value

    def _object(self, text: TextIOWrapper) -> Iterator[tuple[str, Any]]:
        content = text.read(MAX_OBJECT + 1)
        if len(content) > MAX_OBJECT:
            raise DataError(
                f"{self.path}: a JSON object is read as a whole, and this one has more than {MAX_OBJECT:,} characters; "
                "write its array as JSON Lines."
            )
        try:
            whole = json.loads(content)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{self.path}: the file is not JSON ({error}).") from None
        arrays = _arrays(whole)
        if len(arrays) != 1:
            found = f"it has {len(arrays)} ({', '.join(arrays)})" if arrays else "it has none"
            raise DataError(f"{self.path}: a JSON object must hold exactly one array of objects; {found}.")
        for number, value in enumerate(whole[arrays[0]], start=1):
            yield f"row {number} of {arrays[0]!r}", value

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[list[dict[str, Any]]]:
        """The rows in order, at most `rows` at a time."""
        return in_batches(self._rows(), rows)

    def column(self, batch: list[dict[str, Any]], name: str) -> list[str | None]:
        """One column of a batch."""
        return [as_text(row.get(name)) for row in batch]

    def values(self, batch: list[dict[str, Any]], name: str) -> list[Any]:
        """One column of a batch as its values are."""
        return [row.get(name) for row in batch]

    def label_order(self, name: str) -> list[str] | None:
        """None: such a file declares no order."""
        return None

    def writer(self, stream: IO[bytes], added: Mapping[str, "pa.DataType"]) -> "_JsonWriter":
        """Start a file with the same encoding, with a line for each object."""
        return _JsonWriter(self, stream, list(added))


class _JsonWriter:
    def __init__(self, source: JsonFile, stream: IO[bytes], added: Sequence[str]) -> None:
        self.text = source.file.writer(stream, errors=ESCAPE)
        self.path, self.added, self.line_end = source.path, added, source.line_end
        self.is_array, self.taken = source.kind != LINES, set(added)
        self.rows = 0

    def add(self, batch: list[dict[str, Any]], columns: Sequence[Sequence[Any]]) -> None:
        for row, *values in zip(batch, *columns, strict=True):
            if taken := row.keys() & self.taken:
                raise DataError(f"{self.path}: a row has the key {min(taken)!r} already; rename it first.")
            extended = json.dumps({**row, **dict(zip(self.added, values, strict=True))}, ensure_ascii=False)
            if self.is_array:
                self.text.write(("[" if not self.rows else ",") + self.line_end + extended)
            else:
                self.text.write(extended + self.line_end)
            self.rows += 1

    def close(self) -> None:
        if self.is_array:
            self.text.write(("" if self.rows else "[") + self.line_end + "]" + self.line_end)
        self.text.flush()
        self.text.detach()

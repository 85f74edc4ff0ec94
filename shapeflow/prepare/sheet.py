"""A table of labels as spreadsheets write them: separators, encodings, decimal commas and empty margins told from the text, all else refused.

The separator is the one of `, ; tab |` that the header has most of (none of them: runs of blanks, if all lines have equally many words).
pandas' own guess takes the letters 'su' of a lone "subject" for a separator, and an empty first line for the end.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd

from shapeflow.errors import ConfigError

_SEPARATORS = (",", ";", "\t", "|")
# what stands for no value; "None" is a group, such as no treatment
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"]
_DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")


def read_sheet(path: Path, id_column: str | None) -> tuple[pd.DataFrame, str]:
    """The table and its column of ids (`id_column`, else "subject", else the first), which stays text so that 007 is not 7.

    Raises ConfigError, with the line, on an empty or binary file, ragged lines, unnamed or repeated columns and rows without an id.
    """
    lines, separator = _lines(_text(path))
    if not lines:
        raise _refused(path, "is empty")
    header, body = _without_margins(path, lines)
    if not body:
        raise _refused(path, f"has no row below its header ({', '.join(header)})")
    column = id_column or ("subject" if "subject" in header else header[0])
    if column not in header:
        raise ConfigError(f"dataset.label_id={column!r} is no column of {path}; its columns are {', '.join(header)}")
    blank = [number for number, row in body if row[header.index(column)] in MISSING]
    if blank:
        raise _refused(path, f"line {blank[0]} has no id in column {column!r}")
    plain = io.StringIO()
    csv.writer(plain).writerows([header, *(row for _, row in body)])
    plain.seek(0)
    table = read_plain(plain, column)
    for name in table.columns.drop(column):
        table[name] = _decimals(table[name], separator)
    return table, column


def read_plain(file: Path | io.StringIO, column: str = "subject") -> pd.DataFrame:
    """A table as shapeflow writes it, such as subjects.csv: its ids stay text, its groups what they are called."""
    return pd.read_csv(file, dtype={column: str}, keep_default_na=False, na_values=MISSING)


def _text(path: Path) -> str:
    data = path.read_bytes()
    if data[:4] == b"PK\x03\x04" or data[:4] == b"\xd0\xcf\x11\xe0":
        raise _refused(path, "is an Excel or OpenDocument workbook; save the sheet as CSV")
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _refused(path, f"line {line} is no UTF-8; save the sheet as CSV UTF-8") from error


def _lines(text: str) -> tuple[list[tuple[int, list[str]]], str]:
    """Rows that are not blank, with their lines' numbers, and the separator."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(_SEPARATORS, key=first.count)
    if separator not in first:
        words = [row for row in csv.reader(text.splitlines(), delimiter=" ", skipinitialspace=True) if any(row)]
        separator = " " if len({len(row) for row in words}) == 1 else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    rows = [(reader.line_num, [value.strip() for value in row]) for row in reader]
    return [(number, row) for number, row in rows if any(row)], separator


def _without_margins(path: Path, lines: list[tuple[int, list[str]]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows without the columns that have neither name nor values. An unnamed first column is "subject", or goes if it counts rows."""
    (_, header), *body = lines
    for number, row in body:
        if len(row) != len(header):
            raise _refused(path, f"line {number} has {len(row)} values under {len(header)} columns")
    columns = [[row[j] for _, row in body] for j in range(len(header))]
    kept = [j for j, name in enumerate(header) if name or any(columns[j])]
    if not header[kept[0]] and len(kept) > 1:  # row names, as pandas and R write them: the ids, or a count of the rows
        if "subject" not in header:
            header = ["subject" if j == kept[0] else name for j, name in enumerate(header)]
        elif all(value.isdigit() for value in columns[kept[0]]):
            kept = kept[1:]
    for j in kept:
        if not header[j]:
            raise _refused(
                path, f"column {j + 1} has no name, and its first line is {', '.join(filter(None, header))!r}"
            )
    names = [header[j] for j in kept]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise _refused(path, f"has {names.count(repeated[0])} columns named {repeated[0]!r}; rename them")
    return names, [(number, [row[j] for j in kept]) for number, row in body]


def _decimals(values: pd.Series, separator: str) -> pd.Series:
    """Numbers of a column written with decimal commas; 1,234 stays text where it may be a thousand and more."""
    text = [str(v) for v in values.dropna()]
    if separator == "," or not text or not any("," in t for t in text) or not all(map(_DECIMAL_COMMA.fullmatch, text)):
        return values
    if separator != ";" and all(map(_THOUSANDS.fullmatch, text)):
        return values
    return pd.to_numeric(values.astype("string").str.replace(",", "."))


def _refused(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"dataset.labels: {path} {what}. Expected a CSV whose first line names the columns, and a line a subject below"
    )

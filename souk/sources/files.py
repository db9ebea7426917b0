"""A shop's own export: CSV, JSON lines or Parquet files and one YAML mapping, no code.

The path is the mapping, or a folder with a mapping named `souk.yml`; `docs/files-source.md` describes every key:

    shop: my-shop                     # the folder's name by default
    timezone: Asia/Shanghai           # of times without an offset; UTC by default
    products:
      file: goods.csv                 # .csv .tsv .jsonl .ndjson .parquet, the text ones also with .gz
      columns: {item_id: sku, title: name, categories: path, price: price}
      constants: {currency: CNY}
      separator: " > "                # of lists kept in one text column; "|" by default
      attributes: [colour, size]
    events:
      file: log.jsonl.gz
      columns: {user_id: uid, item_id: sku, kind: action, event_at: ts}
      timestamp: unix                 # iso (default), unix, unix_ms, or a strptime format
      kinds: {pv: view, buy: purchase}
      contact: {email: mail}
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import chain
from pathlib import Path
from zoneinfo import ZoneInfo

import yaml

from souk.errors import SoukError
from souk.sources.contract import Dataset, Row, chunks, fingerprint, require_file, row_id, unreadable
from souk.sources.lines import json_rows, open_bytes, require_columns, sample_columns
from souk.sources.parquet import parquet_rows

MAPPING_NAME = "souk.yml"
FIELDS: dict[str, tuple[str, ...]] = {
    "products": (
        "item_id",
        "title",
        "description",
        "brand",
        "categories",
        "price",
        "currency",
        "attributes",
        "listed_at",
    ),
    "events": ("event_id", "user_id", "item_id", "kind", "event_at", "session_id", "query_id", "quantity"),
    "queries": ("query_id", "user_id", "session_id", "query_text", "searched_at", "shown_item_ids"),
    "reviews": ("review_id", "user_id", "item_id", "rating", "body", "reviewed_at"),
}
REQUIRED: dict[str, tuple[str, ...]] = {
    "products": ("item_id", "title"),
    "events": ("user_id", "item_id", "kind", "event_at"),
    "queries": ("query_text", "searched_at"),
    "reviews": ("user_id", "item_id", "body", "reviewed_at"),
}
# An id that the export lacks is the hash of the fields that tell two rows apart.
DERIVED_IDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "events": ("event_id", ("user_id", "item_id", "kind", "event_at")),
    "queries": ("query_id", ("user_id", "query_text", "searched_at")),
    "reviews": ("review_id", ("user_id", "item_id", "reviewed_at", "body")),
}
TEXT_IDS = {"item_id", "user_id", "event_id", "session_id", "query_id", "review_id"}
LISTS = {"categories", "shown_item_ids"}
TIMES = {"listed_at", "event_at", "searched_at", "reviewed_at"}
CONTACT = {"name", "email", "phone"}
SETTINGS = {"file", "separator", "timestamp", "delimiter", "header", "attributes"}
# Shops had no events before.
FIRST_YEAR = 1990
MAPPINGS = ("columns", "constants", "kinds", "contact")


@dataclass(frozen=True)
class Entity:
    """How one file becomes the rows of one entity.

    Attributes:
        name: `products`, `events`, `queries` or `reviews`.
        file: The file.
        columns: Column of each field.
        constants: Fields that are the same in every row.
        separator: Separator of lists kept in a text column.
        attributes: Columns kept as attributes of a product.
        timestamp: `iso`, `unix`, `unix_ms` or a strptime format.
        timezone: Zone of times without an offset.
        kinds: Kind of event for each value of the kind column; a value that is not listed stays as it is.
        contact: Column of each personal field.
        delimiter: Delimiter of a text table.
        header: Names of the columns of a text table whose file has none.
    """

    name: str
    file: Path
    columns: Mapping[str, str]
    constants: Mapping[str, object]
    separator: str
    attributes: tuple[str, ...]
    timestamp: str
    timezone: tzinfo
    kinds: Mapping[str, str]
    contact: Mapping[str, str]
    delimiter: str
    header: tuple[str, ...]

    def check(self) -> None:
        """Check that the file is there, has rows and has every column that the mapping names.

        Raises:
            SoukError: It does not.
        """
        require_file(self.file)
        wanted = {*self.columns.values(), *self.attributes, *self.contact.values()}
        # An object may lack what another has; the lines of a table are alike.
        sought = wanted if self._suffix in {".jsonl", ".ndjson"} else set()
        require_columns(self.file, sample_columns(self.file, self.read(), sought), wanted)

    def rows(self) -> Iterator[Row]:
        """Yield the entity's rows."""
        for row in self.read():
            yield row if "_unreadable" in row else self._map(row)

    def read(self) -> Iterator[Row]:
        """Yield the file's rows under the file's own column names."""
        if self._suffix in {".csv", ".tsv"}:
            return self._read_table()
        return chain.from_iterable(parquet_rows(self.file)) if self._suffix == ".parquet" else json_rows(self.file)

    @property
    def _suffix(self) -> str:
        return Path(self.file.name.removesuffix(".gz")).suffix

    def _read_table(self) -> Iterator[Row]:
        # Surrogates carry bytes that are not UTF-8 through the parser, so that one bad row costs one row.
        with open_bytes(self.file) as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
            reader = csv.reader(text, delimiter=self.delimiter, strict=True)
            header = list(self.header) or next(reader, [])
            while True:
                lines = reader.line_num
                try:
                    values = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    # A quote that is not closed takes the lines behind it with it: each is a row that is lost.
                    for _ in range(max(1, reader.line_num - lines)):
                        yield unreadable("broken_csv", error)
                    continue
                if values:
                    yield _table_row(header, values)

    def _map(self, row: Row) -> Row:
        mapped: Row = dict.fromkeys(FIELDS[self.name])
        mapped |= {field: row.get(column) for field, column in self.columns.items()} | dict(self.constants)
        for field, value in mapped.items():
            mapped[field] = self._value(field, value)
        if self.attributes:
            mapped["attributes"] = {name: row[name] for name in self.attributes if row.get(name) not in (None, "")}
        if self.name in DERIVED_IDS:
            identifier, parts = DERIVED_IDS[self.name]
            if mapped[identifier] is None:
                mapped[identifier] = row_id(*(mapped[part] for part in parts))
        contact = {field: row[column] for field, column in self.contact.items() if row.get(column)}
        return mapped | {"contact": contact} if contact else mapped

    def _value(self, field: str, value: object) -> object:
        # Data frames write NaN where there is nothing, and whole numbers with gaps as 1.0.
        if value is None or value == "" or value != value:  # noqa: PLR0124
            return [] if field in LISTS else {} if field == "attributes" else None
        if isinstance(value, float) and value.is_integer() and field in TEXT_IDS | LISTS:
            value = int(value)
        if field in LISTS and not isinstance(value, list):
            return [part.strip() for part in str(value).split(self.separator) if part.strip()]
        if field in TIMES:
            return parse_time(value, self.timestamp, self.timezone)
        if field == "kind":
            return self.kinds.get(str(value), value)
        return str(value) if field in TEXT_IDS else value


def _table_row(header: list[str], values: list[str]) -> Row:
    joined = ",".join(values)
    try:
        joined.encode("utf-8")
    except UnicodeEncodeError:
        return unreadable("bad_utf8", joined.encode("utf-8", "surrogateescape"))
    if len(values) != len(header):
        return unreadable("wrong_field_count", joined)
    return dict(zip(header, values, strict=True))


def parse_time(value: object, form: str, zone: tzinfo) -> object:
    """Return a time zone aware datetime; a value that does not parse is returned as it is, for landing to reject.

    Args:
        value: Text, a number or a datetime.
        form: `iso`, `unix`, `unix_ms` or a strptime format.
        zone: Zone of a time without an offset.
    """
    try:
        if isinstance(value, datetime):
            at = value
        elif form in {"unix", "unix_ms"}:
            at = datetime.fromtimestamp(float(str(value)) / (1000 if form == "unix_ms" else 1), UTC)
            # Seconds, read as milliseconds.
            return value if form == "unix_ms" and at.year < FIRST_YEAR else at
        else:
            text = str(value).strip()
            at = datetime.fromisoformat(text) if form == "iso" else datetime.strptime(text, form)
        return at if at.tzinfo else at.replace(tzinfo=zone)
    except (ValueError, OverflowError, OSError):
        return value


def open_files(path: Path) -> Dataset:
    """Open the files that a mapping names.

    Args:
        path: The mapping, or a folder with `souk.yml`.

    Raises:
        SoukError: The mapping has a mistake, or a file is missing, empty or lacks a column.
    """
    mapping_file = require_file(path / MAPPING_NAME if path.is_dir() else path).resolve()
    try:
        mapping = yaml.safe_load(mapping_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SoukError(f"{mapping_file} is not valid YAML: {error}", "Correct the mapping.") from error
    if not isinstance(mapping, dict) or "products" not in mapping:
        raise _mistake(mapping_file, "has no section 'products'")
    _only(mapping_file, "the mapping", mapping, {"shop", "timezone", *FIELDS})
    try:
        zone = ZoneInfo(str(mapping.get("timezone", "UTC")))
    except (KeyError, ValueError, OSError):
        raise _mistake(mapping_file, f"names an unknown timezone {mapping['timezone']!r}") from None
    entities = {name: _entity(mapping_file, name, mapping[name], zone) for name in FIELDS if name in mapping}
    for entity in entities.values():
        entity.check()
    return FilesDataset(
        shop=str(mapping.get("shop") or mapping_file.parent.name),
        source="files",
        is_generated=False,
        has_clock=True,
        fingerprint=fingerprint(["files", *entities], [mapping_file, *(entity.file for entity in entities.values())]),
        entities=entities,
    )


@dataclass(frozen=True)
class FilesDataset(Dataset):
    """The entities of one mapping."""

    entities: Mapping[str, Entity]

    def products(self) -> Iterator[list[Row]]:
        """Yield the catalogue."""
        return self._chunks("products")

    def events(self) -> Iterator[list[Row]]:
        """Yield what shoppers did with products."""
        return self._chunks("events")

    def queries(self) -> Iterator[list[Row]]:
        """Yield the searches."""
        return self._chunks("queries")

    def reviews(self) -> Iterator[list[Row]]:
        """Yield the reviews."""
        return self._chunks("reviews")

    def _chunks(self, name: str) -> Iterator[list[Row]]:
        return chunks(self.entities[name].rows()) if name in self.entities else iter(())


def _mistake(mapping: Path, what: str) -> SoukError:
    return SoukError(f"{mapping} {what}", "Correct the mapping; docs/files-source.md describes it.")


def _only(mapping: Path, where: str, given: Mapping[str, object], known: set[str]) -> None:
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise _mistake(mapping, f"has an unknown key {unknown[0]!r} in {where}")


def _entity(mapping: Path, name: str, section: object, zone: tzinfo) -> Entity:
    if not isinstance(section, dict) or not isinstance(section.get("file"), str):
        raise _mistake(mapping, f"has no 'file' in {name}")
    _only(mapping, name, section, SETTINGS.union(MAPPINGS))
    columns, constants, kinds, contact = (_pairs(mapping, name, section, key) for key in MAPPINGS)
    _only(mapping, f"the columns of {name}", columns, set(FIELDS[name]))
    _only(mapping, f"the constants of {name}", constants, set(FIELDS[name]))
    _only(mapping, f"the contact of {name}", contact, CONTACT)
    missing = [field for field in REQUIRED[name] if field not in columns and field not in constants]
    if missing:
        raise _mistake(mapping, f"gives no column for {missing[0]!r} in {name}")
    file = mapping.parent / section["file"]
    suffix = Path(file.name.removesuffix(".gz")).suffix
    if suffix not in {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"} or file.name.endswith(".parquet.gz"):
        raise _mistake(mapping, f"names a file of unknown format {file.name!r}; use .csv, .tsv, .jsonl or .parquet")
    delimiter = str(section.get("delimiter", "\t" if suffix == ".tsv" else ","))
    if len(delimiter) != 1:
        raise _mistake(mapping, f"has a delimiter that is not one character in {name}")
    return Entity(
        name=name,
        file=file,
        columns={field: str(column) for field, column in columns.items()},
        constants=constants,
        separator=str(section.get("separator") or "|"),
        attributes=_names(mapping, name, section, "attributes"),
        timestamp=str(section.get("timestamp", "iso")),
        timezone=zone,
        kinds={value: str(kind) for value, kind in kinds.items()},
        contact={field: str(column) for field, column in contact.items()},
        delimiter=delimiter,
        header=_names(mapping, name, section, "header"),
    )


def _pairs(mapping: Path, name: str, section: Mapping[str, object], key: str) -> dict[str, object]:
    value = section.get(key) or {}
    if not isinstance(value, dict):
        raise _mistake(mapping, f"has {key!r} in {name} that is not a mapping")
    return {str(field): column for field, column in value.items()}


def _names(mapping: Path, name: str, section: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = section.get(key) or []
    if not isinstance(value, list):
        raise _mistake(mapping, f"has {key!r} in {name} that is not a list")
    return tuple(str(item) for item in value)

"""What ``run.yaml`` says: of every verb whose files lie in a folder, its study and its run.

``study`` and ``run`` are those of the latest run, ``earlier`` holds those of other verbs::

    study: {…}
    run: {checksum: …, verb: ablate, …, files: {effects.csv: …}}
    earlier:
      rank: {study: {…}, run: {…}}
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeGuard

import yaml

from headpatch.text import user_path

Tree: TypeAlias = "str | list[Any] | dict[str, Any]"
"""A scalar, or lists and mappings of trees; a scalar without quotes is `Plain`."""

NULLS = frozenset({"", "~", "null", "Null", "NULL"})
"""What stands for nothing, without quotes."""
BOOLS = {
    spelling: value
    for words, value in ((("true", "yes", "on"), True), (("false", "no", "off"), False))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}
"""What a truth value may be written as, without quotes."""

_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Not every build of PyYAML has the one in C, which is ten times as fast."""
_MOST_BYTES = 64 << 20
_DEEPEST = 50
_MOST_ALIASED = 10_000
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")
# A part of what PyYAML quotes when it writes a text, so no text that it wrote is taken for these.
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,4000})")
_DECIMAL = re.compile(r"[-+]?[0-9]{1,4000}\.[0-9]{0,4000}(?:[eE][-+][0-9]{1,9})?")
_ODD = {".inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}


class NotYaml(ValueError):
    """A file that is not YAML, or holds more of it than a study or a record needs."""


class Plain(str):
    """A scalar without quotes, as written."""

    __slots__ = ()


def read_tree(path: Path) -> Tree:
    """Read a file.

    `NotYaml` if it is no YAML in UTF-8, holds a key twice, a tag, several documents, or too much.
    """
    with path.open("rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise NotYaml(f"it holds more than {_MOST_BYTES >> 20} MiB")
    try:
        return parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise NotYaml(f"line {line}: not UTF-8") from None


def parse(text: str) -> Tree:
    """Read a text; `read_tree` says what is refused."""
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_SAFE):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise NotYaml(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise NotYaml(" ".join(str(error).split())) from None
    return builder.documents[0] if builder.documents else Plain("")


def read_record(path: Path) -> dict[str, Any]:
    """Read a mapping that headpatch wrote, such as ``run.yaml``; raises as `read_tree`."""
    content = typed_as_written(read_tree(path))
    if not isinstance(content, dict):
        raise NotYaml("it holds no mapping")
    return content


def typed_as_written(tree: Tree) -> Any:
    """Give scalars, keys among them, the type that they had when headpatch wrote them."""
    if isinstance(tree, dict):
        return {typed_as_written(key): typed_as_written(one) for key, one in tree.items()}
    if isinstance(tree, list):
        return [typed_as_written(one) for one in tree]
    return _value(tree) if isinstance(tree, Plain) else tree


def _value(text: Plain) -> object:
    if text in NULLS:
        return None
    if text in BOOLS:
        return BOOLS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    return _ODD.get(text, str(text))


class _Open:
    """A list or a mapping that is being read."""

    __slots__ = ("anchor", "before", "items", "key", "lines")

    def __init__(self, items: list[Any] | dict[str, Any], anchor: str | None, before: int) -> None:
        self.items, self.anchor, self.before = items, anchor, before
        self.key: str | None = None
        self.lines: dict[str, int] = {}  # of the keys of a mapping


class _Builder:
    """Makes a tree of a parser's events."""

    def __init__(self) -> None:
        self.documents: list[Tree] = []
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Tree, int]] = {}  # what they stand for, and its nodes
        self.nodes = self.aliased = 0  # those that aliases repeat included; and these alone

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.MappingStartEvent):
            self._begin({}, event, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._begin([], event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self.stack.pop()
            if done.anchor is not None:
                self.anchors[done.anchor] = done.items, self.nodes - done.before
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor, line)
        elif isinstance(event, yaml.DocumentStartEvent) and self.documents:
            raise NotYaml(f"line {line}: a second document")

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        _refuse_tag(event.tag, line)
        bare = event.implicit[0] and event.tag is None
        value = Plain(event.value) if bare else event.value
        if event.anchor is not None:
            self.anchors[event.anchor] = value, 1
        self._add(value, line)

    def _begin(
        self, items: list[Any] | dict[str, Any], event: yaml.CollectionStartEvent, line: int
    ) -> None:
        _refuse_tag(event.tag, line)
        if len(self.stack) == _DEEPEST:
            raise NotYaml(f"line {line}: more than {_DEEPEST} lists or mappings in each other")
        before = self.nodes
        self._add(items, line)
        self.stack.append(_Open(items, event.anchor, before))

    def _alias(self, anchor: str | None, line: int) -> None:
        if anchor is None or anchor not in self.anchors:
            raise NotYaml(f"line {line}: *{anchor} stands for nothing that is complete before it")
        value, size = self.anchors[anchor]
        self.aliased += size
        if self.aliased > _MOST_ALIASED:
            raise NotYaml(f"line {line}: aliases repeat more than {_MOST_ALIASED:,} nodes")
        self.nodes += size - 1
        self._add(value, line)

    def _add(self, value: Tree, line: int) -> None:
        self.nodes += 1
        if not self.stack:
            self.documents.append(value)
            return
        place = self.stack[-1]
        if isinstance(place.items, list):
            place.items.append(value)
        elif place.key is not None:
            place.items[place.key], place.key = value, None
        elif not isinstance(value, str):
            raise NotYaml(f"line {line}: a key that is a list or a mapping")
        elif value in place.lines:
            again = f"the key {str(value)[:80]!r} a second time, after line {place.lines[value]}"
            raise NotYaml(f"line {line}: {again}")
        else:
            place.key, place.lines[value] = value, line


def _refuse_tag(tag: str | None, line: int) -> None:
    if tag not in _TEXT_TAGS:
        raise NotYaml(f"line {line}: the tag {tag[:80]!r}; tags are not read")


RUN: Final = "run.yaml"
EDITED: Final = "edited"
"""In place of a record's checksum: it was changed on purpose."""


@dataclass(frozen=True)
class Record:
    """How one verb was run: the study, and what ran it."""

    verb: str  # empty if an earlier version wrote it: then nothing says whose it is
    study: Mapping[str, Any]
    run: Mapping[str, Any]

    @property
    def files(self) -> Mapping[str, str] | None:
        """SHA-256 of each file that the run wrote; None if an earlier version did not say."""
        found = self.run.get("files")
        return found if isinstance(found, dict) else None

    @property
    def changed(self) -> bool:
        """Whether the record is no longer what the run wrote.

        Earlier versions wrote neither ``files`` nor ``checksum``, later ones write both: one alone
        is a damaged key, and nothing at all is a file that was cut. Whoever changes a record on
        purpose writes `EDITED` for its checksum.
        """
        if self.run and not {"files", "checksum"} & self.run.keys():
            return False
        return self.run.get("checksum") not in (self._checksum, EDITED)

    @property
    def content(self) -> dict[str, Any]:
        """What the file holds of it."""
        return {"study": dict(self.study), "run": dict(self.run)}

    def signed(self) -> "Record":
        """Return the record with a checksum: its first key, so that a file that is cut has it."""
        read = load(yaml.safe_dump(self.content, sort_keys=False))  # as it will be read
        whole = Record(self.verb, read["study"], _unsigned(read["run"]))
        return Record(self.verb, whole.study, {"checksum": whole._checksum, **whole.run})

    @property
    def _checksum(self) -> str:
        return hashlib.sha256(repr((self.study, _unsigned(self.run))).encode()).hexdigest()


def _unsigned(run: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != "checksum"}


def load(text: str) -> Any:
    """Read plain values that headpatch wrote; `NotYaml` if they are damaged."""
    return typed_as_written(parse(text))


def records_in(content: object) -> Iterator[Record]:
    """Give the records of a ``run.yaml``, the latest first; none if it is something else."""
    if not _is_record_file(content):
        return
    earlier = content.get("earlier", {})
    named = earlier.items() if isinstance(earlier, dict) else ()
    for key, one in (("", content), *named):
        if isinstance(one, dict) and isinstance(one.get("study"), dict):
            run = one["run"] if isinstance(one.get("run"), dict) else {}
            # the checksum holds the run's own word for its verb, not the key above it
            yield Record(str(run.get("verb", key)), one["study"], run)


def study_of(content: object, verb: str | None) -> Any:
    """Return the study in a file's content: of a ``run.yaml``, a verb's own or else the latest."""
    if not _is_record_file(content):
        return content
    one = own_record(content, verb)
    return content["study"] if one is None else one.study


def said_of(config: Path, verb: str) -> str:
    """Say if the study that a verb takes from a ``run.yaml`` is not the one that was run."""
    try:
        one = own_record(read_record(user_path(config, "--config")), verb)
    except (OSError, ValueError):
        return ""  # whoever reads the study says so
    if one is None or not one.changed:
        return ""
    return f"{config} was changed after the run: this may not be the study that was run"


def own_record(content: object, verb: str | None) -> Record | None:
    """Return a verb's own record, or else the latest; None of what is no ``run.yaml``."""
    every = list(records_in(content))
    return next((one for one in every if one.verb == verb), every[0] if every else None)


def _is_record_file(content: object) -> TypeGuard[dict[str, Any]]:
    needed = {"study", "run"}
    return isinstance(content, dict) and needed <= set(content) <= {*needed, "earlier"}

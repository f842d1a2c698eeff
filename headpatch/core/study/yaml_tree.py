"""YAML read as it is written: no text is taken for a number, a date or a truth value.

YAML 1.1 types what has no quotes by how it looks: ``no`` is false, ``24.10`` is 24.1, ``010`` is 8,
``1:30`` is 90. Here a scalar stays text, and who knows what is wanted gives it a type: a study by
what its keys declare, a record of a run by how it was written.

libyaml parses, an event at a time; nothing recurses, so no file is too deep for the stack.
"""

import re
from pathlib import Path
from typing import Any, TypeAlias

import yaml

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

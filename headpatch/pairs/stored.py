"""Pictures that a table or a program holds itself, as files: whatever reads pairs takes files."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from PIL import Image

from headpatch.errors import InputError
from headpatch.pairs.pair import IS_PICTURE, read_image
from headpatch.text import user_path


class StoredPictures:
    """A folder of pictures, each under the hash of its content.

    It is made for the first picture, and deleted together with this object or when Python ends:
    every pair that has one of its pictures holds it.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def file_of(self, cell: object, base: Path, where: str) -> Path:
        """Return the file of a cell that holds a picture; one that is no file yet is written.

        Parameters
        ----------
        base
            What paths are relative to.

        Raises
        ------
        InputError
            If it is no picture, or there is no such file.
        """
        content: Any = cell
        if isinstance(content, Mapping):
            content = content.get("bytes") or content.get("path") or cell
        if isinstance(content, str | Path):
            path = base / user_path(str(content).strip(), where)
            if not os.path.isfile(path):  # also of a path that the system refuses
                hint = f"Paths are relative to {base.resolve()}."
                raise InputError(where, f"there is no file {path}", "a picture file", hint)
            return path
        if isinstance(content, bytes):
            return self._write(content)
        if isinstance(content, Mapping):
            raise InputError(where, "neither bytes nor a path", IS_PICTURE)
        if not hasattr(content, "__array__") and not isinstance(content, Image.Image):
            raise InputError(where, f"a {type(content).__name__}", IS_PICTURE)
        image = read_image(content, where)
        folder = self._made()
        name = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
        if not (folder / name).exists():
            image.save(folder / name, "PNG", compress_level=1)
        return folder / name

    def _write(self, content: bytes) -> Path:
        path = self._made() / hashlib.sha256(content).hexdigest()
        if not path.exists():
            path.write_bytes(content)
        return path

    def _made(self) -> Path:
        if self._folder is None:
            self._folder = Path(mkdtemp(prefix="headpatch-pictures-"))
            finalize(self, rmtree, self._folder, ignore_errors=True)
        return self._folder

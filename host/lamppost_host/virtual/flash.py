"""The image of a virtual board's flash: LittleFS2, as MicroPython mounts it."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import littlefs

from lamppost_host.errors import LamppostError

BLOCK_BYTES = 4096
# MicroPython's VfsLfs2 reads and programs 32 bytes at a time (extmod/vfs_lfs.c, the defaults).
_PROGRAM_BYTES = 32


def build_image(path: Path, size: int, files: Mapping[str, bytes]) -> None:
    """Write a flash of `size` bytes (whole blocks of 4,096) with `files` in it: path on the board -> content. Only its owner can read it."""
    if size % BLOCK_BYTES or size < 4 * BLOCK_BYTES:
        raise LamppostError(
            f"a flash of {size} bytes can't be built",
            f"Give a multiple of {BLOCK_BYTES}, at least {4 * BLOCK_BYTES}.",
        )
    filesystem = littlefs.LittleFS(
        block_size=BLOCK_BYTES,
        block_count=size // BLOCK_BYTES,
        read_size=_PROGRAM_BYTES,
        prog_size=_PROGRAM_BYTES,
        mount=True,
    )
    try:
        for name, content in files.items():
            folder = str(PurePosixPath(name).parent)
            if folder not in (".", "/"):
                filesystem.makedirs(folder, exist_ok=True)
            with filesystem.open(name, "wb") as file:
                file.write(content)
    except littlefs.LittleFSError as error:
        raise LamppostError(
            f"the files don't fit into a flash of {size} bytes: {error}", "Make the flash larger."
        ) from error
    path.touch(mode=0o600)
    path.write_bytes(bytes(filesystem.context.buffer))


def read_image(path: Path) -> dict[str, bytes]:
    """Every file in the flash: path on the board -> content. The board must not be running."""
    content = path.read_bytes()
    context = littlefs.UserContext(len(content))
    context.buffer[:] = content
    filesystem = littlefs.LittleFS(
        context=context,
        block_size=BLOCK_BYTES,
        block_count=len(content) // BLOCK_BYTES,
        read_size=_PROGRAM_BYTES,
        prog_size=_PROGRAM_BYTES,
        mount=False,
    )
    try:
        filesystem.mount()
    except littlefs.LittleFSError as error:
        raise LamppostError(
            f"{path} has no file system: {error}", "It is damaged, or it is not a flash image."
        ) from error
    found = {}
    for folder, _, names in filesystem.walk("/"):
        for name in names:
            full = str(PurePosixPath(folder) / name)
            with filesystem.open(full, "rb") as file:
                found[full] = bytes(file.read())
    return found

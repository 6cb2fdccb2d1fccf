"""Writing: a file comes into being beside its final place, and is moved there when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from flowfn.extras import needed
from flowfn.flows.iterating import FlowIterator
from flowfn.flows.stages import pipe
from flowfn.seeing.progressing import bars, progress
from flowfn.storage.bars import is_hushed
from flowfn.storage.damage import errno_of
from flowfn.storage.endless import finite
from flowfn.storage.files import file_path, is_url
from flowfn.storage.unfinished import aside_of, folder_beside, remove

if sys.platform != "win32":
    import fcntl

_NOT_FOR_THE_ASKING = {
    errno.EACCES,
    errno.EBADF,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
}
"""How systems say that a file or a folder cannot be opened to be synced, or not be synced; nothing is lost by that."""

_UNFINISHED_PATH = re.compile(r"\.part(-[0-9a-f]{8}([/\\]|$)|$|\.json)")
"""In the paths of what is unfinished."""


@contextlib.contextmanager
def written_whole(path: Any, overwrite: bool, who: str, *, folder: bool = False) -> Iterator[str]:
    """The path of a new file (or, with `folder`, of a new empty folder) that becomes `path` when all has gone well.

    It lies in a folder beside the final place (`folder_beside`), is on the disk before it is moved there, and is
    removed if anything is raised. What goes behind a URL is written to a temporary file, and sent when it is whole.
    `who` is the function that writes, as in "write_lmdb".

    Raises:
        FileExistsError: there is something at `path`, and `overwrite` is False.
        FileNotFoundError: the folder in which `path` lies does not exist.
        OSError: what was written does not reach the disk, which may be full, whatever a library says of that; the error
            has the system's number, and names `path`, where there is then nothing, or what was there before.

    >>> from pathlib import Path
    >>> place = Path(tempfile.mkdtemp(), "greeting")
    >>> with written_whole(place, overwrite=False, who="write_text") as beside:
    ...     Path(beside).write_text("hello"), place.exists()
    (5, False)
    >>> place.read_text(), os.listdir(place.parent)
    ('hello', ['greeting'])
    """
    final = file_path(path, who)
    if is_url(final):
        with _sent(final, overwrite, who, folder) as beside:
            yield beside
        return
    above, name = os.path.split(final)
    refuse_existing(final, overwrite, who)
    if not os.path.isdir(above):
        raise FileNotFoundError(f"{who}(): the folder {above!r} does not exist; make it first")
    with _naming(final, who), folder_beside(above) as unfinished:
        beside = os.path.join(unfinished, name)
        if folder:
            os.mkdir(beside)
        yield beside
        into_place(beside, final, overwrite, who)


@contextlib.contextmanager
def _naming(final: str, who: str) -> Iterator[None]:
    """That the system could not write, in an OSError of its number that names the file;
    errors of the flow are its own."""
    try:
        yield
    except Exception as error:
        number = next(filter(None, map(errno_of, [error] if isinstance(error, OSError) else _chain(error))), None)
        of_the_flow = any(hasattr(one, "__flowfn__") for one in _chain(error))
        named = (
            isinstance(error, OSError)
            and error.filename is not None
            and not _UNFINISHED_PATH.search(os.fsdecode(error.filename))
        )
        if number is None or of_the_flow or named:
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else os.strerror(number)
        raise OSError(number, f"{who}() cannot write: {reason}", final) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def refuse_existing(final: str, overwrite: bool, who: str) -> None:
    """Raise an error if there is something at the final place that is not to be replaced."""
    if not overwrite and os.path.lexists(final):
        raise FileExistsError(f"{who}(): {final!r} exists; pass overwrite=True to replace it")


def into_place(beside: str, final: str, overwrite: bool, who: str) -> None:
    """Move a whole file or folder to its final place, once it is on the disk;
    what is there is replaced, if it may be."""
    for folder, _, names in os.walk(beside):
        for name in names:
            _sync(os.path.join(folder, name))
        _sync(folder)
    if not os.path.isdir(beside):
        _sync(beside)
    refuse_existing(final, overwrite, who)  # somebody else may have been at it
    folders = os.path.isdir(beside) or (os.path.isdir(final) and not os.path.islink(final))
    if folders and os.path.lexists(final):  # which cannot be replaced in one step
        aside = aside_of(final)
        os.replace(final, aside)
        try:
            os.replace(beside, final)
        except BaseException:
            os.replace(aside, final)
            raise
        remove(aside)
    else:
        os.replace(beside, final)
    _sync(os.path.dirname(final))


@contextlib.contextmanager
def resumable(path: Any, overwrite: bool, who: str, *, resume: bool) -> Iterator[str]:
    """As `written_whole`; but with `resume` the new file is called `path` + ".part", and stays if anything is raised.

    It is then there for the next call, which goes on with it.

    Raises:
        FileExistsError: there is something at `path`, and `overwrite` is False;
            or somebody else is writing the new file.
        ValueError: what goes behind a URL is to be resumed.
    """
    if not resume:
        with written_whole(path, overwrite, who) as beside:
            yield beside
        return
    final = file_path(path, who)
    if is_url(final):
        raise ValueError(
            f"{who}(): only a local file can be resumed, got {final!r}; write one, and send it when it is whole"
        )
    refuse_existing(final, overwrite, who)
    with _naming(final, who), _alone(f"{final}.part", who):
        yield f"{final}.part"
        into_place(f"{final}.part", final, overwrite, who)


@contextlib.contextmanager
def _alone(path: str, who: str) -> Iterator[None]:
    """Nobody else writes this file meanwhile, where the system can see to it."""
    if sys.platform == "win32":
        yield
        return
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(
                f"{who}(): {path!r} is being written by somebody else; wait until that is done"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


def resumed(datapoints: FlowIterator[Any], note: Any, origin: str, path: str, who: str) -> int:
    """Let a pass go on from what is known of an unfinished file, and say how many of its datapoints are written.

    `origin` is the `identity` of the flow, and of what else makes the file what it is.

    Raises:
        ValueError: it is not what the writer noted, or is of another flow or other functions.
    """
    if isinstance(note, Mapping) and type(note.get("count")) is int and isinstance(note.get("state"), Mapping):
        datapoints.load_state_dict(note["state"])
        if note.get("origin") != origin:
            raise ValueError(
                f"{who}(): {path} was begun with other functions than it would go on with, in the flow or as encode; "
                "go on with those, or remove it, and write anew"
            )
        if datapoints.position == note["count"]:
            return datapoints.position
    raise ValueError(
        f"{who}(): what was noted of how far the unfinished file has come is damaged; remove it, and write anew"
    )


def shown(flow: Any, caption: str, unit: str = "datapoint") -> FlowIterator[Any]:
    """The datapoints of a flow (or of anything that `flowfn.flow` takes), with a bar where tqdm is installed.

    They are those of the flow's next pass, and the flow itself stays as it is. No bar is shown where bars are `hushed`.
    The bar counts in `unit`. Use it in `with`, and before the file is made: it refuses what never ends.

    Raises:
        TypeError, ValueError: it is no source, or an endless one.

    >>> with shown([1, 2], "write_text") as datapoints:
    ...     list(datapoints)
    [1, 2]
    """
    source = finite(flow, caption)
    if is_hushed():
        return source.run()
    try:
        bars()
    except ImportError:
        return source.run()
    return pipe(source, progress(description=caption, unit=unit)).run(seed=source.seed, epoch=source.epoch)


@contextlib.contextmanager
def _sent(url: str, overwrite: bool, who: str, folder: bool) -> Iterator[str]:
    """A temporary file or folder that is sent to a URL when it is whole."""
    system, inside = needed("fsspec.core", f"{who}()", extra="files").url_to_fs(url)
    refusal = f"{who}(): {url!r} exists; pass overwrite=True to replace it"
    if not overwrite and system.exists(inside):
        raise FileExistsError(refusal)
    with _naming(url, who), folder_beside(tempfile.gettempdir()) as temporary:
        beside = os.path.join(temporary, os.path.basename(inside.rstrip("/")) or "written")
        if folder:
            os.mkdir(beside)
        yield beside
        there = system.exists(inside)
        if there and not overwrite:
            raise FileExistsError(refusal)
        if there and (folder or system.isdir(inside)):  # a file is replaced as it is sent, and is there until then
            system.rm(inside, recursive=True)
        try:
            system.put(beside, inside, recursive=folder)
        except BaseException:
            if not there or folder:
                with contextlib.suppress(Exception):  # perhaps nothing has come there
                    system.rm(inside, recursive=folder)
            raise


def _sync(path: str) -> None:
    """Have a file or a folder on the disk.

    Not every system lets this be asked for (Windows not for folders), and then it writes when it likes. But what it has
    tried, and failed to write, is lost: the system may tell that here, once, and never again.

    Raises:
        OSError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FOR_THE_ASKING:
            raise OSError(error.errno, f"it could not be brought to the disk: {error.strerror}", path) from error

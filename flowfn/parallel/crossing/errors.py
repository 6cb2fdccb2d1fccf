"""How errors cross between processes: type, text, all that is written on them,
whatever their classes do when they are pickled.

An error is sent as what it consists of (its class, its `args`, the fields and attributes it has), and put together
again without a call of its class's own code, which may ask for other arguments, leave something out, or never come
back. What it holds that cannot be pickled is stood in for by its repr. An error for which that gives another text goes
the way its class has for it, or else as an error of a class derived from its own that says what it said.
"""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, NoReturn

from flowfn.kinds.failures import mark, marked
from flowfn.kinds.notes import add_note, written
from flowfn.kinds.tallies import Dropped
from flowfn.parallel.crossing.transport import pack_value
from flowfn.showing import brief

_SCALARS = (str, bytes, int, float, complex, bool, type(None))
_HEAP = 1 << 9  # the flag of classes that were made while a program ran
_args: Any = BaseException.__dict__["args"]


class Portable:
    """An error on its way: what unpickles it gets the error. `others` are those on the way with it, by id.

    >>> pickle.loads(pickle.dumps(Portable(KeyError("a"))))
    KeyError('a')
    """

    data = b""

    def __init__(self, error: BaseException, others: dict[int, Portable] | None = None) -> None:
        self.error, self.others, self.words = (
            error,
            {} if others is None else others,
            (type(error).__name__, _error_text(error)),
        )
        self.others[id(error)] = self
        self.data = self._data()

    def __reduce__(self) -> Any:
        return _arrived, (self.data, self.words, _notes(self.error), marked(self.error))

    def _data(self) -> bytes:
        """The first form of the error that is what it was when it is made again; nothing if there is no such."""
        for form, exact in ((self._whole, True), (self._reduced, True), (self._stood_in, True), (self._worded, False)):
            try:
                data = pack_value(form()).data
                again = pickle.loads(data)
                if (type(again) is type(self.error) or not exact) and _error_text(again) == self.words[1]:
                    return data
            except Exception:  # whatever its class does
                continue
        return b""

    def _whole(self) -> _Call:
        """What it consists of, if all of that can travel."""
        return self._consists_of(self._own_way)

    def _reduced(self) -> _Call:
        """What its class makes of it, with what that leaves out."""
        return _Call(_completed, self.error, self._attributes(self._sendable))

    def _stood_in(self) -> _Call:
        """What it consists of, and what cannot travel as what it looks like."""
        return self._consists_of(self._sendable)

    def _worded(self) -> _Call:
        """An error of a class of its own, which says what it said."""
        return _Call(_saying, type(self.error), self.words[1], self._attributes(self._sendable))

    def _consists_of(self, way: Callable[[Any], Any]) -> _Call:
        error = self.error
        args = tuple(map(way, _args.__get__(error)))
        constructor_args = (error.message, self._own_way(error.exceptions)) if _is_group(type(error)) else args  # type: ignore[attr-defined]
        fields = {name: way(value) for name, value in _fields(error).items()}
        return _Call(_rebuilt_error, type(error), constructor_args, args, fields, self._attributes(way))

    def _attributes(self, way: Callable[[Any], Any]) -> dict[str, Any]:
        return {name: way(value) for name, value in written(self.error).items()}

    def _own_way(self, value: Any) -> Any:
        """A value as it is, an error on the way that errors have."""
        if type(value) in (list, tuple):
            return type(value)(map(self._own_way, value))
        if not issubclass(type(value), BaseException):
            return value
        other = self.others.get(id(value)) or Portable(value, self.others)
        return other if other.data else Shown(value)  # it is one of those in which this is found

    def _sendable(self, value: Any) -> Any:
        value = self._own_way(value)
        return value if _pickles(value) else Shown(value)


class Record(Dropped):
    """A failure that can travel: where the datapoint cannot, a description of it does."""

    sent: Portable

    @classmethod
    def of(cls, dropped: Dropped) -> Record:
        """That of what was dropped here."""
        datapoint = dropped.datapoint
        made = cls(dropped.index, dropped.error, datapoint if _pickles(datapoint) else brief(datapoint), dropped.stage)
        made.sent = Portable(dropped.error)
        return made

    def __reduce__(self) -> Any:
        return Dropped, (self.index, self.sent, self.datapoint, self.stage)


class Remote(Exception):
    """The traceback of an error in a worker, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def raise_again(error: BaseException, text: str) -> NoReturn:
    """Raise here what was raised in a worker, with the traceback it had there."""
    if text:
        raise error from Remote(text)
    raise error


class Shown:
    """Stands for something that could not travel, and looks like it."""

    def __init__(self, value: Any) -> None:
        try:
            self.text = repr(value)
        except Exception:  # whatever a user's object does
            self.text = object.__repr__(value)

    def __repr__(self) -> str:
        return self.text


class _Call:
    """A call on its way: what unpickles it gets what comes of the call."""

    def __init__(self, make: Callable[..., BaseException], *arguments: Any) -> None:
        self.made_by = make, arguments

    def __reduce__(self) -> Any:
        return self.made_by


def _arrived(data: bytes, words: tuple[str, str], notes: list[str], where: dict[str, Any] | None) -> BaseException:
    try:
        error: BaseException = pickle.loads(data)
    except Exception:  # its class cannot be had here
        error = RuntimeError(": ".join(words))
        for text in notes:
            add_note(error, text)
        if where is not None:
            mark(error, where)
    return error


def _rebuilt_error(
    kind: type[BaseException],
    constructor_args: tuple[Any, ...],
    args: tuple[Any, ...],
    fields: dict[str, Any],
    attributes: dict[str, Any],
) -> BaseException:
    made = _bare(kind, constructor_args)
    _args.__set__(made, args)
    there, descriptors = _fields(made), _descriptors(kind)
    for name, value in fields.items():
        if name not in there or there[name] is not value:
            descriptors[name].__set__(made, value)
    written(made).update(attributes)
    return made


def _completed(error: BaseException, attributes: dict[str, Any]) -> BaseException:
    for name, value in attributes.items():
        if not isinstance(value, Shown):
            written(error).setdefault(name, value)
    return error


def _saying(kind: type[BaseException], text: str, attributes: dict[str, Any]) -> BaseException:
    namespace = {
        "__str__": lambda self: text,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    kind = types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(namespace))
    made = _bare(kind, (text,))
    _args.__set__(made, (text,))
    written(made).update(attributes)
    return made


def _bare(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An error of a class, made by the nearest of its bases that is part of Python."""
    base = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP and "__new__" in vars(base))
    made: BaseException = vars(base)["__new__"](kind, *args)
    return made


def _is_group(kind: type[BaseException]) -> bool:
    """Whether errors of a class hold others; they are not asked, for they may have their way with that."""
    return issubclass(kind, BaseExceptionGroup)


def _descriptors(kind: type[BaseException]) -> dict[str, Any]:
    """The fields that errors of a class have beside `args` and attributes: slots, and those of Python's own classes."""
    owners = [base for base in reversed(kind.__mro__) if base not in (object, BaseException, BaseExceptionGroup)]
    return {name: field for base in owners for name, field in vars(base).items() if _is_field(name, field)}


def _is_field(name: str, value: Any) -> bool:
    return isinstance(value, (MemberDescriptorType, GetSetDescriptorType)) and name not in ("__dict__", "__weakref__")


def _fields(error: BaseException) -> dict[str, Any]:
    """The fields of an error that are set."""
    values = {}
    for name, field in _descriptors(type(error)).items():
        try:
            values[name] = field.__get__(error)
        except AttributeError:  # it is not set
            continue
    return {name: value for name, value in values.items() if value is not None}


def _notes(error: BaseException) -> list[str]:
    notes = written(error).get("__notes__")
    return [*map(str, notes)] if isinstance(notes, (list, tuple)) else []


def _pickles(value: Any) -> bool:
    if isinstance(value, _SCALARS):
        return True
    try:
        pickle.loads(pack_value(value).data)
    except Exception:  # as above
        return False
    return True


def _error_text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # as above
        return f"<{type(error).__name__} whose text cannot be had>"

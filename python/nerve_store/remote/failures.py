"""What an error of an object store becomes."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from obstore import exceptions

from nerve_store.exceptions import NerveStoreError, StoreIOError, StoreUnavailableError

_REFUSED = re.compile(r"Server returned non-2xx status code: (401|403|404) ")
_OF_KEY = re.compile(r"DeleteObjects request failed.*\(code: (\w+)\)")
"""What the client says of an answer of 200 to a deletion, which tells of an error for one of the keys."""
_REFUSING_CODES = frozenset(
    "AccessDenied AccountProblem AllAccessDisabled ExpiredToken InvalidAccessKeyId InvalidBucketState InvalidRequest "
    "InvalidToken MethodNotAllowed NotImplemented ObjectLocked RequestTimeTooSkewed SignatureDoesNotMatch".split()
)
_DECLINED = re.compile(
    r"Server returned (non-2xx status code: (429|500|503) |error response: .*<Code>(InternalError|SlowDown)</Code>)"
)
_OF_SYSTEM = re.compile(r"\(os error (\d+)\)")
_CLASSES = {"401": exceptions.UnauthenticatedError, "403": exceptions.PermissionDeniedError, "404": FileNotFoundError}
_LONGEST = 300
"""Characters of a server's answer that a message shows."""


class ShortObjectError(Exception):
    """An object ends before the part that was asked for."""


def refusal(number: int, message: str, place: str) -> StoreIOError:
    """A request that will not be answered otherwise by being repeated."""
    error = StoreIOError(number, message, place)
    error.path = place
    return error


def unavailable(error: BaseException, place: str) -> StoreUnavailableError:
    """A request whose outcome is not known, or that had none."""
    result = StoreUnavailableError(f"{place}: the object store gave no answer ({first_line(error)}); try again")
    result.path = place
    return result


def translated(error: Exception, place: str) -> NerveStoreError:
    """The error of ours that says the same."""
    reason = first_line(error)
    match error:
        case exceptions.PermissionDeniedError() | exceptions.UnauthenticatedError():
            return refusal(errno.EACCES, f"{reason}; check the credentials and what they may do", place)
        case NotImplementedError() | exceptions.NotSupportedError():
            return refusal(errno.ENOTSUP, reason, place)
        case FileNotFoundError():
            return refusal(errno.ENOENT, f"{reason}; the bucket or the object is missing", place)
        case exceptions.GenericError():
            # Of a refused listing the client has no other class.
            of_key = _OF_KEY.search(str(error))
            if of_key is not None and of_key[1] in _REFUSING_CODES:
                return translated(exceptions.PermissionDeniedError(reason), place)
            refused = _REFUSED.search(str(error))
            if refused is None:
                return unavailable(error, place)
            return translated(_CLASSES[refused[1]](reason), place)
        case _:
            return refusal(errno.EIO, reason, place)


def is_declined(error: StoreUnavailableError) -> bool:
    """Whether the store answered that it did not do what was asked: nothing of it can arrive late."""
    reason = str(error.__cause__)
    return _OF_KEY.search(reason) is not None or _DECLINED.search(reason) is not None


@contextlib.contextmanager
def told(place: str) -> Iterator[None]:
    """Raise errors of the object store as ours."""
    try:
        yield
    except (exceptions.BaseError, FileNotFoundError, NotImplementedError) as error:
        raise translated(error, place) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of the client's Rust code, and no Exception
            raise unavailable(error, place) from error
        raise


@contextlib.contextmanager
def told_of_files(place: str) -> Iterator[None]:
    """Raise errors of the operating system, of which the client gives no more than the text, as ours."""
    try:
        yield
    except OSError as error:
        number = _OF_SYSTEM.search(str(error))
        raise refusal(int(number[1]) if number else errno.EIO, first_line(error), place) from error


def first_line(error: BaseException) -> str:
    """The first sentence on one line: the rest prints the client's inside."""
    text = " ".join(str(error).split("Debug source:")[0].split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

"""AWS's wire protocols over botocore's service models, for the services implemented here.

A service here is a set of plain objects with one method an operation (``run_task`` answers
``RunTask``). Requests are parsed and validated with the service's model before an operation runs,
as on AWS. Replies are plain mappings in the shape of the model.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from botocore import xform_name
from botocore.loaders import Loader
from botocore.validate import ParamValidator
from moto.core.model import ServiceModel
from moto.core.parse import QueryParser
from moto.core.serialize import QuerySerializer, SerializationContext

Request = dict[str, Any]
Reply = dict[str, Any]
Protocol = Literal["json", "query", "ec2", "s3"]
Answer = tuple[int, str, bytes]  # status, content type, body

JSON = "application/x-amz-json-1.1"
XML = "text/xml"


class ServiceError(Exception):
    """An error as AWS reports it to the caller.

    Parameters
    ----------
    code : str
        The service's error code, such as ``"ClientException"``.
    message : str
        AWS's error message.
    status : int
        The HTTP status: 400, or 5xx for server errors.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def error_answer(protocol: Protocol, error: ServiceError) -> Answer:
    """Format an error for one protocol."""
    if protocol == "json":
        body = json.dumps({"__type": error.code, "message": error.message})
        return error.status, JSON, body.encode()
    code, message = escape(error.code), escape(error.message)
    inner = f"<Code>{code}</Code><Message>{message}</Message>"
    if protocol == "ec2":
        text = f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{uuid.uuid4()}</RequestID></Response>"
    elif protocol == "s3":
        text = f"<Error>{inner}<RequestId>{uuid.uuid4()}</RequestId></Error>"
    else:
        side = "Receiver" if error.status >= 500 else "Sender"
        text = (
            f"<ErrorResponse><Error><Type>{side}</Type>{inner}</Error>"
            f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
        )
    return error.status, XML, text.encode()


def not_implemented(protocol: Protocol, service: str, action: str) -> ServiceError:
    """Return the error for an operation that the embedded AWS does not implement.

    The status is 400, because botocore retries a 500.
    """
    code = "UnknownOperationException" if protocol == "json" else "InvalidAction"
    return ServiceError(code, f"The embedded AWS does not implement {service}:{action}.")


class Service:
    """One AWS service implemented here.

    Parameters
    ----------
    name : str
        botocore's name for the service.
    invalid : str
        The service's error code for input that its model does not allow.
    lock : context manager
        Held while an operation runs.
    parts : object
        Objects whose methods implement the operations.
    """

    def __init__(self, name: str, *parts: object, invalid: str, lock: AbstractContextManager[Any]) -> None:
        self.name = name
        self._model = ServiceModel(Loader().load_service_model(name, "service-2"), name)
        #: Its name in signatures and in IAM, used to route requests.
        self.scope = str(self._model.signing_name)
        self.protocol: Protocol = "json" if self._model.protocol == "json" else "query"
        self._invalid = invalid
        self._lock = lock
        self._handlers = dict(self._find_handlers(parts))

    @property
    def operations(self) -> frozenset[str]:
        """The names of the operations that are implemented."""
        return frozenset(self._handlers)

    def answer(self, action: str, body: bytes) -> Answer:
        """Answer one HTTP request."""
        try:
            return self._reply(action, self._call(action, body))
        except ServiceError as error:
            return error_answer(self.protocol, error)

    def _find_handlers(self, parts: tuple[object, ...]) -> Iterator[tuple[str, Callable[[Request], Reply]]]:
        for operation in self._model.operation_names:
            for part in parts:
                handler = getattr(part, xform_name(operation), None)
                if handler is not None:
                    yield operation, handler

    def _call(self, action: str, body: bytes) -> Reply:
        handler = self._handlers.get(action)
        if handler is None:
            raise not_implemented(self.protocol, self.scope, action)
        request = self._parse(action, body)
        self._validate(action, request)
        with self._lock:
            return handler(request)

    def _parse(self, action: str, body: bytes) -> Request:
        if self.protocol == "query":
            form = dict(parse_qsl(body.decode(), keep_blank_values=True))
            parser = QueryParser(self._model.operation_model(action))
            parsed: Request = parser.parse({"values": form}) or {}
            return parsed
        try:
            document = json.loads(body or b"{}")
        except ValueError as error:
            raise ServiceError("SerializationException", str(error)) from error
        if not isinstance(document, dict):
            raise ServiceError("SerializationException", "The body must be a JSON object.")
        return document

    def _validate(self, action: str, request: Request) -> None:
        shape = self._model.operation_model(action).input_shape
        if shape is None:
            return
        report = ParamValidator().validate(request, shape)
        # AWS ignores unknown members: a client may be newer than this model.
        known = [error for error in report._errors if error[0] != "unknown field"]
        if known:
            report._errors = known
            raise ServiceError(self._invalid, report.generate_report())
        problems = list(_outside_the_model(request, shape, ""))
        if problems:
            count = f"{len(problems)} validation error{'s' * (len(problems) > 1)} detected: "
            raise ServiceError(self._invalid, count + "; ".join(problems))

    def _reply(self, action: str, reply: Mapping[str, Any]) -> Answer:
        if self.protocol == "json":
            return 200, JSON, json.dumps(reply).encode()
        operation = self._model.operation_model(action)
        context = SerializationContext(str(uuid.uuid4()))
        response = QuerySerializer(operation, context).serialize(reply)
        return 200, XML, response["body"].encode()


def _outside_the_model(value: Any, shape: Any, path: str) -> Iterator[str]:
    """Yield violations that botocore's validator does not check: enumerations, maximum lengths."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _outside_the_model(value[name], member, f"{path}.{name}".lstrip("."))
    elif shape.type_name == "list":
        yield from _too_long(value, shape, path)
        for index, item in enumerate(value, start=1):
            yield from _outside_the_model(item, shape.member, f"{path}.{index}.member")
    elif shape.type_name == "string":
        yield from _too_long(value, shape, path)
        if getattr(shape, "enum", None) and value not in shape.enum:
            allowed = f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
            yield f"Value '{value}' at '{path}' failed to satisfy constraint: {allowed}"


def _too_long(value: Any, shape: Any, path: str) -> Iterator[str]:
    most = shape.metadata.get("max")
    if most is not None and len(value) > most:
        limit = f"Member must have length less than or equal to {most}"
        yield f"Value at '{path}' failed to satisfy constraint: {limit}"


def page(keys: list[str], token: str | None, size: int, invalid: str) -> tuple[list[str], str | None]:
    """Return one page of a listing.

    Parameters
    ----------
    keys : list of str
        Every key, in a stable order.
    token : str, optional
        The token of the previous page.
    size : int
        The page size.
    invalid : str
        The error code for an unknown token.

    Returns
    -------
    tuple of list of str and str or None
        The keys of this page, and the token for the next.
    """
    start = 0
    if token is not None:
        try:
            start = int(bytes.fromhex(token).decode())
        except ValueError as error:
            raise ServiceError(invalid, "Invalid token.") from error
    end = start + size
    return keys[start:end], str(end).encode().hex() if end < len(keys) else None

"""Parse the parameters of calls of any service, for the rules."""

from __future__ import annotations

import json
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from botocore.loaders import Loader
from moto.core.model import ServiceModel
from moto.core.parse import EC2QueryParser, QueryParser

from dask_starburst.local.http.protocols import Protocol, Request


def parameters(service: str, action: str, protocol: Protocol, body: bytes, path: str) -> Request:
    """Return the parameters of a call as botocore names them; empty if they cannot be parsed.

    The service then refuses the call in its own words, and a rule that misses a parameter denies it.
    """
    if protocol == "s3":
        return {"path": path}
    if protocol == "json":
        return _json(body)
    operation = _model(service).operation_model(action)
    parser = (EC2QueryParser if protocol == "ec2" else QueryParser)(operation)
    form = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    parsed: Request = parser.parse({"values": form}) or {}
    return parsed


def _json(body: bytes) -> Request:
    try:
        document: Any = json.loads(body or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


@cache
def _model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)

"""What of the client's Dask configuration goes to the workers."""

from __future__ import annotations

import pytest

from dask_starburst.plan.requests.dask_config import to_send

DEFAULTS = {
    "temporary-directory": None,
    "tokenize": {"ensure-deterministic": False},
    "distributed": {
        "scheduler": {"allowed-failures": 3, "worker-saturation": 1.1},
        "comm": {"tls": {"ca-file": None}, "timeouts": {"connect": "30s"}},
    },
}


def changed(**scheduler: object) -> dict[str, object]:
    return {**DEFAULTS, "distributed": {**DEFAULTS["distributed"], "scheduler": scheduler}}  # type: ignore[dict-item]  # a mapping


def test_only_what_differs_from_the_defaults_is_sent():
    config = changed(**{"allowed-failures": 7, "worker-saturation": 1.1})
    assert to_send(config, DEFAULTS).config == {"distributed": {"scheduler": {"allowed-failures": 7}}}
    assert to_send(DEFAULTS, DEFAULTS).config == {}


def test_both_ways_of_writing_a_name_are_the_same_setting():
    assert to_send(changed(allowed_failures=3, worker_saturation=2.0), DEFAULTS).config == {
        "distributed": {"scheduler": {"worker-saturation": 2.0}}
    }


@pytest.mark.parametrize(
    "config",
    [
        {"temporary-directory": "/home/me/tmp"},
        {"starburst": {"region": "us-east-1"}},
        {"scheduler": "threads"},
        {"scheduler-address": "tcp://10.0.0.1:8786"},
        {"distributed": {"comm": {"tls": {"ca-file": "/home/me/ca.pem"}}}},
    ],
)
def test_what_is_the_clients_own_is_not_sent(config: dict[str, object]):
    sent = to_send(config, DEFAULTS)
    assert (sent.config, sent.left_out) == ({}, {})


@pytest.mark.parametrize("name", ["password", "api-key", "api_key", "auth-token", "aws-secret", "access-key", "passwd"])
def test_a_name_that_looks_like_a_secret_is_left_out_and_named(name: str):
    sent = to_send({"my": {name: "x", "size": 3}}, DEFAULTS)
    assert sent.config == {"my": {"size": 3}}
    assert list(sent.left_out.values()) == ["its name looks like that of a secret"]


def test_a_value_that_is_not_json_is_left_out_and_named():
    sent = to_send({"my": {"function": len, "list": [1, {"a": 2}], "tokenize": True, "keyboard": "de"}}, DEFAULTS)
    assert sent.config == {"my": {"list": [1, {"a": 2}], "tokenize": True, "keyboard": "de"}}
    assert sent.left_out == {"my.function": "builtin_function_or_method is not a JSON value"}

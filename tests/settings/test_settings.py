"""Settings: the same names everywhere, and a clear error for every invalid value."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import dask.config
import jsonschema
import pytest
import yaml
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from dask_starburst import StarburstCluster, estimate, quote
from dask_starburst.errors import BadArgument
from dask_starburst.settings import KeepSettings, Settings, WorkerShape
from dask_starburst.settings.declare import declared, group, groups_by_name, setting
from dask_starburst.settings.quantities import Whole
from dask_starburst.settings.reading import build
from tools.settings_files import files

#: A mapping of the user's own keys, so nothing below it is a setting.
FREE = {"tags"}


def packaged(name: str) -> Any:
    return yaml.safe_load(resources.files("dask_starburst").joinpath(name).read_text())


DEFAULTS = packaged("starburst.yaml")
SCHEMA = packaged("starburst-schema.yaml")


def refusal(**arguments: Any) -> str:
    with pytest.raises(BadArgument) as caught:
        Settings.load(**arguments)
    return str(caught.value)


def is_one_sentence(text: str) -> bool:
    """Say what is wrong and what to do, in one breath; a second one may only offer a guess or the way out."""
    return bool(re.fullmatch(r"\S.*[.?]", text)) and len(re.findall(r"[.?](?: |$)", text)) <= 2


# -- one list of names ----------------------------------------------------------------------------


def keys_of_defaults(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, Mapping) and key not in FREE:
            yield from keys_of_defaults(value, f"{prefix}{key}.")


def keys_of_schema(schema: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, below in schema.get("properties", {}).items():
        yield prefix + key
        yield from keys_of_schema(below, f"{prefix}{key}.")


def keys_of_settings(settings: object, prefix: str = "") -> Iterator[str]:
    assert is_dataclass(settings)
    for each in fields(settings):
        key, value = prefix + each.name.replace("_", "-"), getattr(settings, each.name)
        yield key
        if is_dataclass(value):
            yield from keys_of_settings(value, f"{key}.")


ALL_KEYS = set(keys_of_defaults(DEFAULTS["starburst"]))


def test_the_schema_is_a_schema_and_the_defaults_follow_it():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(DEFAULTS, SCHEMA, jsonschema.Draft7Validator)


def test_yaml_schema_and_settings_have_the_same_keys_at_every_level():
    assert set(keys_of_schema(SCHEMA["properties"]["starburst"])) == ALL_KEYS
    assert set(keys_of_settings(Settings())) == ALL_KEYS


@pytest.mark.parametrize("function", [StarburstCluster, quote, estimate])
def test_the_signature_shows_every_setting_as_a_keyword_argument(function: Any):
    parameters = inspect.signature(function).parameters
    assert {key.replace("-", "_") for key in DEFAULTS["starburst"]} <= set(parameters)
    assert all(
        parameters[key.replace("-", "_")].kind is inspect.Parameter.KEYWORD_ONLY for key in DEFAULTS["starburst"]
    )
    assert not [p for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]


@pytest.mark.parametrize("jedi", [True, False])
@pytest.mark.parametrize("code", ["StarburstCluster(wor", "quote(n_workers=2, wor", "estimate(len, [], 3, wor"])
def test_ipython_completes_the_name_of_a_setting(code: str, jedi: bool):
    shell = InteractiveShell.instance()
    shell.user_ns |= {"StarburstCluster": StarburstCluster, "quote": quote, "estimate": estimate}
    shell.Completer.use_jedi = jedi
    with provisionalcompleter():
        assert "worker=" in [each.text for each in shell.Completer.completions(code, len(code))]


def test_the_arguments_of_dask_end_the_signature_of_the_cluster():
    assert list(inspect.signature(StarburstCluster).parameters)[-3:] == ["asynchronous", "loop", "shutdown_on_close"]


@pytest.mark.parametrize(("path", "text"), files().items(), ids=lambda value: getattr(value, "name", ""))
def test_the_file_is_made_of_the_declared_settings(path: Path, text: str):
    assert path.read_text(encoding="utf-8") == text, "run python -m tools.settings_files"


@pytest.mark.parametrize(
    "cls", [Settings, *(type(value) for value in vars(Settings()).values() if is_dataclass(value))]
)
def test_none_is_valid_where_the_declaration_says_what_it_means(cls: type[Any]):
    for field in fields(cls):
        assert bool(declared(cls)[field.name].null) == ("None" in str(field.type) or field.type == "Any"), field.name


def schemas(schema: Mapping[str, Any], name: str = "starburst") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield name, schema
    for key, below in schema.get("properties", {}).items():
        yield from schemas(below, f"{name}.{key}")


@pytest.mark.parametrize(("name", "schema"), list(schemas(SCHEMA["properties"]["starburst"])))
def test_every_key_has_a_title_and_a_description(name: str, schema: Mapping[str, Any]):
    assert schema["title"].strip()
    assert schema["description"].strip().endswith(".")
    if "properties" in schema:
        assert schema["additionalProperties"] is False  # a slip of the pen is found


@pytest.mark.parametrize("argument", sorted(key.replace("-", "_") for key in DEFAULTS["starburst"]))
def test_every_argument_is_documented_at_the_cluster(argument: str):
    documentation = inspect.getdoc(StarburstCluster) or ""  # without the indentation, which Python 3.13 took away
    assert re.search(rf"^(\w+, )*{argument}(, \w+)* : ", documentation, re.M)


def test_the_defaults_in_code_are_the_defaults_of_the_yaml():
    with dask.config.set({"starburst": DEFAULTS["starburst"]}):
        assert Settings.load() == Settings()


# -- where values come from -----------------------------------------------------------------------


@pytest.mark.parametrize("clear", [dict.clear, lambda config: config.pop("starburst")])
def test_a_cleared_configuration_falls_back_to_the_defaults(clear: Any):
    kept = dict(dask.config.config)
    try:
        clear(dask.config.config)
        assert Settings.load() == Settings()
        assert Settings.load(n_workers=3).n_workers == 3
        dask.config.refresh()
        assert Settings.load(arch="x86_64").arch == "x86_64"
    finally:
        dask.config.config.clear()
        dask.config.config.update(kept)


def test_an_argument_goes_over_the_configuration_and_the_rest_stays():
    with dask.config.set(
        {"starburst.arch": "x86_64", "starburst.worker.nthreads": 2, "starburst.keep.lease": "1 hour"}
    ):
        settings = Settings.load(arch="arm64", worker={"memory_limit": "2 GiB"})
    assert (settings.arch, settings.keep.lease) == ("arm64", 3600.0)
    assert settings.worker == WorkerShape(2, 2 * 2**30)


@pytest.mark.parametrize("key", ["memory-limit", "memory_limit"])
def test_a_hyphen_is_as_good_as_an_underscore(key: str):
    given: dict[str, Any] = {"worker": {key: "1 GiB"}}
    assert Settings.load(**given).worker.memory_limit == 2**30


def test_a_group_may_be_given_as_its_value():
    assert Settings.load(worker=WorkerShape(nthreads=3)).worker.nthreads == 3


@pytest.mark.parametrize(("given", "seconds"), [("20 minutes", 1200.0), ("1h", 3600.0), (90, 90.0), (90.5, 90.5)])
def test_durations_are_numbers_of_seconds_or_text(given: Any, seconds: float):
    assert Settings.load(keep={"lease": given}).keep.lease == seconds


def test_one_instance_type_is_a_list_of_one():
    assert Settings.load(instance_types="c7g.large").instance_types == ("c7g.large",)
    assert Settings.load(instance_types=["c7g.large", "c7g.xlarge"]).instance_types == ("c7g.large", "c7g.xlarge")


def test_one_debian_package_is_a_list_of_one():
    chosen = Settings.load(
        build={"builder": "buildx", "apt": "gdal-bin=3.6.2+dfsg-1", "dockerfile": "worker/Dockerfile"}
    )
    assert (chosen.build.apt, chosen.build.dockerfile) == (("gdal-bin=3.6.2+dfsg-1",), "worker/Dockerfile")


def test_tags_are_text_and_replace_those_of_the_configuration():
    with dask.config.set({"starburst.tags": {"team": "x"}}):
        given: dict[str, Any] = {"tags": {"cost-center": 7}}
        assert Settings.load(**given).tags == {"cost-center": "7"}


# -- values that cannot work ----------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    # what is given, what the sentence has to hold: the value, and what to type
    ({"cloud": "locl"}, ("cloud='locl'", "Did you mean 'local'?")),
    ({"cloud": "gcp"}, ("cloud='gcp'", "give one of 'local'")),
    ({"arch": "arm46"}, ("arch='arm46'", "'arm64', 'x86_64'", "Did you mean 'arm64'?")),
    ({"arch": "amd64"}, ("arch='amd64'", "give one of 'arm64', 'x86_64'")),
    ({"spot": {"policy": "ondemand"}}, ("spot.policy='ondemand'", "Did you mean 'on-demand'?")),
    ({"n_workers": -1}, ("n_workers=-1", "give 0 or more")),
    ({"n_workers": 2.5}, ("n_workers=2.5", "whole number")),
    ({"n_workers": "many"}, ("n_workers='many'", "whole number")),
    ({"n_workers": True}, ("n_workers=True", "whole number")),
    ({"n_workers": 501}, ("n_workers=501", "max_workers=501")),
    ({"max_workers": 3, "n_workers": 4, "adaptive": {"maximum": 3}}, ("n_workers=4", "max_workers=4")),
    ({"adaptive": {"maximum": 501}}, ("adaptive.maximum=501", "max_workers=501")),
    ({"adaptive": {"minimum": -2}}, ("adaptive.minimum=-2", "give 0 or more")),
    ({"adaptive": {"minimum": 5, "maximum": 2}}, ("adaptive.minimum=5", "adaptive.maximum=2", "swap")),
    ({"worker": {"nthreads": 0}}, ("worker.nthreads=0", "above zero")),
    ({"worker": {"nthreads": "four"}}, ("worker.nthreads='four'", "whole number")),
    ({"worker": {"memory_limit": "plenty"}}, ("worker.memory_limit='plenty'", "'8 GiB'")),
    ({"worker": {"memory_limit": -1}}, ("worker.memory_limit=-1", "above zero")),
    ({"worker": {"memory": "8 GiB"}}, ("worker.memory is not a setting", "did you mean worker.memory_limit?")),
    ({"worker": 4}, ("worker=4", "mapping")),
    ({"scheduler": {"prt": 1}}, ("scheduler.prt is not a setting", "did you mean scheduler.port?")),
    ({"storage": {"volume_size": 4}}, ("storage.volume_size=4", "30 to 16384")),
    ({"storage": {"volume_size": 20_000}}, ("storage.volume_size=20000", "30 to 16384")),
    ({"keep": {"lease": 30}}, ("keep.lease=30", "at least 60 s")),
    ({"keep": {"lease": "soon"}}, ("keep.lease='soon'", "'20 minutes'")),
    ({"keep": {"warm_timeout": -1}}, ("keep.warm_timeout=-1", "'20 minutes'")),
    ({"stopped": 1}, ("stopped is not a setting anymore", "give keep={'warm'")),
    ({"keep": {"idle_timeout": 0}}, ("keep.idle_timeout=0", "null means never")),
    ({"keep": {"no_client_timeout": 0}}, ("keep.no_client_timeout=0", "null means never")),
    ({"timeouts": {"capacity": "later"}}, ("timeouts.capacity='later'", "'20 minutes'")),
    ({"timeouts": {"conect": 3}}, ("timeouts.conect is not a setting", "did you mean timeouts.connect?")),
    ({"network": {"caller": "0.0.0.0/0"}}, ("network.caller='0.0.0.0/0'", "'203.0.113.7/32'")),
    ({"network": {"caller": "::/0"}}, ("network.caller='::/0'", "'203.0.113.7/32'")),
    ({"network": {"caller": "me"}}, ("network.caller='me'", "'203.0.113.7/32'")),
    ({"security": False}, ("security=False", "Leave security out")),
    ({"build": {"builder": "docker"}}, ("build.builder='docker'", "'direct', 'buildx'")),
    (
        {"build": {"dockerfile": "Dockerfile"}},
        ("build.dockerfile='Dockerfile'", "'builder': 'buildx'", "--builder buildx"),
    ),
    ({"build": {"apt": "libgeos-c1v5"}}, ("build.apt=['libgeos-c1v5']", "build={'builder': 'buildx', 'apt':")),
    ({"build": {"apt": ["gcc; reboot"]}}, ("build.apt='gcc; reboot'", "Debian package", "'libgeos-c1v5'")),
    ({"build": {"builder": "buildx", "apt": ["gcc-"]}}, ("build.apt='gcc-'", "Debian package")),
]


@pytest.mark.parametrize(("given", "holds"), BAD, ids=[str(given) for given, _ in BAD])
def test_an_invalid_value_is_an_error_with_the_value_and_a_valid_one(given: dict[str, Any], holds: tuple[str, ...]):
    text = refusal(**given)
    assert all(part in text for part in holds), text
    assert is_one_sentence(text), text
    # The configuration is checked as the arguments are.
    with dask.config.set({f"starburst.{key}": value for key, value in given.items()}):
        assert refusal() == text


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        ({"max_workers": -1}, "-1"),
        ({"timeouts": {"capacity": -5}}, "timeouts.capacity=-5"),
        ({"timeouts": {"poll": 0}}, "timeouts.poll=0"),
        ({"timeouts": {"capacity": None}}, "timeouts.capacity=None"),
        ({"adaptive": {"interval": -1}}, "adaptive.interval=-1"),
        ({"adaptive": {"scale_down_after": -1}}, "adaptive.scale_down_after=-1"),
        ({"tags": "team"}, "tags='team'"),
        ({"tags": 5}, "tags=5"),
        ({"instance_types": 5}, "instance_types=5"),
        ({"scheduler": {"port": 70_000}}, "scheduler.port=70000"),
        ({"scheduler": {"port": 0}}, "scheduler.port=0"),
        ({"scheduler": {"dashboard_port": -1}}, "scheduler.dashboard_port=-1"),
        ({"storage": {"log_retention": 13}}, "storage.log_retention=13"),
        ({"quiet": "yes"}, "quiet='yes'"),
        ({"image": 5}, "image=5"),
        ({"name": ["a"]}, "name=['a']"),
        ({"network": {"caller": 5}}, "network.caller=5"),
    ],
    ids=str,
)
def test_the_settings_refuse_what_the_schema_forbids(given: dict[str, Any], holds: str):
    text = refusal(**given)
    assert holds in text
    assert is_one_sentence(text), text
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"starburst": _hyphens(given)}, SCHEMA)


def _hyphens(values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments as keys of the configuration."""
    return {
        key.replace("_", "-"): _hyphens(value) if isinstance(value, dict) else value for key, value in values.items()
    }


def test_an_unknown_setting_in_the_configuration_is_named():
    with dask.config.set({"starburst.instance-type": "c7g.large"}):
        assert refusal() == "instance_type is not a setting; did you mean instance_types?"


# -- old names ------------------------------------------------------------------------------------

#: Each old name with a value, and how it is typed now.
OLD: list[tuple[str, Any, str]] = [
    ("spot_policy", "on-demand", "spot={'policy': 'on-demand'}"),
    ("spot_notices", False, "spot={'notices': False}"),
    ("on_rebalance", "ignore", "spot={'on_rebalance': 'ignore'}"),
    ("max_hourly_cost", 2.5, "money={'max_hourly_cost': 2.5}"),
    ("max_total_cost", 20.0, "money={'max_total_cost': 20.0}"),
    ("cost_alert_threshold", 1.0, "money={'cost_alert_threshold': 1.0}"),
    ("idle_timeout", None, "keep={'idle_timeout': None}"),
    ("no_client_timeout", "1 hour", "keep={'no_client_timeout': '1 hour'}"),
    ("warm", 3, "keep={'warm': 3}"),
    ("warm_timeout", "10 minutes", "keep={'warm_timeout': '10 minutes'}"),
    ("lease", "1 hour", "keep={'lease': '1 hour'}"),
    ("ecr_image_ttl_days", 5, "build={'image_ttl_days': 5}"),
]


@pytest.mark.parametrize(("old", "value", "now"), OLD, ids=[old for old, _, _ in OLD])
def test_an_old_name_works_with_one_warning_that_shows_the_new_one(old: str, value: Any, now: str):
    with pytest.warns(FutureWarning, match=f"{old} has moved; give {re.escape(now)} instead") as caught:
        settings = Settings.load(**{old: value})
    assert [warning.filename for warning in caught] == [__file__]
    assert settings == Settings.load(**eval(f"dict({now})"))  # what the warning says, typed
    assert settings != Settings.load()


@pytest.mark.parametrize(("old", "value", "now"), OLD, ids=[old for old, _, _ in OLD])
def test_an_old_name_works_in_the_configuration_with_one_warning(old: str, value: Any, now: str):
    group, key = re.findall(r"^(\w+)={'(\w+)'", now)[0]
    path = f"starburst.{group}.{key}".replace("_", "-")
    with (
        dask.config.set({f"starburst.{old.replace('_', '-')}": value}),
        pytest.warns(FutureWarning, match=f"has moved; give {path} instead") as caught,
    ):
        settings = Settings.load()
    assert len(caught) == 1
    assert settings == Settings.load(**eval(f"dict({now})"))


def test_several_old_names_are_one_warning():
    given: dict[str, Any] = {"idle_timeout": 60, "warm": 2, "spot_policy": "on-demand"}
    with pytest.warns(FutureWarning) as caught:
        quote(cloud="local", region="us-east-1", **given)
    assert [warning.filename for warning in caught if warning.category is FutureWarning] == [__file__]
    text = str(caught[0].message)
    assert "spot={'policy': 'on-demand'}, keep={'idle_timeout': 60, 'warm': 2}" in text


def test_a_setting_that_is_given_by_both_names_needs_one_value():
    text = refusal(idle_timeout=60, keep={"idle-timeout": 90})
    assert text == "idle_timeout=60 and keep={'idle_timeout': 90} are the same setting; give only the second."
    with dask.config.set({"starburst.idle-timeout": 60, "starburst.keep.idle-timeout": 90}):
        assert refusal() == text
    given: dict[str, Any] = {"idle_timeout": 60, "keep": {"idle_timeout": 60, "warm": 1}}
    with pytest.warns(FutureWarning):
        assert Settings.load(**given).keep == KeepSettings(idle_timeout=60.0, warm=1)


def test_an_argument_goes_over_an_old_name_in_the_configuration():
    with dask.config.set({"starburst.idle-timeout": 60}), pytest.warns(FutureWarning):
        assert Settings.load(keep={"idle_timeout": 90}).keep.idle_timeout == 90.0


# -- groups with names of the user's own ----------------------------------------------------------


@dataclass(frozen=True)
class Shelf:
    """A shelf of a library."""

    books: int = setting(3, Whole(), "The number of books.")
    worker: WorkerShape = group(WorkerShape, "{'nthreads': 4}")


@dataclass(frozen=True)
class Library:
    """Shelves by name."""

    shelves: Mapping[str, Shelf] = groups_by_name(Shelf, "{'books': 9}", "The shelves.")


def test_a_setting_may_be_a_mapping_of_names_to_groups():
    library = build(Library, {"shelves": {"tall-one": {"books": 9, "worker": {"memory-limit": "1 GiB"}}, "low": {}}})
    assert library.shelves == {"tall-one": Shelf(9, WorkerShape(None, 2**30)), "low": Shelf()}


@pytest.mark.parametrize(
    ("shelves", "holds"),
    [
        (4, "shelves=4 must be a mapping of its settings, such as {'big': {'books': 9}}"),
        ({"tall": 4}, "shelves.tall=4 must be a mapping of its settings, such as {'books': 9}"),
        ({"tall": {"books": -1}}, "shelves.tall.books=-1 is negative"),
        ({"tall": {"boks": 1}}, "shelves.tall.boks is not a setting; did you mean shelves.tall.books?"),
    ],
)
def test_an_invalid_value_below_a_name_is_an_error_with_its_path(shelves: Any, holds: str):
    with pytest.raises(BadArgument, match=re.escape(holds)):
        build(Library, {"shelves": shelves})

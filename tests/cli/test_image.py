"""``starburst image``, as a shell runs it, on the embedded ECR."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from dask_starburst.cli import main
from dask_starburst.local import LocalAWS
from tests.support.ecr_repository import Hub

DAY = 86_400.0
FIRST, SECOND = "0123456789abcdef" * 2, "fedcba9876543210" * 2
ONE, TWO = FIRST[:12], SECOND[:12]


@pytest.fixture(autouse=True)
def _environment(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def hub(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub(aws, f"starburst/{uuid.uuid4().hex[:8]}", mutability="IMMUTABLE")
    made.expire({"tagStatus": "untagged", "countNumber": 1}, {"tagStatus": "any", "countNumber": 30})
    yield made
    made.ecr.delete_repository(repositoryName=made.name, force=True)


def image(hub: Hub, *words: str, code: int = 0, answer: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["image", *words, "--repository", hub.name], input=answer)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def row(output: str, name: str) -> list[str]:
    """Return the cells of the row of a table that begins so."""
    (found,) = [line for line in output.splitlines() if re.match(rf"│ {name}\s", line)]
    return [cell.strip() for cell in found.strip("│").split("│")]


def use(hub: Hub, reference: str) -> str:
    """Let a pool's task definition name an image, and return the pool."""
    pool = f"starburst-{uuid.uuid4().hex[:8]}-0"
    hub.aws.client("ecs").register_task_definition(
        family=f"{pool}-worker",
        containerDefinitions=[{"name": "worker", "image": reference, "memory": 64, "command": ["true"]}],
    )
    return pool


def test_the_list_shows_age_end_size_platforms_users_and_cost(hub: Hub) -> None:
    hub.push_index(FIRST)
    hub.aws.advance(10 * DAY)
    hub.login()
    digest = hub.push_index(SECOND)
    pool = use(hub, f"{hub.host}/{hub.name}@{digest}")
    shown = image(hub, "list").output
    name, age, end, size, platforms, users, cost = row(shown, ONE)
    assert (name, age, end, platforms, users) == (ONE, "10 days", "in 19 days", "amd64, arm64", "–")
    assert re.fullmatch(r"0\.\d kB", size)
    assert cost == "$0.0000"
    assert row(shown, TWO)[5] == pool
    assert "a month at $0.10 for a GB" in shown


def test_without_images_there_is_nothing_to_show(hub: Hub) -> None:
    assert f"No images in {hub.name}." in image(hub, "list").output


def test_a_repository_that_is_not_there_has_no_images() -> None:
    result = CliRunner().invoke(main, ["image", "list", "--repository", "no/such"])
    assert (result.exit_code, result.output) == (0, "No images in no/such.\n")


def test_inspect_shows_annotations_and_the_compressed_size_of_each_layer_by_platform(hub: Hub) -> None:
    digest = hub.push_index(FIRST, note="a remark")
    by_tag = image(hub, "inspect", FIRST).output
    for text in (digest, "a remark", "linux/amd64", "linux/arm64", "together"):
        assert text in by_tag
    assert by_tag.count("sha256:") == 1 + 2 * 2
    for name in (ONE, FIRST[:4], digest):
        assert image(hub, "inspect", name).output == by_tag


def test_an_unknown_or_ambiguous_name_is_one_sentence(hub: Hub) -> None:
    hub.push_index("ab1")
    hub.push_index("ab2")
    assert "has no image 'nope'; `starburst image list` shows" in image(hub, "inspect", "nope", code=1).output
    refused = image(hub, "inspect", "ab", code=1).output
    assert "ab1" in refused
    assert "ab2" in refused


def test_a_beginning_of_a_tag_means_the_newest_image_of_the_recipe(hub: Hub) -> None:
    hub.push_index(FIRST)
    hub.aws.advance(5)
    image(hub, "refresh", FIRST)
    assert "io.dask-starburst.refreshed" in image(hub, "inspect", FIRST[:6]).output
    assert "io.dask-starburst.refreshed" not in image(hub, "inspect", FIRST).output


def test_prune_asks_first_and_deletes_only_what_nothing_uses(hub: Hub) -> None:
    used = hub.push_index(FIRST)
    use(hub, f"{hub.host}/{hub.name}@{used}")
    hub.push_index(SECOND)
    hub.aws.advance(2 * DAY)
    before = hub.details()
    asked = image(hub, "prune", "--keep", "0", code=1, answer="n\n").output
    assert row(asked, TWO)[3] == "nothing uses it"
    assert ONE not in asked
    assert hub.details() == before, "nothing happens without an answer"
    assert "Deleted 1 image." in image(hub, "prune", "--keep", "0", "--yes").output
    assert hub.tags() == {FIRST}
    assert len(hub.details()) == 3
    assert "Nothing to prune." in image(hub, "prune", "--keep", "0", "--yes").output


def test_prune_leaves_the_newest_recipe_and_what_was_just_pushed(hub: Hub) -> None:
    hub.push_index(FIRST)
    hub.aws.advance(2 * DAY)
    assert "Nothing to prune." in image(hub, "prune", "--yes").output
    hub.login()
    hub.push_index(SECOND)
    assert "Nothing to prune." in image(hub, "prune", "--keep", "2", "--yes").output
    assert "Deleted 1 image." in image(hub, "prune", "--yes").output
    assert hub.tags() == {SECOND}


def test_what_ecr_does_not_delete_is_told_and_the_exit_code_says_so(hub: Hub) -> None:
    hub.push_index(FIRST)
    hub.aws.advance(2 * DAY)
    hub.aws.inject("ecr:BatchDeleteImage", "AccessDeniedException", "no", status=400)
    refused = image(hub, "prune", "--keep", "0", "--yes", code=1)
    assert "ecr:BatchDeleteImage" in refused.output
    assert len(hub.details()) == 3


def test_a_refreshed_image_holds_again_for_all_its_days(hub: Hub) -> None:
    hub.push_index(FIRST)
    hub.aws.advance(29 * DAY)
    assert row(image(hub, "list").output, ONE)[2] == "in 23 hours"
    said = image(hub, "refresh", ONE).output
    assert re.fullmatch(rf"{ONE}-r\d{{14}} is {ONE} pushed again; it expires in (29|30) days\.\n", said)
    hub.aws.advance(3 * DAY)
    shown = image(hub, "list").output
    end = row(shown, rf"{ONE}-r\d+")[2]
    assert end == "in 26 days"
    assert len([line for line in shown.splitlines() if ONE in line]) == 1, "the first one is gone"
    assert len(hub.details()) == 3


def test_a_part_of_an_image_is_not_refreshed_alone(hub: Hub) -> None:
    index = hub.push_index(FIRST)
    part = next(digest for digest in hub.details() if digest != index)
    assert "is part of an image" in image(hub, "refresh", part, code=1).output

"""The command ``starburst image`` with the embedded ECR."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from dask_starburst.cli import main
from dask_starburst.local import LocalAWS
from tests.support.ecr_repository import EcrRepository

DAY = 86_400.0
FIRST, SECOND = "0123456789abcdef" * 2, "fedcba9876543210" * 2
ONE, TWO = FIRST[:12], SECOND[:12]


@pytest.fixture(autouse=True)
def _environment(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def repository(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> Iterator[EcrRepository]:
    made = EcrRepository(aws, f"starburst/{uuid.uuid4().hex[:8]}", mutability="IMMUTABLE")
    made.expire({"tagStatus": "untagged", "countNumber": 1}, {"tagStatus": "any", "countNumber": 30})
    yield made
    made.ecr.delete_repository(repositoryName=made.name, force=True)


def image(repository: EcrRepository, *words: str, code: int = 0, answer: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["image", *words, "--repository", repository.name], input=answer)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def row(output: str, name: str) -> list[str]:
    """Return the cells of a table's row by its first cell."""
    (found,) = [line for line in output.splitlines() if re.match(rf"│ {name}\s", line)]
    return [cell.strip() for cell in found.strip("│").split("│")]


def use(repository: EcrRepository, reference: str) -> str:
    """Register a pool's task definition with an image, and return the pool."""
    pool = f"starburst-{uuid.uuid4().hex[:8]}-0"
    repository.aws.client("ecs").register_task_definition(
        family=f"{pool}-worker",
        containerDefinitions=[{"name": "worker", "image": reference, "memory": 64, "command": ["true"]}],
    )
    return pool


def test_the_list_shows_age_expiry_size_platforms_users_and_cost(repository: EcrRepository) -> None:
    repository.push_index(FIRST)
    repository.aws.advance(10 * DAY)
    repository.login()
    digest = repository.push_index(SECOND)
    pool = use(repository, f"{repository.host}/{repository.name}@{digest}")
    shown = image(repository, "list").output
    name, age, end, size, platforms, users, cost = row(shown, ONE)
    assert (name, age, end, platforms, users) == (ONE, "10 days", "in 19 days", "amd64, arm64", "–")
    assert re.fullmatch(r"0\.\d kB", size)
    assert cost == "$0.0000"
    assert row(shown, TWO)[5] == pool
    assert "a month at $0.10 per GB" in shown


def test_an_empty_repository_lists_no_images(repository: EcrRepository) -> None:
    assert f"No images in {repository.name}." in image(repository, "list").output


def test_a_missing_repository_lists_no_images() -> None:
    result = CliRunner().invoke(main, ["image", "list", "--repository", "no/such"])
    assert (result.exit_code, result.output) == (0, "No images in no/such.\n")


def test_inspect_shows_annotations_and_the_compressed_size_of_each_layer_by_platform(repository: EcrRepository) -> None:
    digest = repository.push_index(FIRST, note="a remark")
    by_tag = image(repository, "inspect", FIRST).output
    for text in (digest, "a remark", "linux/amd64", "linux/arm64", "total"):
        assert text in by_tag
    assert by_tag.count("sha256:") == 1 + 2 * 2
    for name in (ONE, FIRST[:4], digest):
        assert image(repository, "inspect", name).output == by_tag


def test_an_unknown_or_ambiguous_tag_is_an_error(repository: EcrRepository) -> None:
    repository.push_index("ab1")
    repository.push_index("ab2")
    assert "has no image 'nope'; run `starburst image list`" in image(repository, "inspect", "nope", code=1).output
    refused = image(repository, "inspect", "ab", code=1).output
    assert "ab1" in refused
    assert "ab2" in refused


def test_a_tag_prefix_selects_the_newest_image_of_the_recipe(repository: EcrRepository) -> None:
    repository.push_index(FIRST)
    repository.aws.advance(5)
    image(repository, "refresh", FIRST)
    assert "io.dask-starburst.refreshed" in image(repository, "inspect", FIRST[:6]).output
    assert "io.dask-starburst.refreshed" not in image(repository, "inspect", FIRST).output


def test_prune_asks_first_and_deletes_only_unused_images(repository: EcrRepository) -> None:
    used = repository.push_index(FIRST)
    use(repository, f"{repository.host}/{repository.name}@{used}")
    repository.push_index(SECOND)
    repository.aws.advance(2 * DAY)
    before = repository.details()
    asked = image(repository, "prune", "--keep", "0", code=1, answer="n\n").output
    assert row(asked, TWO)[3] == "unused"
    assert ONE not in asked
    assert repository.details() == before, "nothing is deleted without confirmation"
    assert "Deleted 1 image." in image(repository, "prune", "--keep", "0", "--yes").output
    assert repository.tags() == {FIRST}
    assert len(repository.details()) == 3
    assert "Nothing to prune." in image(repository, "prune", "--keep", "0", "--yes").output


def test_prune_keeps_the_newest_recipe_and_newly_pushed_images(repository: EcrRepository) -> None:
    repository.push_index(FIRST)
    repository.aws.advance(2 * DAY)
    assert "Nothing to prune." in image(repository, "prune", "--yes").output
    repository.login()
    repository.push_index(SECOND)
    assert "Nothing to prune." in image(repository, "prune", "--keep", "2", "--yes").output
    assert "Deleted 1 image." in image(repository, "prune", "--yes").output
    assert repository.tags() == {SECOND}


def test_images_that_ecr_does_not_delete_are_reported_with_a_nonzero_exit_code(repository: EcrRepository) -> None:
    repository.push_index(FIRST)
    repository.aws.advance(2 * DAY)
    repository.aws.inject("ecr:BatchDeleteImage", "AccessDeniedException", "no", status=400)
    refused = image(repository, "prune", "--keep", "0", "--yes", code=1)
    assert "ecr:BatchDeleteImage" in refused.output
    assert len(repository.details()) == 3


def test_a_refreshed_image_has_its_full_lifetime(repository: EcrRepository) -> None:
    repository.push_index(FIRST)
    repository.aws.advance(29 * DAY)
    assert row(image(repository, "list").output, ONE)[2] == "in 23 hours"
    said = image(repository, "refresh", ONE).output
    assert re.fullmatch(rf"{ONE}-r\d{{14}} is {ONE} pushed again; it expires in (29|30) days\.\n", said)
    repository.aws.advance(3 * DAY)
    shown = image(repository, "list").output
    end = row(shown, rf"{ONE}-r\d+")[2]
    assert end == "in 26 days"
    assert len([line for line in shown.splitlines() if ONE in line]) == 1, "the first one has expired"
    assert len(repository.details()) == 3


def test_a_part_of_an_index_cannot_be_refreshed(repository: EcrRepository) -> None:
    index = repository.push_index(FIRST)
    part = next(digest for digest in repository.details() if digest != index)
    assert "is part of an index" in image(repository, "refresh", part, code=1).output

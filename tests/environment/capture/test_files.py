"""Environments read from files."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from dask_starburst.environment.capture.files import read
from dask_starburst.environment.capture.running import PYTHON, capture
from dask_starburst.environment.resolve.platforms import resolve_platforms
from dask_starburst.environment.tools.uv import run
from dask_starburst.errors import BadArgument, ImageError, VersionMismatch
from tests.support.packages import project, wheel

DASK = version("dask")
OTHER = f"3.{sys.version_info.minor + 1}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_requirements_file_includes_other_files_and_pins_dask(folder: Path, cache: Path):
    project(folder / "mine", "mine")
    (folder / "base.txt").write_text("toolz>=1  # the usual\n")
    (folder / "pins.txt").write_text("numpy<3\n")
    (folder / "requirements.txt").write_text("-r base.txt\n-c pins.txt\n-e ./mine\npandas \\\n  >=2\n--prefer-binary\n")
    found = read("requirements.txt", cache=cache)
    assert found.requirements == ("pandas >=2", "toolz>=1")
    assert {"numpy<3", f"dask=={DASK}", f"distributed=={DASK}"} <= set(found.constraints)
    assert [each.name for each in found.wheels] == ["dask-starburst", "mine"]
    assert found.origin == "requirements.txt"


def test_packages_are_added_and_excluded(folder: Path, cache: Path):
    (folder / "requirements.txt").write_text("pandas\njupyterlab\n")
    found = read("requirements.txt", exclude=["JupyterLab"], add=["s3fs>=2026"], cache=cache)
    assert found.requirements == ("pandas", "s3fs>=2026")


def in_git(folder: Path, name: str) -> str:
    """Commit a package, and return its URL for pip."""
    tree = project(folder, name, "2.5")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(tree), *words], check=True)
    return f"git+{tree.as_uri()}"


@pytest.mark.parametrize("form", ["{url}", "starburst-test-git @ {url}", "starburst-test-git[more]@{url}"])
def test_an_added_git_url_replaces_a_package_of_the_file(folder: Path, cache: Path, form: str):
    url = in_git(folder / "repository", "starburst_test_git")
    (folder / "requirements.txt").write_text("starburst-test-git==1.0\ntoolz==1.0.0\n")
    found = read("requirements.txt", add=[form.format(url=url)], cache=cache)
    assert found.requirements == (*(["starburst-test-git[more]"] if "[" in form else []), "toolz==1.0.0")
    made = {each.name: each for each in found.wheels}["starburst-test-git"]
    assert (made.version, made.pure) == ("2.5", True)
    assert made.origin.startswith("git+file://")
    lock = resolve_platforms(found, ("linux/arm64",), cache).locks["linux/arm64"]
    assert dict(lock.packages).items() >= {"starburst-test-git": "2.5", "toolz": "1.0.0"}.items()


def test_a_git_url_can_be_added_to_the_packages_of_this_python(folder: Path, cache: Path):
    url = in_git(folder / "repository", "toolz")
    found = capture(add=[url, "s3fs>=2026"], cache=cache)
    assert {each.name: each.version for each in found.wheels}["toolz"] == "2.5"
    assert "s3fs>=2026" in found.requirements
    assert not [pin for pin in (*found.constraints, *found.requirements) if pin.startswith("toolz==")]


LOCK = """\
starburst-test-trunk==1.0 \\
    --hash=sha256:{trunk}
starburst-test-leaf==1.0 --hash=sha256:{leaf}
"""


@pytest.fixture
def locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A lock of two packages, of which the first requires the second; the index has a newer version of it."""
    index = folder / "index"
    index.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    files = {
        "trunk": wheel(index, "starburst_test_trunk", needs=["starburst-test-leaf"]),
        "leaf": wheel(index, "starburst_test_leaf"),
    }
    wheel(index, "starburst_test_leaf", "2.0")
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    (folder / "requirements.txt").write_text(LOCK.format(**hashes))
    return hashes


def test_a_package_excluded_from_a_lock_is_removed_but_not_its_dependencies(folder: Path, cache: Path, locked):
    found = read("requirements.txt", exclude=["Starburst_Test_Trunk"], cache=cache)
    assert found.left_out == ("starburst-test-trunk",)
    lock = resolve_platforms(found, ("linux/arm64",), cache).locks["linux/arm64"]
    ours = {name: version for name, version in lock.packages if name.startswith("starburst-test")}
    assert ours == {"starburst-test-leaf": "1.0"}


def test_an_excluded_package_of_a_lock_that_is_required_keeps_its_version(folder: Path, cache: Path, locked):
    found = read("requirements.txt", exclude=["starburst-test-leaf"], cache=cache)
    lock = resolve_platforms(found, ("linux/arm64",), cache).locks["linux/arm64"]
    assert dict(lock.packages)["starburst-test-leaf"] == "1.0"
    assert f"sha256:{locked['leaf']}" in lock.text


@pytest.mark.parametrize("line", ["-e ./mine[s3]", "./mine[s3]", "mine[s3] @ file://{folder}/mine"])
def test_the_extras_of_a_local_package_are_requested(folder: Path, cache: Path, line: str):
    project(folder / "mine", "mine")
    (folder / "requirements.txt").write_text(line.format(folder=folder))
    found = read("requirements.txt", cache=cache)
    assert found.requirements == ("mine[s3]",)
    assert "mine" in [each.name for each in found.wheels]


def test_a_package_of_another_system_is_not_built(folder: Path, cache: Path):
    (folder / "requirements.txt").write_text(f"mine @ file://{folder}/gone ; sys_platform == 'darwin'\n")
    assert [each.name for each in read("requirements.txt", cache=cache).wheels] == ["dask-starburst"]


@pytest.mark.parametrize(
    "line", ["x @ git+http://me:s3cret-word@127.0.0.1:9/x.git", "--frobnicate http://me:s3cret-word@127.0.0.1:9/"]
)
def test_errors_do_not_contain_passwords_of_a_file(folder: Path, cache: Path, line: str):
    (folder / "requirements.txt").write_text(line)
    with pytest.raises((ImageError, BadArgument)) as caught:
        read("requirements.txt", cache=cache)
    assert "127.0.0.1:9" in str(caught.value)
    assert "s3cret-word" not in str(caught.value)


def test_the_password_of_an_index_that_a_file_names_is_not_shown(folder: Path, cache: Path):
    (folder / "requirements.txt").write_text("--index-url http://me:s3cret-word@127.0.0.1:9/simple\ntoolz\n")
    assert "s3cret-word" not in repr(read("requirements.txt", cache=cache))


def test_reading_a_file_writes_nothing_beside_it(folder: Path, cache: Path):
    project(folder, "mine")
    (folder / "environment.yml").write_text("dependencies:\n  - pip:\n    - -e .\n")
    before = read("environment.yml", cache=cache)
    kept = sorted(cache.rglob("*"))
    assert read("environment.yml", cache=cache) == before
    assert sorted(cache.rglob("*")) == kept  # otherwise every read would rebuild the package


def test_a_file_with_a_hash_for_every_package_is_a_lock(folder: Path, cache: Path):
    line = f"toolz==1.0.0 --hash=sha256:{'0' * 64}"
    (folder / "requirements.txt").write_text(line.replace(" --", " \\\n    --"))
    assert read("requirements.txt", cache=cache).lock == line


def test_a_project_is_a_wheel_with_its_dependencies(folder: Path, cache: Path):
    project(folder, "mine")
    found = read("pyproject.toml", cache=cache)
    assert "mine" in [each.name for each in found.wheels]


def test_a_project_without_a_build_system_gives_its_dependencies(folder: Path, cache: Path):
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\ndependencies = ["toolz>=1"]\n')
    assert read("pyproject.toml", cache=cache).requirements == ("toolz>=1",)


def test_the_most_exact_file_of_a_folder_is_read_and_named(folder: Path, cache: Path):
    (folder / "requirements.txt").write_text("toolz\n")
    (folder / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "test"\n[[packages]]\nname = "toolz"\nversion = "1.1.0"\n'
        f'wheels = [{{url = "https://a/toolz-1.1.0-py3-none-any.whl", hashes = {{sha256 = "{"0" * 64}"}}}}]\n'
    )
    found = read(".", cache=cache)
    assert found.origin == ". (pylock.toml)"
    assert found.lock == f"toolz==1.1.0 --hash=sha256:{'0' * 64}"


PYLOCK = 'lock-version = "1.0"\ncreated-by = "test"\ndefault-groups = ["main"]\n'


def package_of_lock(name: str, marker: str) -> str:
    """Return a package of a lock file."""
    file = f'{{url = "https://a/{name}-1.tar.gz", hashes = {{sha256 = "{"0" * 64}"}}}}'
    return f'[[packages]]\nname = "{name}"\nversion = "1"\nmarker = "{marker}"\nsdist = {file}\n'


def test_a_lock_file_gives_its_default_groups_without_extras(folder: Path, cache: Path):
    project(folder / "mine", "mine")
    hashed = f"hashes = {{sha256 = '{'0' * 64}'}}"
    (folder / "pylock.toml").write_text(
        PYLOCK
        + '[[packages]]\nname = "mine"\ndirectory = {path = "mine"}\n'
        + package_of_lock("a", "'main' in dependency_groups")
        + package_of_lock("b", "'dev' in dependency_groups or 'x' in extras")
        + package_of_lock("c", "platform_machine == 'aarch64'")
        + f'[[packages]]\nname = "d"\narchive = {{url = "https://a/d-4.zip", {hashed}}}\n'
    )
    found = read("pylock.toml", cache=cache)
    assert (found.lock or "").splitlines() == [
        f"a==1 --hash=sha256:{'0' * 64}",
        f'c==1 ; platform_machine == "aarch64" --hash=sha256:{"0" * 64}',
        f"d @ https://a/d-4.zip --hash=sha256:{'0' * 64}",
    ]
    assert "mine" in [each.name for each in found.wheels]


def test_a_lock_file_that_is_not_valid_is_an_error_that_says_why(folder: Path, cache: Path):
    (folder / "pylock.toml").write_text(PYLOCK + '[[packages]]\nname = "Not_normal"\nversion = "1"\n')
    with pytest.raises(BadArgument, match=r"is not a valid lock file: .*Not_normal.*; lock again"):
        read("pylock.toml", cache=cache)


def test_a_lock_of_uv_is_read_with_its_project(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    index = folder / "index"
    index.mkdir()
    wheel(index, "starburst-test-needed".replace("-", "_"), "1.5")
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    tree = project(folder / "mine", "mine")
    text = (tree / "pyproject.toml").read_text()
    (tree / "pyproject.toml").write_text(
        f'{text}dependencies = ["starburst-test-needed"]\nrequires-python = ">=3.11"\n'
    )
    assert run(["lock", "--quiet", "--project", str(tree)]).returncode == 0
    found = read("mine", cache=cache)
    assert found.origin == "mine (uv.lock)"
    assert found.lock is not None
    assert "starburst-test-needed==1.5" in found.lock
    assert "mine" in [each.name for each in found.wheels]


def test_conda_packages_are_taken_from_pypi_and_listed(folder: Path, cache: Path):
    (folder / "environment.yml").write_text(
        "dependencies:\n"
        f"  - python={PYTHON}\n  - numpy=2.3\n  - conda-forge::pandas >=2.2\n  - pytorch==2.9.1=py311_0\n"
        "  - msgpack-python\n  - libblas\n  - librosa\n  - pip\n  - pip:\n    - toolz>=1\n"
    )
    found = read("environment.yml", cache=cache)
    assert found.requirements == ("librosa", "msgpack", "numpy==2.3.*", "pandas>=2.2", "toolz>=1", "torch==2.9.1")
    assert "conda's packages are taken from PyPI" in found.notes[0]
    assert found.notes[1] == "left out because they are not Python packages: libblas"


@pytest.mark.parametrize("line", [f"dask=={DASK}0", f"dask<{DASK}", "cloudpickle==0.1", "distributed!=" + DASK])
def test_another_dask_version_than_the_clients_is_an_error_that_says_what_to_install(
    folder: Path, cache: Path, line: str
):
    (folder / "requirements.txt").write_text(line)
    with pytest.raises(
        VersionMismatch, match=r"requirements\.txt requires .* Change the file to (dask|cloudpickle|distributed)=="
    ):
        read("requirements.txt", cache=cache)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", f'[project]\nname = "x"\nversion = "1"\nrequires-python = ">={OTHER}"\n'),
        ("environment.yml", f"dependencies:\n  - python={OTHER}\n"),
        ("pylock.toml", f'lock-version = "1.0"\ncreated-by = "test"\npackages = []\nrequires-python = "=={OTHER}.*"\n'),
    ],
)
def test_another_python_version_is_an_error(folder: Path, cache: Path, name: str, text: str):
    (folder / name).write_text(text)
    with pytest.raises(VersionMismatch, match=f"requires Python .*{OTHER}.* this client runs {PYTHON}"):
        read(name, cache=cache)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("nowhere.txt", None, "does not exist; give one of uv.lock"),
        ("setup.cfg", "", "is not supported; give one of uv.lock"),
        (".", None, "is a folder without any of uv.lock"),
        ("pyproject.toml", "[project", "is not valid TOML"),
        ("pyproject.toml", "[tool.black]\n", "has neither"),
        ("environment.yml", "name: x\n", "has no list of dependencies"),
        ("requirements.txt", "not a requirement\n", "which is not a valid requirement; correct it"),
        ("requirements.txt", "--frobnicate x\n", "which is not supported; remove it"),
        ("requirements.txt", "-r missing.txt\n", "cannot be read"),
    ],
)
def test_an_unsupported_file_is_an_error(folder: Path, cache: Path, name: str, text: str | None, said: str):
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(BadArgument, match=said):
        read(name, cache=cache)


def test_the_error_for_a_failed_build_contains_uvs_output(folder: Path, cache: Path):
    tree = project(folder / "mine", "mine")
    (tree / "backend.py").write_text("def build_wheel(*a, **k):\n    raise RuntimeError('the hammer is broken')\n")
    (folder / "requirements.txt").write_text("./mine\n")
    with pytest.raises(ImageError, match=r"(?s)building a wheel of .*failed.*the hammer is broken"):
        read("requirements.txt", cache=cache)


def test_the_index_of_a_file_is_used(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    index = folder / "index"
    index.mkdir()
    wheel(index, "starburst_test_rare", "7.0")
    (folder / "requirements.txt").write_text(f"--find-links {index}\nstarburst-test-rare\n")
    found = resolve_platforms(read("requirements.txt", cache=cache), ("linux/arm64",), cache)
    assert ("starburst-test-rare", "7.0") in found.locks["linux/arm64"].packages

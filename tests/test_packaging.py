"""What is shipped: a wheel of the package alone, and a source archive that the wheel can be built from."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with both archives, the wheel built from the source archive."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def sources(folder):
    """The files of a folder of the repository that belong to it, by their paths."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.splitlines())


def test_the_wheel_is_the_package_alone(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if not name.startswith("sps_jax-")} == sources("sps_jax")
    assert "sps_jax/py.typed" in names and any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_archive_is_whole(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    folders = ("sps_jax", "tests", "benchmarks", "notebooks")
    wanted = set().union(*map(sources, folders)) | {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"}
    assert wanted <= names
    assert all(name.startswith(folders) or name in wanted | {".gitignore"} for name in names)

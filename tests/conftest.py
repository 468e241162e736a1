"""Shared fixtures: the compiled clients of the C interface, which are built once, and quick threads.
`python` runs another Python with this fastadam, as a user's build or script would. The profiles of Hypothesis are here,
too: the same hundred examples each time or, with `--hypothesis-profile=long`, more examples that differ.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import fastadam

settings.register_profile("short", deadline=None, derandomize=True, max_examples=100, stateful_step_count=20)
settings.register_profile("long", deadline=None, max_examples=800, stateful_step_count=50, print_blob=True)
settings.load_profile("short")

HERE = Path(__file__).parent


def python(*arguments, cwd, **more: str) -> str:
    """Run Python in another process, with this fastadam on its path, and more in its environment."""
    path = os.pathsep.join([str(Path(fastadam.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path} | more
    run = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def load(folder: Path, name: str):
    [path] = [path for path in folder.glob(f"{name}.*") if path.suffix in (".so", ".pyd")]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def clients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    shutil.copytree(HERE / "clients", folder, dirs_exist_ok=True)
    python("setup.py", "build_ext", "--inplace", cwd=folder, CFLAGS="-O0")  # quicker: they only pass on
    return {name: load(folder, name) for name in ("cython_client", "c_client", "cpp_client")}


@pytest.fixture(params=["cython_client", "c_client"])
def client(request, clients):
    return clients[request.param]


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns some thousand times as often as they do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)

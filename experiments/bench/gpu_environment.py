"""A Python that has what irlens needs: the machine's own, or a virtual environment over it with wheels from a folder.

    python experiments/bench/gpu_environment.py --venv DIR [--wheels DIR]

Prints the Python to use. The environment sees all that the machine's Python sees, also where that is an environment
itself, so that its torch stays. Nothing is downloaded. Exit code 2, and one line, where something is missing.
"""

import argparse
import site
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("trl", "datasets", "vllm", "faiss-gpu", "faiss-cpu", "peft", "bitsandbytes")  # where there is a wheel


def missing(requirements: list[str]) -> list[str]:
    """Those that this Python does not meet."""
    from packaging.requirements import Requirement

    def met(text: str) -> bool:
        asked = Requirement(text)
        try:
            return asked.specifier.contains(metadata.version(asked.name), prereleases=True)
        except metadata.PackageNotFoundError:
            return False

    return [text for text in requirements if not met(text)]


def required() -> list[str]:
    """What the package needs, and what its tests are run by."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], "pytest>=8"]


def wheels_of(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Those of `names` that the folder has a file of."""
    held = {path.name.split("-")[0].lower().replace("_", "-") for path in folder.iterdir()}
    return [name for name in names if name in held]


def over(path: Path) -> Path:
    """A new environment that sees this Python's packages; returns its Python."""
    venv.EnvBuilder(with_pip=False, clear=True, symlinks=True).create(path)
    python = path / "bin" / "python"
    where = Path(sysconfig.get_path("purelib", vars={"base": str(path), "platbase": str(path)}))
    seen = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    (where / "machine.pth").write_text("".join(f"{folder}\n" for folder in seen))
    return python


def fail(line: str) -> None:
    print(f"gpu_day: {line}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, required=True, help="where to make the environment, if one is needed")
    parser.add_argument("--wheels", type=Path, help="folder with what is missing")
    given = parser.parse_args()
    for name in ("torch", "packaging"):  # wheels bring the rest
        if missing_name := missing_module(name):
            fail(f"{missing_name} is not installed for {sys.executable}; give another Python by --python")
    absent = missing(required())
    if given.wheels and not given.wheels.is_dir():
        fail(f"--wheels {given.wheels}: no such folder")
    extras = missing(wheels_of(given.wheels, EXTRAS)) if given.wheels else []
    if not absent and not extras:
        print(sys.executable)
        return
    if not given.wheels:
        fail(f"not installed: {', '.join(absent)}; give a folder of wheels by --wheels (see --help), or install them")
    python = over(given.venv)
    if error := installed(python, given.wheels, absent):
        fail(f"--wheels {given.wheels}: {error}")
    for name in extras:
        if error := installed(python, given.wheels, [name]):
            print(f"gpu_day: {name} could not be installed: {error}", file=sys.stderr)
    print(python)


def missing_module(name: str) -> str | None:
    """The name, if there is no such module."""
    import importlib.util

    return None if importlib.util.find_spec(name) else name


def installed(python: Path, wheels: Path, names: list[str]) -> str:
    """Installs them from the folder alone; returns pip's last words where it fails."""
    if not names:
        return ""
    pip = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-cache-dir", "--find-links", wheels, *names]
    done = subprocess.run(pip, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else "pip failed")


if __name__ == "__main__":
    main()

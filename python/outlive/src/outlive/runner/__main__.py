"""``python -m outlive.runner TARGET [ARGUMENT ...]``: a runner whose failed imports are told too.

TARGET is ``package.module:attribute`` or ``path/to/program.py:attribute``. Without an attribute it is the one
:class:`Runner` of the module.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from outlive.runner._runner import Runner, attach

_USAGE = 2


def main() -> None:
    """Attaches, imports, runs."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):  # noqa: PLR2004
        print(f"usage: {__doc__}", file=sys.stderr)
        raise SystemExit(_USAGE)
    channel = attach()
    try:
        runner = _find(sys.argv[1])
    except SystemExit as error:
        # The interpreter says nothing of it.
        channel.last_words(error)
        raise
    # A program may have run it itself while it was imported; then this is its end.
    if not runner.has_run:
        runner.run()


def _find(target: str) -> Runner:
    place, _, attribute = target.partition(":")
    sys.argv = [place, *sys.argv[2:]]
    module = _program(Path(place)) if place.endswith(".py") or "/" in place else importlib.import_module(place)
    if attribute:
        found = getattr(module, attribute)
        if not isinstance(found, Runner):
            raise TypeError(f"{attribute} of {place} is no Runner but a {type(found).__name__}")
        return found
    runners = [value for value in vars(module).values() if isinstance(value, Runner)]
    if len({id(runner) for runner in runners}) != 1:
        raise LookupError(f"{place} has {len(runners)} runners; name one: {place}:NAME")
    return runners[0]


def _program(path: Path) -> ModuleType:
    """Imports a file under its own name, so that multiprocessing finds its functions again."""
    sys.path.insert(0, str(path.parent.absolute()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python program", path=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()

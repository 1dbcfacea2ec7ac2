"""Jobs from patterns: every model of one pattern on every box of another, with the place of each output."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redy.errors import InputError
from redy.runs.jobs import Job, box_name, checked, default_output, inline

_PLACE = re.compile(r"\{([^{}]*)\}")
_WILD = re.compile(r"[*?\[]")


def pattern_jobs(models: str, bounds: str, output: str, options: Mapping[str, Any]) -> list[Job]:
    """Every model on every box (or on one inline box), models and boxes in the order of their names.

    Args:
        models: a pattern of paths, such as "nets/**/*.onnx"; ** stands for any number of folders.
        bounds: a pattern of paths, or the text of a box.
        output: a folder, or a path with {model} and {box}: the model's path behind the part of its pattern that has no
            wildcard, and the name of the box, both without their endings.
        options: of every job.

    Raises:
        InputError: a pattern names no file, or two jobs write one.
    """
    found = {"--models": _matches(models), "--bounds": [bounds] if inline(bounds) else _matches(bounds)}
    for name, paths in found.items():
        if not paths:
            raise InputError(f"{name} {models if name == '--models' else bounds}: matches no file")
    pairs = [(model, box) for model in found["--models"] for box in found["--bounds"]]
    targets = (_target(output, _short(models, m), b if inline(b) else _short(bounds, b), b) for m, b in pairs)
    return checked([Job(m, b, target, dict(options)) for (m, b), target in zip(pairs, targets, strict=True)])


def output_folder(output: str) -> Path:
    """The folder of all outputs: the output itself, or its part before the first {...}."""
    match = _PLACE.search(output)
    if match is None:
        return Path(output)
    return Path(output[: match.start()] + "x").parent


def _matches(pattern: str) -> list[str]:
    # A pattern of the user's may be absolute, which Path.glob does not take.
    return sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())  # noqa: PTH207


def _short(pattern: str, path: str) -> str:
    """The path behind the folders of its pattern that have no wildcard, without its ending."""
    fixed = Path(pattern).parts
    wild = next((k for k, part in enumerate(fixed) if _WILD.search(part)), len(fixed) - 1)
    return str(Path(*Path(path).parts[wild:]).with_suffix(""))


def _target(output: str, model: str, box: str, bounds: str) -> str:
    if _PLACE.search(output) is None:
        return default_output(model, bounds, Path(output))
    names = {"model": model, "box": box_name(bounds) if inline(bounds) else box}

    def filled(match: re.Match[str]) -> str:
        if match[1] not in names:
            raise InputError(f"--output {output}: {{{match[1]}}} is neither {{model}} nor {{box}}")
        return names[match[1]]

    return _PLACE.sub(filled, output)

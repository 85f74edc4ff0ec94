"""Which files are the subjects: a folder, a pattern, a stem rule, labels and landmarks. Nothing here reads a mesh."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from shapeflow.errors import ConfigError, few
from shapeflow.io.files import read_bytes, suffix_of
from shapeflow.io.readers import READERS
from shapeflow.prepare.labels import read_labels
from shapeflow.prepare.sample import draw

_NOT_MESHES = (".csv", ".txt", ".npy")  # may hold shapes, but only when `pattern` says so


@dataclass(frozen=True)
class Dataset:
    """A folder of meshes. Every field is plain, so that a configuration can build it.

    path       the folder. Relative paths in the other fields are relative to it.
    pattern    which files are subjects, a glob such as "*.vtk" or "*/surface.ply"; None: every mesh file directly in the folder.
    stem       how a file becomes a subject's id. None: the name without its mesh suffixes, however many ("subject_1_r.vtk.vtk" is
               "subject_1_r"). Otherwise a regular expression searched in the path below `path`; its group "id", or its first group, is the id.
    labels     a CSV with one row a subject; or a mapping from a column's name to a text file of one label a line, in the subjects' order.
    label_id   the CSV's column of ids; None: "subject", or else its first.
    landmarks  the file of a subject's landmarks, with {id} for the id, such as "{id}.csv"; it may itself be a glob.
    include    ids or globs to keep (none: all);  exclude: ids or globs to leave out.
    sample     how many of them to draw, None: all;  seed: of the draw.
    stratify   labels whose combinations keep their shares in the sample.
    split      each curve of a file is a subject of its own, "<stem>_0001" and on.
    kind       "auto", "points", "curves" or "surfaces": what a text file's rows are, and what every mesh must then be.
    closed     whether curves of ordered points close: True, False, or None to tell by the gap.
    unit       the unit of the coordinates, for labels and for the guess to be checked against; nothing is converted.
    """

    name: str = "folder"
    path: str = ""
    pattern: str | None = None
    stem: str | None = None
    labels: str | Mapping[str, str] | None = None
    label_id: str | None = None
    landmarks: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sample: int | None = None
    stratify: tuple[str, ...] = ()
    seed: int = 0
    split: bool = False
    kind: str = "auto"
    closed: bool | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        for name in ("include", "exclude", "stratify"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(str(v) for v in value or ()))
        if self.kind not in ("auto", "points", "curves", "surfaces"):
            raise ConfigError(f"dataset.kind is {self.kind!r}; expected auto, points, curves or surfaces")
        if self.landmarks is not None and "{id}" not in self.landmarks:
            raise ConfigError(
                f"dataset.landmarks is {self.landmarks!r}; expected a name with {{id}} in it, such as '{{id}}.csv'"
            )
        if self.stem is not None:
            try:
                groups = re.compile(self.stem).groups
            except re.error as error:
                raise ConfigError(f"dataset.stem is {self.stem!r}, no regular expression: {error}") from error
            if groups < 1:
                raise ConfigError(
                    f"dataset.stem is {self.stem!r}; expected a group that captures the id, such as '(?P<id>[^.]+)'"
                )

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls))


@dataclass(frozen=True)
class Subject:
    """One subject: `part` is the number of the curve within the file when a file holds several subjects."""

    id: str
    path: Path
    landmarks_path: Path | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    part: int | None = None


@dataclass(frozen=True)
class Unmatched:
    """What was found on one side only: listed in the quality table, never dropped."""

    labels: tuple[str, ...]  # ids in the labels without a mesh
    landmarks: tuple[str, ...]  # landmark files without a mesh
    unlabelled: tuple[str, ...]  # subjects without a row in the labels
    unmarked: tuple[str, ...]  # subjects without a landmark file, while others have one


def scan(dataset: Dataset) -> tuple[Subject, ...]:
    """The subjects, sorted by id. Reads names, labels and (for `split`) the text of the curves; no mesh."""
    return _scan(dataset)[0]


def unmatched(dataset: Dataset) -> Unmatched:
    """Labels, landmark files and subjects that found no partner."""
    return _scan(dataset)[1]


def _scan(dataset: Dataset) -> tuple[tuple[Subject, ...], Unmatched]:
    folder = _folder(dataset)
    found = _files(dataset, folder)
    everyone = _subjects(dataset, folder, found)
    chosen = [s for s in everyone if _wanted(s.id, dataset)]
    _check_choice(dataset, everyone, chosen)
    labels = read_labels(dataset.labels, dataset.label_id, folder, [s.id for s in everyone])
    if dataset.sample is not None:
        rows = {s.id: labels.rows.get(s.id, labels.empty) for s in sorted(chosen, key=lambda s: s.id)}
        kept = draw(rows, dataset.sample, dataset.stratify, dataset.seed)
        chosen = [s for s in chosen if s.id in kept]
    marked = {s.id: _landmark_file(dataset, folder, s) for s in everyone}
    subjects = tuple(
        Subject(s.id, s.path, marked[s.id], labels.rows.get(s.id, labels.empty), s.part)
        for s in sorted(chosen, key=lambda s: s.id)
    )
    if dataset.labels is not None and subjects and not any(s.id in labels.rows for s in subjects):
        raise ConfigError(
            f"dataset.labels: no id of {dataset.labels} is a subject's. Labels have {few(labels.ids)}, the meshes are {few([s.id for s in subjects])}. "
            "Write dataset.label_id=<column> for another column, or dataset.stem=<regular expression> to change the subjects' ids"
        )
    return subjects, Unmatched(
        labels=tuple(i for i in labels.ids if i not in {s.id for s in everyone}),
        landmarks=_stray_landmarks(dataset, folder, marked),
        unlabelled=tuple(s.id for s in subjects if dataset.labels is not None and s.id not in labels.rows),
        unmarked=tuple(s.id for s in subjects if dataset.landmarks is not None and s.landmarks_path is None),
    )


def _folder(dataset: Dataset) -> Path:
    if not dataset.path:
        raise ConfigError(f"dataset {dataset.name!r} has no folder: write dataset.path=/folder/of/meshes")
    folder = Path(dataset.path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ConfigError(
            f"dataset.path: {folder} {what}; expected a folder of meshes. Write dataset.path=/folder/of/meshes"
        )
    return folder


def _files(dataset: Dataset, folder: Path) -> list[Path]:
    if dataset.pattern is not None:
        if Path(dataset.pattern).is_absolute():
            raise ConfigError(
                f"dataset.pattern is {dataset.pattern!r}; expected a glob below dataset.path, such as '*.vtk'"
            )
        files = [p for p in folder.glob(dataset.pattern) if p.is_file() and not p.name.startswith(".")]
    else:
        wanted = set(READERS) - set(_NOT_MESHES)
        files = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and suffix_of(p) in wanted]
    if not files:
        there = Counter(suffix_of(p) or p.name for p in folder.rglob("*") if p.is_file())
        listing = ", ".join(f"{n} {s}" for s, n in there.most_common(5)) or "nothing"
        raise ConfigError(
            f"dataset.path: no mesh in {folder} matches {dataset.pattern or 'a format that shapeflow reads'}; below it are {listing}. "
            "Write dataset.pattern, such as '*.vtk' or '**/*.ply', or convert them (MeshLab and ParaView do) to one of "
            f"{', '.join(sorted(set(READERS) - set(_NOT_MESHES)))}"
        )
    unreadable = sorted({suffix_of(p) for p in files} - set(READERS))
    if unreadable:
        raise ConfigError(
            f"dataset.pattern={dataset.pattern} matches {', '.join(unreadable)} files; expected one of {', '.join(sorted(READERS))}"
        )
    return sorted(files)


def _subjects(dataset: Dataset, folder: Path, files: list[Path]) -> list[Subject]:
    subjects = []
    for path in files:
        stem = subject_id(path.relative_to(folder), dataset.stem)
        if not dataset.split:
            subjects.append(Subject(stem, path))
            continue
        from shapeflow.io.text import count_curves

        n = count_curves(read_bytes(path))
        digits = max(4, len(str(n)))
        subjects += [Subject(f"{stem}_{i + 1:0{digits}d}", path, part=i) for i in range(n)]
    repeated = [i for i, n in Counter(s.id for s in subjects).items() if n > 1]
    if repeated:
        twice = [str(s.path.relative_to(folder)) for s in subjects if s.id == repeated[0]]
        raise ConfigError(
            f"dataset: {len(repeated)} ids stand for several files: {repeated[0]!r} for {few(twice)}. Write dataset.stem, a regular expression that "
            "tells them apart, such as '(?P<id>.+)\\.vtk', or a narrower dataset.pattern"
        )
    return subjects


def subject_id(path: Path, stem: str | None) -> str:
    """Id of a file by the stem rule; characters that cannot stand in a file name become underscores."""
    return re.sub(r"[^\w.+-]", "_", _stem(path, stem))


def _stem(path: Path, stem: str | None) -> str:
    if stem is None:
        name = path.name
        while suffix_of(name) in READERS or name.lower().endswith(".gz"):
            shorter = name[: -len(Path(name).suffix)]
            if not shorter:
                break
            name = shorter
    else:
        match = re.search(stem, path.as_posix())
        if match is None:
            raise ConfigError(
                f"dataset.stem={stem!r} finds nothing in {path}; expected a regular expression whose group is the subject's id"
            )
        name = match.groupdict().get("id") or match[1]
        if not name:
            raise ConfigError(f"dataset.stem={stem!r} gives an empty id for {path}")
    return name


def _wanted(subject: str, dataset: Dataset) -> bool:
    def among(patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(subject, p) for p in patterns)

    return (not dataset.include or among(dataset.include)) and not among(dataset.exclude)


def _check_choice(dataset: Dataset, everyone: list[Subject], chosen: list[Subject]) -> None:
    for key in ("include", "exclude"):
        for pattern in getattr(dataset, key):
            if not any(fnmatchcase(s.id, pattern) for s in everyone):
                raise ConfigError(
                    f"dataset.{key} names {pattern!r}, which is no subject; the subjects are {few([s.id for s in everyone])}"
                )
    if not chosen:
        raise ConfigError(
            f"dataset.include and dataset.exclude leave none of {len(everyone)} subjects; shorten dataset.exclude"
        )


def _landmark_file(dataset: Dataset, folder: Path, subject: Subject) -> Path | None:
    """The file named by the id, or else by the mesh's own name, blanks and all."""
    if dataset.landmarks is None:
        return None
    names = (
        [subject.id]
        if subject.part is not None
        else [subject.id, _stem(subject.path.relative_to(folder), dataset.stem)]
    )
    for name in names:
        hits = _glob(folder, dataset.landmarks.replace("{id}", glob.escape(name)))
        if len(hits) > 1:
            raise ConfigError(
                f"dataset.landmarks={dataset.landmarks!r} finds {len(hits)} files for {subject.id!r}: {few([p.name for p in hits])}"
            )
        if hits:
            return hits[0]
    return None


def _stray_landmarks(dataset: Dataset, folder: Path, marked: Mapping[str, Path | None]) -> tuple[str, ...]:
    if dataset.landmarks is None:
        return ()
    known = {p for p in marked.values() if p is not None} | {folder / f for f in _label_files(dataset)}
    return tuple(
        str(p.relative_to(folder)) if p.is_relative_to(folder) else str(p)
        for p in _glob(folder, dataset.landmarks.replace("{id}", "*"))
        if p not in known
    )


def _glob(folder: Path, pattern: str) -> list[Path]:
    """The files that a pattern names, relative to the folder or absolute, sorted."""
    found = glob.glob(str(Path(glob.escape(str(folder))) / pattern), recursive=True)
    return sorted(p for p in map(Path, found) if p.is_file())


def _label_files(dataset: Dataset) -> list[str]:
    if dataset.labels is None:
        return []
    return [dataset.labels] if isinstance(dataset.labels, str) else list(dataset.labels.values())

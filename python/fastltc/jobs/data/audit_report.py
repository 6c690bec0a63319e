"""What an audit of splits has found: items, clusters of leaks and how many are exposed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sets import SPLITS

KINDS = ("bytes", "pixels", "near", "group")
WORDS = {
    "bytes": "equal, byte for byte, to",
    "pixels": "equal in every pixel to",
    "near": "nearly equal to",
    "group": "of the same group as",
}


@dataclass(frozen=True)
class Item:
    """One example of a split.

    Args:
        name: what reports call it.
        split: ``train``, ``val`` or ``test``; empty where there is none or the source does not say.
        label: its class.
        path: the image file, where there is one.
        pixels: ``[C, H, W]``, uint8, where the image is in memory.
        content: an id that is equal for equal bytes, where it is known without the file, which is
            then not read.
        group: what must not be in two splits; None or empty where nothing else is of its group.
    """

    name: str
    split: str
    label: str
    path: Path | None = None
    pixels: NDArray[np.uint8] | None = field(default=None, compare=False)
    content: str | None = None
    group: str | None = None

    @property
    def file(self) -> Path:
        """Its image file, where it is known that there is one."""
        assert self.path is not None
        return self.path

    @property
    def visible(self) -> bool:
        """Whether its picture is in memory or in a file that is to be read."""
        return self.pixels is not None or (self.path is not None and self.content is None)


@dataclass(frozen=True)
class Cluster:
    """Items that are one and the same as far as ``kind`` goes, in more than one split.

    Args:
        kind: one of `KINDS`.
        members: places in the list of items; ordered by split, then by name.
        pairs: of near duplicates, how many pairs the members are. Of a few each pair is a cluster
            of its own; of more (a burst of pictures) all that are linked are one.
        example: members that are linked directly; empty where all are.
    """

    kind: str
    members: tuple[int, ...]
    pairs: int = 1
    example: tuple[int, ...] = ()


@dataclass(frozen=True)
class Exposure:
    """How many of a class of a split have their like in an earlier split."""

    kind: str
    split: str
    label: str
    count: int
    of: int
    against: str


@dataclass(frozen=True)
class Report:
    """What `audit` found.

    Args:
        items: what was looked at.
        clusters: leaks; each kind leaves out what a more certain kind has already.
        exposures: the same, counted per split and class.
        conflicts: places of items with equal content and different classes.
        checked: the kinds that were looked for.
    """

    items: Sequence[Item]
    clusters: tuple[Cluster, ...]
    exposures: tuple[Exposure, ...]
    conflicts: tuple[tuple[int, ...], ...]
    checked: tuple[str, ...]

    @property
    def leaks(self) -> bool:
        """Whether anything is in two splits."""
        return bool(self.clusters)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""

        def named(members: Iterable[int]) -> list[dict[str, str]]:
            return [
                {"split": item.split, "label": item.label, "name": item.name}
                for item in (self.items[index] for index in members)
            ]

        return {
            "leaks": self.leaks,
            "checked": list(self.checked),
            "items": {split: sum(item.split == split for item in self.items) for split in SPLITS},
            "exposed": [asdict(found) for found in self.exposures],
            "clusters": [
                {
                    "kind": cluster.kind,
                    **({"pairs": cluster.pairs} if cluster.kind == "near" else {}),
                    "items": named(cluster.members),
                }
                for cluster in self.clusters
            ],
            "conflicting_labels": [named(members) for members in self.conflicts],
        }

    def to_text(self, examples: int = 3) -> str:
        """The report for people.

        Args:
            examples: clusters of each kind that are shown.
        """
        counts = self.to_dict()["items"]
        lines = ["audited: " + ", ".join(f"{count} {name}" for name, count in counts.items())]
        names = {"bytes": "equal bytes", "pixels": "equal pixels", "near": "near duplicates"}
        lines.append("looked for: " + ", ".join(names.get(kind, "groups") for kind in self.checked))
        for found in self.exposures:
            lines.append(
                f"LEAK {found.split}, class {found.label}: {found.count} of {found.of} are "
                f"{WORDS[found.kind]} {found.against}"
            )
        for kind in KINDS:
            clusters = [cluster for cluster in self.clusters if cluster.kind == kind]
            for cluster in clusters[:examples]:
                first: dict[str, int] = {}
                for index in cluster.example or cluster.members:
                    first.setdefault(self.items[index].split, index)
                shown = ", ".join(
                    f"{split}: {self.items[index].name}" for split, index in first.items()
                )
                pairs = f" in {cluster.pairs} pairs" if cluster.pairs > 1 else ""
                lines.append(f"  {kind}: {len(cluster.members)} items{pairs}, such as {shown}")
            if len(clusters) > examples:
                lines.append(f"  {kind}: and {len(clusters) - examples} more clusters")
        for members in self.conflicts[:examples]:
            shown = ", ".join(
                f"{self.items[index].name} is {self.items[index].label}" for index in members[:3]
            )
            lines.append(f"equal content, different classes: {shown}")
        if len(self.conflicts) > examples:
            lines.append(f"and {len(self.conflicts) - examples} more with different classes")
        if not self.leaks:
            lines.append("no leak found")
        return "\n".join(lines)

"""Leaks between splits: the same picture, or the same patient, on both sides.

Four kinds, from certain to likely: equal bytes, equal decoded pixels, near duplicates (by a
perceptual hash, confirmed on the pixels), and a group in two splits.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..defaults import NEAR_BITS
from ..errors import DataError
from ..options import between
from .audit_report import KINDS, Cluster, Exposure, Item, Report
from .images import eight_bits, in_mode, is_grey, open_picture
from .partition import partition
from .sets import SPLITS, DataSet
from .tables import FILE_NAMES, read_table

# Root mean square difference of 32x32 grey thumbnails, in grey levels, that confirms a near
# duplicate: hashes of smooth or dark pictures agree by chance.
NEAR_LEVELS = 5.0

# Up to so many linked pairs of near duplicates are reported one by one.
_MOST_PAIRS = 20
_THUMBNAIL = 32
# Each split, and one before it.
_PAIRS = [(split, earlier) for place, split in enumerate(SPLITS) for earlier in SPLITS[:place]]
_ID_NAMES = ("sha256", "sha1", "md5", "git_blob", "blob", "hash", "checksum", "id", "content")


def items_of(data: DataSet) -> list[Item]:
    """The images of a data set that is in memory."""
    if data.kind != "images":
        raise DataError(f"{data.name}: images are audited, got {data.kind}")
    items = []
    for split in SPLITS:
        part = data.splits[split]
        pixels = part.inputs
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels.astype(np.float32) * np.float32(255)).astype(np.uint8)
        for index in range(len(part)):
            name = part.names[index] if part.names else f"{split} {index}"
            label = _label(part.labels[index], data)
            items.append(Item(name, split, label, pixels=pixels[index]))
    return items


def _label(label: NDArray[np.int64], data: DataSet) -> str:
    if not data.multilabel:
        return data.classes[int(label)]
    return "; ".join(data.classes[place] for place in np.flatnonzero(label)) or "none"


def with_ids(items: Sequence[Item], path: Path) -> list[Item]:
    """Items with the content ids of a table, in which equal ids mean equal bytes.

    The files themselves are then not needed.

    Raises:
        DataError: the table lacks a column, or an item; the text names it.
    """
    table = read_table(path)
    files = table.need(None, FILE_NAMES, "names of the files", "its header")
    ids = table.need(None, _ID_NAMES, "content ids", "its header")
    known = {row[files]: row[ids] for row in table.rows}
    missing = [item.name for item in items if item.name not in known]
    if missing:
        raise DataError(f"{path}: no content id for {missing[0]} and {len(missing) - 1} others")
    return [replace(item, content=known[item.name]) for item in items]


def audit(items: Sequence[Item], *, near_bits: int | None = NEAR_BITS) -> Report:
    """Looks for leaks between the splits of ``items``.

    Args:
        items: with files, pixels or content ids, and groups where there are any.
        near_bits: bits in which the perceptual hashes of near duplicates may differ, 0 to 64;
            None for no search for them.

    Returns:
        What was found.

    Raises:
        DataError: a file is missing or damaged.

    Example:
        >>> items = [Item("a", "train", "1", content="x"), Item("b", "test", "1", content="x")]
        >>> audit(items).exposures[0].count
        1
    """
    links, checked = _links(items, near_bits)
    clusters = []
    seen: set[tuple[int, ...]] = set()
    for kind in KINDS:
        for members in links.get(kind, ()):
            if len({items[index].split for index in members}) < 2:
                continue
            ordered = _ordered(items, members)
            if ordered not in seen:
                if kind != "group":
                    seen.add(ordered)
                clusters.append(Cluster(kind, ordered))
    conflicts = tuple(
        tuple(sorted(members))
        for kind in ("bytes", "pixels")
        for members in links.get(kind, ())
        if len({items[index].label for index in members}) > 1
    )
    return Report(
        items,
        _merged(items, clusters),
        _exposures(items, clusters),
        tuple(dict.fromkeys(conflicts)),
        checked,
    )


def _merged(items: Sequence[Item], clusters: Sequence[Cluster]) -> tuple[Cluster, ...]:
    """The clusters, with many linked pairs of near duplicates as one."""
    pairs = [cluster for cluster in clusters if cluster.kind == "near"]
    roots = _components(len(items), [pair.members for pair in pairs])
    linked_pairs: dict[int, list[Cluster]] = defaultdict(list)
    for pair in pairs:
        linked_pairs[roots[pair.members[0]]].append(pair)
    near = []
    for together in linked_pairs.values():
        if len(together) <= _MOST_PAIRS:
            near.extend(together)
            continue
        members = {index for pair in together for index in pair.members}
        near.append(Cluster("near", _ordered(items, members), len(together), together[0].members))
    surer = [cluster for cluster in clusters if cluster.kind in ("bytes", "pixels")]
    return (*surer, *near, *(cluster for cluster in clusters if cluster.kind == "group"))


def _ordered(items: Sequence[Item], members: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(members, key=lambda i: (SPLITS.index(items[i].split), items[i].name)))


def _exposures(items: Sequence[Item], clusters: Sequence[Cluster]) -> tuple[Exposure, ...]:
    totals: dict[tuple[str, str], int] = defaultdict(int)
    for item in items:
        totals[item.split, item.label] += 1
    counts: dict[tuple[str, str, str, str], set[int]] = defaultdict(set)
    surer: set[tuple[int, str]] = set()
    for kind in KINDS:
        found: set[tuple[int, str]] = set()
        for cluster in clusters:
            if cluster.kind != kind:
                continue
            present = {items[index].split for index in cluster.members}
            for index in cluster.members:
                item = items[index]
                for against in SPLITS[: SPLITS.index(item.split)]:
                    if against in present and (kind == "group" or (index, against) not in surer):
                        counts[kind, item.split, item.label, against].add(index)
                        found.add((index, against))
        if kind != "group":
            surer |= found

    def place(key: tuple[str, str, str, str]) -> tuple[Any, ...]:
        return KINDS.index(key[0]), -SPLITS.index(key[1]), *key[2:]

    return tuple(
        Exposure(*key[:3], len(counts[key]), totals[key[1:3]], key[3])
        for key in sorted(counts, key=place)
    )


def fix(items: Sequence[Item], *, near_bits: int | None = NEAR_BITS) -> list[Item]:
    """Puts whatever is linked on one side, and moves nothing else.

    What is linked (duplicates and groups, and duplicates of members of a group) and lies in
    several splits is allotted anew, so that every split keeps its share of each class as well as
    that is possible.

    Raises:
        DataError: a class would be left without examples in a split; it has too few that differ.
    """
    components = linked(items, near_bits=near_bits)
    splits: dict[int, set[str]] = defaultdict(set)
    for item, component in zip(items, components, strict=True):
        splits[component].add(item.split)
    held = (splits[component] for component in components)
    fixed = [next(iter(own)) if len(own) == 1 else None for own in held]
    shares = [sum(item.split == split for item in items) / len(items) for split in SPLITS]
    labels = [item.label for item in items]
    found = partition(labels, shares, groups=components, fixed=fixed)
    _check_kept(items, found, components)
    return [replace(item, split=where) for item, where in zip(items, found, strict=True)]


def _check_kept(items: Sequence[Item], found: Sequence[str], components: Sequence[int]) -> None:
    before = {(item.split, item.label) for item in items}
    after = {(where, item.label) for item, where in zip(items, found, strict=True)}
    for split, label in sorted(before - after):
        pairs = zip(items, components, strict=True)
        distinct = {component for item, component in pairs if item.label == label}
        raise DataError(
            f"class {label!r} cannot be in the {split} split without a leak: its examples are "
            f"{len(distinct)} different ones"
        )


def linked(items: Sequence[Item], *, near_bits: int | None = NEAR_BITS) -> list[int]:
    """A number for each item that is equal for items which must not be in two splits."""
    links, _ = _links(items, near_bits)
    return _components(len(items), [members for found in links.values() for members in found])


def _components(count: int, links: Iterable[Sequence[int]]) -> list[int]:
    """A number for each of ``count`` that is equal for all that are linked, directly or not."""
    from scipy.cluster.hierarchy import DisjointSet

    sets = DisjointSet(range(count))
    for members in links:
        for index in members[1:]:
            sets.merge(members[0], index)
    return [sets[index] for index in range(count)]


def _links(
    items: Sequence[Item], near_bits: int | None
) -> tuple[dict[str, list[list[int]]], tuple[str, ...]]:
    """Lists of linked items (two or more), by kind; and the kinds that were looked for."""
    if near_bits is not None:
        between(0, 64).check("near", near_bits, DataError)
    links: dict[str, list[list[int]]] = {}
    checked = []
    contents: list[Hashable] = [_content(item) for item in items]
    if any(content is not None for content in contents):
        checked.append("bytes")
        links["bytes"] = _equal(contents)
    decoded = [_decoded(item) for item in items]
    if any(picture is not None for picture in decoded):
        checked.append("pixels")
        links["pixels"] = _equal([None if p is None else p[0] for p in decoded])
        if near_bits is not None:
            checked.append("near")
            links["near"] = _near(decoded, near_bits)
    if any(item.group for item in items):
        checked.append("group")
        links["group"] = _equal([item.group or None for item in items])
    return links, tuple(checked)


def _equal(keys: Sequence[Hashable]) -> list[list[int]]:
    places: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key is not None:
            places[key].append(index)
    return [members for members in places.values() if len(members) > 1]


def _content(item: Item) -> str | None:
    if item.content is not None or item.path is None:
        return item.content
    try:
        return hashlib.sha256(item.path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{item.path}: cannot be read: {error.strerror}") from None


# Digest of the decoded pixels, perceptual hash (64 bits), thumbnail.
_Picture = tuple[bytes, NDArray[np.uint8], NDArray[np.float32]]


def _decoded(item: Item) -> _Picture | None:
    import imagehash
    from PIL import Image

    if not item.visible:
        return None
    if item.pixels is not None:
        pixels: NDArray[Any] = item.pixels
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    else:
        image, pixels = picture(item.file)
    shown = repr((image.mode, image.size, str(pixels.dtype)))
    digest = hashlib.sha256(shown.encode() + pixels.tobytes()).digest()
    grey = image.convert("L")
    bits = np.packbits(imagehash.phash(grey).hash.ravel())
    small = grey.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BILINEAR)
    return digest, bits, np.asarray(small, dtype=np.float32)


def picture(path: Path) -> tuple[Any, NDArray[Any]]:
    """An image file as training sees it before it is resized: upright, on black, ``L`` or ``RGB``.

    Returns:
        The Pillow image and its pixels; those of 16-bit and float files before they are scaled,
        because pictures that differ only in the lower bits are not equal.

    Raises:
        DataError: it is missing or damaged, or in a mode or a range that training does not read.
    """
    opened, _ = open_picture(path)
    deep = opened.mode[0] in "IF"
    pixels = np.asarray(opened, dtype=np.float64) if deep else None
    image, _ = eight_bits(opened, path)
    image = in_mode(image, "L" if is_grey(image.mode) else "RGB", path)
    return image, np.asarray(image) if pixels is None else pixels


def _near(decoded: Sequence[_Picture | None], bits: int) -> list[list[int]]:
    """Near duplicates, each pair of different pictures as a list of two."""
    # Equal pictures are one here, else a thousand copies would be half a million pairs.
    copies: dict[bytes, list[int]] = defaultdict(list)
    pictures: list[_Picture] = []
    for index, picture in enumerate(decoded):
        if picture is not None:
            if picture[0] not in copies:
                pictures.append(picture)
            copies[picture[0]].append(index)
    if len(pictures) < 2:
        return []
    hashes = np.stack([picture[1] for picture in pictures])
    thumbnails = np.stack([picture[2] for picture in pictures])
    ones = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)
    found = []
    chunk = max(1, 1 << 22 >> max(len(hashes).bit_length(), 1))
    for start in range(0, len(hashes), chunk):
        rows = hashes[start : start + chunk]
        distance = ones[rows[:, None] ^ hashes[None]].sum(axis=2, dtype=np.uint8)
        for one, row in enumerate(distance <= bits, start):
            others = one + 1 + np.flatnonzero(row[one + 1 :])
            difference = thumbnails[others] - thumbnails[one]
            levels = np.sqrt(np.mean(difference * difference, axis=(1, 2)))
            for other in others[levels <= NEAR_LEVELS]:
                found.append(copies[pictures[one][0]] + copies[pictures[other][0]])
    return found


def warnings(data: DataSet) -> tuple[str, ...]:
    """The cheap part of the audit, for training: equal inputs in two splits, by a digest of each.

    Returns:
        A sentence for each split that shares images with an earlier one.
    """
    if data.kind != "images":
        return ()
    digests = {
        split: [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in part.inputs]
        for split, part in data.splits.items()
    }
    sentences = []
    for split, earlier in _PAIRS:
        known = set(digests[earlier])
        count = sum(digest in known for digest in digests[split])
        if count:
            sentences.append(
                f"LEAK: {count} of {len(digests[split])} {split} images are equal, in every "
                f"pixel, to {earlier} images; scores on them are too good. See: fastltc audit"
            )
    return tuple(sentences)


def shared_groups(groups: Mapping[str, set[str]]) -> str:
    """A sentence about groups that are in two splits; empty where there is none."""
    shared = sorted(set().union(*(groups[split] & groups[earlier] for split, earlier in _PAIRS)))
    if not shared:
        return ""
    others = f" and {len(shared) - 1} others" if len(shared) > 1 else ""
    return f"LEAK: group {shared[0]}{others} in more than one split. See: fastltc audit"

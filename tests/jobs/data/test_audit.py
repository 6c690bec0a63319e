from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fastltc.jobs.data import DataError, DataSet, Split, load_data
from fastltc.jobs.data.audit import audit, fix, items_of, linked, warnings, with_ids
from fastltc.jobs.data.audit_report import Item
from fastltc.jobs.data.image_files import group_by_pattern, list_table
from fastltc.jobs.data.options import DataOptions
from job_support import publish, real_data, write_medmnist


def photograph(seed: int, side: int = 96) -> Image.Image:
    """A smooth coloured picture with some structure, like a photograph."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (7, 7, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def items(tmp_path: Path, splits: dict[str, str], **groups: str) -> list[Item]:
    """Files NAME in SPLIT; the class of a file is the first letter of its name."""
    return [
        Item(name, split, name[0], path=tmp_path / name, group=groups.get(Path(name).stem))
        for name, split in splits.items()
    ]


def found(report: object) -> set[tuple[str, str, str, int, str]]:
    return {(e.kind, e.split, e.label, e.count, e.against) for e in report.exposures}


def test_the_four_kinds_of_leaks(tmp_path: Path) -> None:
    picture = photograph(0)
    picture.save(tmp_path / "a1.png")
    (tmp_path / "a2.png").write_bytes((tmp_path / "a1.png").read_bytes())
    picture.save(tmp_path / "b1.png", compress_level=1)
    picture.resize((70, 70)).save(tmp_path / "c1.jpg", quality=60)
    photograph(1).save(tmp_path / "d1.png")
    photograph(2).save(tmp_path / "d2.png")
    split = {"a1.png": "train", "a2.png": "test", "b1.png": "test", "c1.jpg": "val"}
    split |= {"d1.png": "train", "d2.png": "test"}
    report = audit(items(tmp_path, split, d1="patient 7", d2="patient 7"))
    assert report.checked == ("bytes", "pixels", "near", "group")
    assert found(report) == {
        ("bytes", "test", "a", 1, "train"),
        ("pixels", "test", "b", 1, "train"),
        ("near", "val", "c", 1, "train"),
        ("near", "test", "a", 1, "val"),
        ("near", "test", "b", 1, "val"),
        ("group", "test", "d", 1, "train"),
    }
    # Equal pictures of different classes.
    assert [{report.items[i].name for i in members} for members in report.conflicts] == [
        {"a1.png", "a2.png", "b1.png"}
    ]
    text = report.to_text()
    assert "LEAK test, class a: 1 of 1 are equal, byte for byte, to train" in text
    assert "LEAK test, class d: 1 of 1 are of the same group as train" in text


def test_different_pictures_are_no_duplicates(tmp_path: Path) -> None:
    split = {}
    for seed in range(40):
        photograph(seed).save(tmp_path / f"x{seed}.png")
        split[f"x{seed}.png"] = ("train", "val", "test")[seed % 3]
    # Dark, flat pictures have hashes that agree by chance.
    for level in (0, 10, 20):
        Image.new("L", (50, 50), level).save(tmp_path / f"y{level}.png")
        split[f"y{level}.png"] = "train" if level else "test"
    report = audit(items(tmp_path, split))
    assert not report.leaks
    assert "no leak found" in report.to_text()


def blocks(seed: int) -> np.ndarray:
    """Numbers in [0, 1] in 4x4 blocks of 64x64: nothing in common from one seed to the next."""
    return np.kron(np.random.default_rng(seed).random((4, 4)), np.ones((16, 16)))


def with_alpha(seed: int) -> Image.Image:
    """A white square that shows through to a different degree in every block."""
    pixels = np.full((64, 64, 4), 255, np.uint8)
    pixels[..., 3] = blocks(seed) * 255
    return Image.fromarray(pixels)


def with_palette(seed: int) -> Image.Image:
    """The same indices always, under other colours."""
    picture = Image.fromarray((blocks(0) * 255).astype(np.uint8)).convert("P")
    colours = np.random.default_rng(seed).integers(0, 256, 768)
    picture.putpalette(colours.tolist())
    return picture


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (lambda seed: Image.fromarray((blocks(seed) * 60000).astype(np.uint16)), "png"),
        (lambda seed: Image.fromarray((blocks(seed) * 4000).astype(np.uint16)), "png"),
        (lambda seed: Image.fromarray((blocks(seed) * 60000).astype(np.int32)), "tiff"),
        (lambda seed: Image.fromarray(blocks(seed).astype(np.float32)), "tiff"),
        (with_alpha, "png"),
        (with_palette, "png"),
    ],
    ids=["16-bit", "12-bit", "I", "F", "alpha", "palette"],
)
def test_pictures_of_any_mode_are_compared_as_they_look(
    tmp_path: Path, make: Callable[[int], Image.Image], suffix: str
) -> None:
    split = {}
    for seed in range(6):
        make(seed).save(tmp_path / f"x{seed}.{suffix}")
        split[f"x{seed}.{suffix}"] = "test" if seed % 2 else "train"
    assert not audit(items(tmp_path, split)).leaks
    make(0).resize((48, 48), Image.Resampling.NEAREST).save(tmp_path / f"y0.{suffix}")
    report = audit(items(tmp_path, {**split, f"y0.{suffix}": "test"}))
    assert found(report) == {("near", "test", "y", 1, "train")}


def test_deep_pictures_are_equal_only_in_all_bits(tmp_path: Path) -> None:
    deep = (blocks(0) * 60000).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "b.png", compress_level=1)
    Image.fromarray(deep + 1).save(tmp_path / "c.png")
    report = audit(items(tmp_path, {"a.png": "train", "b.png": "test", "c.png": "test"}))
    assert found(report) == {("pixels", "test", "b", 1, "train"), ("near", "test", "c", 1, "train")}


def test_a_picture_in_lab_is_audited(tmp_path: Path) -> None:
    for seed in range(2):
        pixels = (np.stack([blocks(seed)] * 3, -1) * 255).astype(np.uint8)
        Image.frombytes("LAB", (64, 64), pixels.tobytes()).save(tmp_path / f"{seed}.tiff")
    assert not audit(items(tmp_path, {"0.tiff": "train", "1.tiff": "test"})).leaks


def test_a_burst_is_one_cluster() -> None:
    rng = np.random.default_rng(0)
    base = np.kron(rng.integers(0, 255, (8, 8)), np.ones((4, 4)))
    burst = [
        Item(
            f"burst {index:03d}",
            "test" if index % 5 == 0 else "train",
            "ab"[index % 2],
            pixels=np.clip(base + rng.integers(-2, 3, (32, 32)), 0, 255).astype(np.uint8)[None],
        )
        for index in range(60)
    ]
    pair = [
        Item(split, split, "a", pixels=np.asarray(photograph(8).resize((side, side)))[..., 0][None])
        for split, side in (("train", 64), ("test", 60))
    ]
    report = audit([*burst, *pair])
    assert found(report) >= {("near", "test", "a", 7, "train"), ("near", "test", "b", 6, "train")}
    assert [(len(c.members), c.pairs) for c in report.clusters] == [(60, 12 * 48), (2, 1)]
    splits = [report.items[index].split for index in report.clusters[0].example]
    assert splits == ["train", "test"]
    assert "near: 60 items in 576 pairs, such as train: burst" in report.to_text()
    written = report.to_dict()["clusters"]
    assert [(entry["pairs"], len(entry["items"])) for entry in written] == [(576, 60), (1, 2)]


def test_a_changed_copy_is_a_near_duplicate(tmp_path: Path) -> None:
    original = photograph(5)
    original.save(tmp_path / "o.png")
    ImageEnhance.Brightness(original).enhance(1.02).save(tmp_path / "p.jpg", quality=40)
    split = {"o.png": "train", "p.jpg": "test"}
    assert found(audit(items(tmp_path, split))) == {("near", "test", "p", 1, "train")}
    assert not audit(items(tmp_path, split), near_bits=None).leaks


def test_duplicates_within_a_split_are_no_leak(tmp_path: Path) -> None:
    for name in ("a1.png", "a2.png"):
        photograph(0).save(tmp_path / name)
    assert not audit(items(tmp_path, {"a1.png": "train", "a2.png": "train"})).leaks


def leaking(rng: np.random.Generator) -> list[Item]:
    """300 examples; a third are copies, in any split, and the others belong to patients."""
    made = []
    for index in range(300):
        copy = index % 3 == 0
        content = f"copy {rng.integers(20)}" if copy else f"own {index}"
        kind = "ill" if (len(content) if copy else index) % 2 else "well"
        split = str(rng.choice(["train", "val", "test"], p=[0.7, 0.1, 0.2]))
        made.append(Item(f"{index}", split, kind, content=content, group=f"p{index // 2}"))
    return made


def test_fixing_puts_everything_linked_on_one_side_and_moves_nothing_else() -> None:
    made = leaking(np.random.default_rng(0))
    plain = [Item(i.name, i.split, i.label, content=i.content) for i in made]
    assert audit(plain).leaks
    fixed = fix(plain)
    assert not audit(fixed).leaks
    leaked = {index for cluster in audit(plain).clusters for index in cluster.members}
    for index, (before, after) in enumerate(zip(plain, fixed, strict=True)):
        assert (before.split == after.split) or index in leaked
    for split in ("train", "val", "test"):
        before = sum(item.split == split for item in plain)
        assert sum(item.split == split for item in fixed) == pytest.approx(before, abs=6)
    assert not audit(fix(made)).leaks


def test_an_empty_group_is_none() -> None:
    made = [Item("a", "train", "0", content="1", group=""), Item("b", "test", "0", group="")]
    made += [Item("c", "train", "0", group="p"), Item("d", "test", "0", group="p")]
    assert len(set(linked(made))) == 3
    assert found(audit(made)) == {("group", "test", "0", 1, "train")}


def test_fixing_what_cannot_be_fixed_says_why() -> None:
    made = [Item(f"{i}", s, "ill", content="same") for i, s in enumerate(("train", "test"))]
    made += [Item(f"w{i}", s, "well", content=f"{i}") for i, s in enumerate(("train", "test"))]
    with pytest.raises(DataError, match=r"class 'ill' cannot be in the (train|test) split"):
        fix(made)


def test_the_published_leaking_split() -> None:
    folder = real_data("leak_audit")
    listed = []
    for split in ("train", "val", "test"):
        listed += list_table(folder / f"{split}.csv", DataOptions(), split)
    checked = with_ids(listed, folder / "blobs.csv")
    report = audit(checked)
    against_train = {
        (e.split, e.label): (e.count, e.of) for e in report.exposures if e.against == "train"
    }
    assert against_train["test", "1"] == (191, 191)
    assert against_train["val", "1"] == (96, 96)
    fixed = fix(checked)
    assert not audit(fixed).leaks
    assert {item.label for item in fixed if item.split == "test"} == {"0", "1"}
    grouped = group_by_pattern(list_table(folder / "train.csv", DataOptions()), r"^(\d+)_")
    assert grouped[0].group == "62608"


def test_content_ids_must_cover_all(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("filename,sha256\na,x\n")
    with pytest.raises(DataError, match=r"ids.csv: no content id for b and 0 others"):
        with_ids([Item("a", "train", "0"), Item("b", "test", "0")], tmp_path / "ids.csv")
    (tmp_path / "ids.csv").write_text("filename,size\na,x\n")
    with pytest.raises(DataError, match=r"no column with the content ids"):
        with_ids([Item("a", "train", "0")], tmp_path / "ids.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.png: cannot be read"):
        audit([Item("absent.png", "train", "a", path=tmp_path / "absent.png")])


def test_training_warns_of_equal_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_medmnist(tmp_path / "breastmnist.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["test_images"][:5] = arrays["train_images"][:5]
    publish(monkeypatch, write_medmnist(path, **arrays))
    data = load_data("breastmnist", tmp_path)
    (sentence,) = warnings(data)
    assert sentence.startswith("LEAK: 5 of 156 test images are equal, in every pixel, to train")
    assert found(audit(items_of(data), near_bits=None)) >= {
        ("pixels", "test", "normal or benign", 3, "train"),
    }


def test_the_real_lesions_do_not_leak() -> None:
    root = real_data("ham10000")
    data = load_data(f"folder:{root}")
    assert warnings(data) == ()
    assert not audit(items_of(data)).leaks


def test_the_real_breastmnist_leaks_a_little() -> None:
    data = load_data("breastmnist", real_data("breastmnist.npz"))
    report = audit(items_of(data))
    # One test image is a training image, under another class; near duplicates are many.
    assert ("pixels", "test", "normal or benign", 1, "train") in found(report)
    assert len(report.conflicts) == 1
    near = sum(e.count for e in report.exposures if e.kind == "near" and e.against == "train")
    assert near > 30


def test_images_of_several_labels_are_audited_too() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 1, 8, 8)).astype(np.uint8)
    labels = np.array([[1, 1], [0, 0], [1, 1], [1, 0]])
    parts = {
        name: Split(images[i : i + 2], labels[i : i + 2]) for name, i in (("train", 0), ("val", 2))
    }
    parts["test"] = Split(images[:1], labels[:1])
    data = DataSet("chest", ("mass", "hernia"), parts, "memory", multilabel=True)
    assert found(audit(items_of(data), near_bits=None)) == {
        ("pixels", "test", "mass; hernia", 1, "train")
    }

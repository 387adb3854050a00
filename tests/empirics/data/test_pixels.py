import io

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from empirics.data import ImageData, PixelData
from theory.errors import InputError
from theory.serialize import content_hash, from_json, to_json

N, SIDE = 24, 6


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def raw():
    """Training and test images, each pixel its own value, and labels of three classes."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, size=(N + 6, SIDE, SIDE, 3), dtype=np.uint8), np.arange(N + 6) % 3


@pytest.fixture(scope="module")
def folder(raw, tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    pixels, labels = raw
    for name, part in (("train", slice(0, N)), ("test", slice(N, None))):
        rows = [{"bytes": png(image), "path": ""} for image in pixels[part]]
        coarse = [0] * len(rows)
        pq.write_table(pa.table({"img": rows, "fine_label": labels[part], "coarse": coarse}), path / f"{name}.parquet")
    return path


@pytest.fixture
def make(folder):
    def build(**changes):
        plain = {"source": f"parquet:{folder}", "train": N, "flip": False, "crop": 0}
        return PixelData(**(plain | changes)).open(folder / "cache")

    return build


def test_without_augmentation_it_is_the_plain_data_set(make, folder):
    plain = ImageData(source=f"parquet:{folder}", train=N, label_noise=0.0).open()
    pixels = make()
    assert pixels._train.dtype == pixels._test.dtype == torch.uint8
    assert pixels.num_classes == 3
    for step in (0, 5, 13):
        (ours, labels), (theirs, expected) = pixels.batch(step, 8), plain.batch(step, 8)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # float32 of a sum in another order
        assert torch.equal(labels, expected)
    torch.testing.assert_close(pixels.train_images, plain.train_images, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pixels.test_images, plain.test_images, rtol=1e-5, atol=1e-5)
    images, labels = (torch.cat(parts) for parts in zip(*pixels.validation(4), strict=True))
    assert torch.equal(images, pixels.test_images)
    assert torch.equal(labels, plain.test_labels)


def unaugmented(make, **changes):
    """uint8 images of the batch, as they are kept, and the augmented batch brought back to pixel values."""
    pixels, kept = make(**changes), make()
    chosen = pixels._order(0)[:N]
    inputs = pixels.batch(0, N)[0] * pixels._std + pixels._mean
    return kept._train[chosen], inputs.round().to(torch.uint8)


def test_flip_mirrors_some(make):
    images, augmented = unaugmented(make, flip=True)
    flipped = [torch.equal(ours, theirs.flip(2)) for ours, theirs in zip(augmented, images, strict=True)]
    same = [torch.equal(ours, theirs) for ours, theirs in zip(augmented, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 4 <= sum(flipped) <= 20  # 12 +- 2.4


def test_crop_cuts_somewhere_out_of_the_padded_image(make):
    images, augmented = unaugmented(make, crop=2)
    padded = F.pad(images, (2, 2, 2, 2))
    places = set()
    for ours, source in zip(augmented, padded, strict=True):
        found = [(y, x) for y in range(5) for x in range(5) if torch.equal(ours, source[:, y : y + SIDE, x : x + SIDE])]
        assert len(found) == 1
        places.update(found)
    assert len(places) > 10  # of 25, drawn 24 times: 15.6 are expected
    assert {y for y, _ in places} == {x for _, x in places} == set(range(5))


def test_cutout_hides_one_square_and_is_off_by_default(make):
    assert PixelData().cutout == 0
    whole, cut = make().batch(0, N)[0], make(cutout=3).batch(0, N)[0]
    hidden = (cut == 0).all(1)
    assert torch.equal(torch.where(hidden[:, None], 0.0, whole), cut)
    for mask in hidden:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])  # a rectangle
        assert 2 <= rows.sum() <= 3  # cut at the edges: the centre is inside
        assert 2 <= columns.sum() <= 3


def test_augmentation_is_a_function_of_seed_and_step(make):
    options = {"flip": True, "crop": 2, "cutout": 2}
    first, again = make(**options), make(**options)
    torch.manual_seed(5)
    steps = {step: first.batch(step, 8)[0] for step in (4, 0, 2)}
    assert all(torch.equal(again.batch(step, 8)[0], batch) for step, batch in sorted(steps.items()))
    other = make(**options, augment_seed=1)
    assert not torch.equal(other.batch(0, 8)[0], steps[0])
    assert torch.equal(other.batch(0, 8)[1], first.batch(0, 8)[1])
    images, labels = first.batch(0, N)
    second = first.batch(1, N)[0]  # the next epoch sees the same images in other ways
    back = [(images[labels == c].sum() - second[labels == c].sum()).abs().item() for c in range(3)]
    assert max(back) > 0


def test_ranks_share_the_batch(make):
    pixels = make(flip=True, crop=2, cutout=2)
    whole = pixels.batch(1, 12)
    parts = [pixels.part(1, 12, rank=rank, world=3) for rank in range(3)]
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])
    with pytest.raises(InputError, match="batch_size = 12 is not allowed: it must be a multiple of 5"):
        pixels.part(1, 12, rank=0, world=5)


def test_to_moves_everything(make):
    pixels = make(flip=True, crop=2, cutout=2)
    assert pixels.to("meta") is pixels
    assert {x.device.type for x in (pixels._train, pixels._test, pixels._mean, pixels.train_labels)} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_the_same_is_drawn(make):
    here, there = make(flip=True, crop=2, cutout=2), make(flip=True, crop=2, cutout=2).to("cuda")
    images, labels = there.batch(3, 8)
    torch.testing.assert_close(images.cpu(), here.batch(3, 8)[0])
    assert torch.equal(labels.cpu(), here.batch(3, 8)[1])


def test_subsets_are_nested_and_decoded_pixels_are_cached(make, monkeypatch):
    everything, some = make(), make(train=7)
    assert torch.equal(some._train, everything._train[:7])
    assert len(some._test) == len(everything._test) == 6
    monkeypatch.setattr("empirics.data.pixels.decode", lambda files: pytest.fail("decoded again"))
    assert make(train=9).hash != everything.hash == make().hash


def test_label_noise(make):
    assert not torch.equal(make(label_noise=1.0).train_labels, make().train_labels)
    assert torch.equal(make(label_noise=1.0)._train, make()._train)


def test_digits_too():
    digits = PixelData(source="digits", train=1000, crop=1)
    plain = ImageData(train=1000, label_noise=0.0).open()
    torch.testing.assert_close(digits.open().train_images, plain.train_images, rtol=1e-5, atol=1e-5)


def test_the_hub(folder, monkeypatch):
    calls = []

    def load(repository, name, *, split, streaming):
        calls.append((repository, split))
        return datasets.Dataset.from_parquet(str(folder / f"{split}.parquet"), cache_dir=str(folder / "hub"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    config = {"train": N, "flip": False, "crop": 0}
    ours = PixelData(source="cifar100", **config).open(folder / "cache")
    assert ours.hash == PixelData(source=f"parquet:{folder}", **config).open(folder / "cache").hash
    assert calls == [("uoft-cs/cifar100", "train"), ("uoft-cs/cifar100", "test")]


@pytest.mark.parametrize(
    ("field", "value"),
    [("flip", 1), ("crop", -1), ("cutout", 0.5), ("augment_seed", -1), ("image_size", 16), ("source", "cifar")],
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        PixelData(**{field: value})


def test_json_round_trip_and_a_kind_of_its_own():
    config = PixelData(crop=2)
    assert from_json(to_json(config)) == config
    assert content_hash(PixelData(source="digits", train=1000, label_noise=0.3)) != content_hash(ImageData())

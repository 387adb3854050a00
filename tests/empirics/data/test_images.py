import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from empirics.data import ImageData
from theory.errors import InputError
from theory.serialize import content_hash, from_json, to_json


@pytest.fixture(scope="module")
def digits():
    return ImageData().open()


@pytest.fixture(scope="module")
def clean():
    return ImageData(label_noise=0.0).open()


def test_shapes(digits):
    assert digits.train_images.shape == (1000, 1, 8, 8)
    assert digits.test_images.shape == (797, 1, 8, 8)
    assert digits.train_images.dtype == torch.float32
    assert digits.train_labels.dtype == digits.test_labels.dtype == torch.int64
    assert digits.num_classes == 10
    assert digits.steps_per_epoch(32) == 31


def test_split_and_labels_are_those_of_the_digits(clean):
    pixels, labels = load_digits(return_X_y=True)
    images = torch.cat([clean.train_images, clean.test_images]).flatten(1).double()
    raw = (images - images.min()) / (images.max() - images.min()) * 16  # undo the affine standardisation
    ours = np.column_stack([raw.round().numpy(), torch.cat([clean.train_labels, clean.test_labels])])
    theirs = np.column_stack([pixels, labels])
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))


def test_standardised_by_the_training_set(digits):
    assert abs(digits.train_images.mean().item()) < 1e-6
    assert digits.train_images.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert abs(digits.test_images.mean().item()) > 1e-4


def test_label_noise_is_symmetric_and_only_in_the_training_set(digits, clean):
    assert torch.equal(digits.train_images, clean.train_images)
    assert torch.equal(digits.test_labels, clean.test_labels)
    changed = (digits.train_labels != clean.train_labels).sum().item()
    assert 240 <= changed <= 300  # 300 labels drawn anew, a tenth of them right by chance: 270 +- 5
    noisy = ImageData(label_noise=1.0).open().train_labels
    assert 0.05 < (noisy == clean.train_labels).float().mean().item() < 0.15
    assert noisy.bincount(minlength=10).min() > 60
    other = ImageData(noise_seed=1).open()
    assert not torch.equal(other.train_labels, digits.train_labels)
    assert torch.equal(other.train_images, digits.train_images)


def test_epochs_are_permutations(digits):
    rows = {tuple(image.flatten().tolist()): i for i, image in enumerate(digits.train_images)}
    epochs = []
    for epoch in range(2):
        batches = [digits.batch(epoch * 31 + i, 32) for i in range(31)]
        index = [rows[tuple(image.flatten().tolist())] for images, _ in batches for image in images]
        assert len(set(index)) == 31 * 32
        assert torch.equal(torch.cat([labels for _, labels in batches]), digits.train_labels[index])
        epochs.append(index)
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_batches_depend_on_configuration_and_step_only(digits):
    again = ImageData().open()
    torch.manual_seed(1)
    for step in (40, 3, 40):
        for ours, theirs in zip(digits.batch(step, 32), again.batch(step, 32), strict=True):
            assert torch.equal(ours, theirs)
    other = ImageData(order_seed=1).open()
    assert not torch.equal(other.batch(0, 32)[0], digits.batch(0, 32)[0])
    assert other.hash == digits.hash


def test_digits_are_bitwise_what_they_were_before_other_images_came(digits):
    """Hashes of the first version: finished runs keep their directories, and their batches."""
    batches = hashlib.sha256()
    for step in (0, 3, 40):
        for tensor in digits.batch(step, 32):
            batches.update(tensor.numpy().tobytes())
    assert batches.hexdigest() == "809bcf07476566e7fb3f4433fd10afcd1e88b7d0a7b084f4fba2c340c60fe05f"
    assert digits.hash == "ea1c224eec702f1c4dea475dcd7cac86891ad2a8efb9804a650a4409102cdbb5"
    assert content_hash(ImageData()) == "2b7685e4bc4d7c07374d526828757cb439a7ced83ce5794dc25746bf9f617947"


def test_ranks_share_the_batch_and_see_different_images(digits):
    whole = digits.batch(35, 32)
    parts = [digits.part(35, 32, rank=rank, world=4) for rank in range(4)]
    assert [len(labels) for _, labels in parts] == [8] * 4
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


def test_smaller_training_sets_are_nested(clean):
    small = ImageData(train=500, label_noise=0.0).open()
    assert len(small.test_images) == 1297
    assert torch.equal(small.train_labels, clean.train_labels[:500])
    assert not torch.equal(ImageData(label_noise=0.0, split_seed=1).open().train_labels, clean.train_labels)


def test_validation_is_the_test_set_in_order(digits):
    batches = list(digits.validation(100))
    assert [len(labels) for _, labels in batches] == [100] * 7 + [97]
    assert torch.equal(torch.cat([images for images, _ in batches]), digits.test_images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), digits.test_labels)


def test_hash_follows_the_content(digits, clean):
    assert digits.hash == ImageData().open().hash != clean.hash
    assert digits.hash != ImageData(split_seed=1).open().hash


def test_batch_size_is_checked(digits):
    digits.check(10**6, 1000)
    with pytest.raises(InputError, match="at most 1000"):
        digits.batch(0, 1001)
    with pytest.raises(InputError, match="batch_size"):
        digits.check(1, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", "digit"),
        ("source", "parquet:"),
        ("train", 0),
        ("label_noise", 1.1),
        ("image_size", 0),
        ("noise_seed", -1),
    ],
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        ImageData(**{field: value})


@pytest.mark.parametrize(("train", "message"), [(1798, "at most 1797"), (1797, "test images are left")])
def test_too_many_training_images_are_refused(train, message):
    with pytest.raises(InputError, match=message):
        ImageData(train=train).open()


def test_json_round_trip():
    config = ImageData(source="parquet:somewhere", image_size=16)
    assert from_json(to_json(config)) == config


# ------------------------------------------------------------------------------------------------- parquet folders


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write(file, images, labels, column="img"):
    rows = [{"bytes": image, "path": ""} for image in images]
    pq.write_table(pa.table({column: rows, "label": list(labels)}), file)


@pytest.fixture
def colour(tmp_path):
    """Twelve training images in two files, four test images; 4x4 pixels, three classes."""
    pixels = np.random.default_rng(0).integers(256, size=(16, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(16) % 3
    for name, part in (("train-0", slice(0, 6)), ("train-1", slice(6, 12)), ("test-0", slice(12, 16))):
        write(tmp_path / f"{name}.parquet", map(png, pixels[part]), labels[part])
    return tmp_path, pixels, labels


def test_parquet(colour):
    path, pixels, labels = colour
    images = ImageData(source=f"parquet:{path}", train=12, label_noise=0.0).open()
    assert (images.train_images.shape, images.num_classes) == ((12, 3, 4, 4), 3)
    assert images.test_labels.tolist() == labels[12:].tolist()
    train = pixels[:12].astype(float)
    standardised = (pixels[12:] - train.mean((0, 1, 2))) / train.std((0, 1, 2))
    np.testing.assert_allclose(images.test_images.permute(0, 2, 3, 1), standardised, rtol=1e-4, atol=1e-5)
    assert sorted(images.train_labels.tolist()) == sorted(labels[:12].tolist())
    assert torch.allclose(images.train_images.mean((0, 2, 3)), torch.zeros(3), atol=1e-6)


def test_parquet_pooling(colour):
    path, pixels, _ = colour
    images = ImageData(source=f"parquet:{path}", train=12, label_noise=0.0, image_size=2).open()
    pooled = pixels.astype(float).reshape(16, 2, 2, 2, 2, 3).mean((2, 4))
    standardised = (pooled[12:] - pooled[:12].mean((0, 1, 2))) / pooled[:12].std((0, 1, 2))
    np.testing.assert_allclose(images.test_images.permute(0, 2, 3, 1), standardised, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="a divisor of the images' side, 4"):
        ImageData(source=f"parquet:{path}", train=12, image_size=3).open()
    with pytest.raises(InputError, match="at most 12"):
        ImageData(source=f"parquet:{path}", train=13).open()


def test_parquet_grey_and_column_named_image(tmp_path):
    grey = [png(np.full((2, 2), i, dtype=np.uint8)) for i in range(4)]
    for name in ("train", "test"):
        write(tmp_path / f"{name}.parquet", grey, range(4), column="image")
    assert ImageData(source=f"parquet:{tmp_path}", train=4).open().train_images.shape == (4, 1, 2, 2)


def test_unusable_parquet_is_refused(tmp_path):
    config = ImageData(source=f"parquet:{tmp_path}", train=1)
    with pytest.raises(InputError, match=r"a folder with train\*\.parquet"):
        config.open()
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read as images"):
        config.open()
    write(tmp_path / "train.parquet", [b"not an image"], [0])
    with pytest.raises(InputError, match="cannot be decoded"):
        config.open()
    write(tmp_path / "train.parquet", [b""], [0], column="picture")
    with pytest.raises(InputError, match="no column img or image"):
        config.open()
    pq.write_table(pa.table({"img": [{"bytes": b""}]}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match="no column label or fine_label"):
        config.open()

import pytest

from empirics.elsewhere import on_data
from empirics.experiments import experiment
from theory.errors import InputError

TEXT, IMAGES = experiment("gpt2_small_text"), experiment("resnet_noisy_digits", seed=2)


@pytest.mark.parametrize(
    "source", ["openwebtext", "wikitext", "fineweb-edu", "python", "bin:a/b", "parquet:a", "text:C:/a"]
)
def test_a_language_model_reads_another_text(source):
    config = on_data(TEXT, source)
    assert config.data.source == source
    assert on_data(config, "python") == TEXT
    assert on_data(config, None) is config


def test_installed_packages_are_left_out_elsewhere():
    assert experiment("gpt2_medium_text").data.packages
    assert not on_data(experiment("gpt2_medium_text"), "text:a").data.packages


@pytest.mark.parametrize(("source", "shape"), [("cifar10", (3, 10)), ("cifar100", (3, 100)), ("digits", (1, 10))])
def test_a_network_for_images_gets_their_channels_and_classes(source, shape):
    for name in ("resnet_noisy_digits", "resnet34_cifar100", "vgg16_cifar10"):
        config = on_data(experiment(name, seed=2), source)
        assert (config.model.in_channels, config.model.num_classes) == shape
        assert (config.data.source, config.data.order_seed) == (source, 2)


def test_of_a_folder_they_are_not_known_and_digits_are_a_thousand():
    assert on_data(IMAGES, "parquet:a").model == IMAGES.model
    paper = experiment("resnet18_cifar10", scale="paper")
    assert on_data(paper, "cifar10") is paper
    assert on_data(paper, "digits").data.train == 1_000
    assert len(on_data(paper, "digits").data.open().train_labels) == 1_000


@pytest.mark.parametrize(
    ("config", "source", "sentence"),
    [
        (TEXT, "cifar10", r"data = 'cifar10' .* openwebtext, .* text:DIR, parquet:DIR, bin:DIR for a language model"),
        (TEXT, "bin:", "data = 'bin:'"),
        (TEXT, "", "data = ''"),
        (IMAGES, "python", "data = 'python' .* digits, cifar10, cifar100 or parquet:DIR for a network for images"),
        (IMAGES, "text:a", "data = 'text:a'"),
    ],
)
def test_bad_data_get_one_sentence(config, source, sentence):
    with pytest.raises(InputError, match=sentence):
        on_data(config, source)

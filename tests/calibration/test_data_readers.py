"""Readers: each source gives the same samples, and what does not fit is refused before the first one is used."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from edgedeploy.calibration.dataset import ArrayDataset, Dataset, open_dataset, sidecar, split
from edgedeploy.calibration.preprocessing import Preprocessing
from edgedeploy.calibration.readers.generator import GeneratorReader
from edgedeploy.errors import InputError
from edgedeploy.tensors import TensorSpec

IMAGE = TensorSpec("image", (1, 3, 4, 5), "float32")
IDS = TensorSpec("ids", ("batch", 6), "int64")
MASK = TensorSpec("mask", ("batch", 6), "int64")


def images(count=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3, 4, 5)).astype(np.float32)


def assert_holds(dataset, array):
    assert len(dataset) == len(array)
    for sample, row in zip(dataset, array, strict=True):
        assert sample["image"].dtype == np.float32
        np.testing.assert_array_equal(sample["image"], row[None])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_gives_its_rows_and_labels(tmp_path, save):
    save(tmp_path / "d.npz", image=images(), labels=np.arange(5))
    dataset = open_dataset(tmp_path / "d.npz", [IMAGE])
    assert_holds(dataset, images())
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4]
    assert dataset.take(2).labels.tolist() == [0, 1]


def test_every_source_of_the_same_samples_has_the_same_digest(tmp_path):
    array = images()
    np.savez(tmp_path / "d.npz", image=array)
    (tmp_path / "by_input").mkdir()
    np.save(tmp_path / "by_input/image.npy", array)
    (tmp_path / "by_sample").mkdir()
    for index, row in enumerate(array):
        np.save(tmp_path / f"by_sample/{index}.npy", row)
    reader = GeneratorReader(lambda: ({"image": row} for row in array), [IMAGE], "rows")
    datasets = [
        *(open_dataset(tmp_path / name, [IMAGE]) for name in ("d.npz", "by_input", "by_sample")),
        Dataset(reader, tuple(range(len(reader)))),
        ArrayDataset({"image": array[::-1]}),
    ]
    assert len({dataset.digest for dataset in datasets}) == 1
    assert ArrayDataset({"image": images(seed=1)}).digest != datasets[0].digest


def test_samples_may_stand_on_an_axis_before_the_batch_axis(tmp_path):
    np.savez(tmp_path / "d.npz", image=images()[:, None])
    assert_holds(open_dataset(tmp_path / "d.npz", [IMAGE]), images())


def test_a_static_batch_takes_that_many_rows_a_sample(tmp_path):
    np.savez(tmp_path / "d.npz", image=images(6))
    dataset = open_dataset(tmp_path / "d.npz", [TensorSpec("image", (2, 3, 4, 5), "float32")])
    assert [sample["image"].shape for sample in dataset] == [(2, 3, 4, 5)] * 3


def test_several_inputs_are_read_together(tmp_path):
    ids, mask = np.arange(18).reshape(3, 6), np.ones((3, 6), np.int32)
    np.savez(tmp_path / "d.npz", ids=ids, mask=mask)
    dataset = open_dataset(tmp_path / "d.npz", [IDS, MASK])
    assert [sample["ids"].tolist() for sample in dataset] == [[row.tolist()] for row in ids]
    assert {sample["mask"].dtype for sample in dataset} == {np.dtype(np.int64)}
    assert next(dataset.batches(2))["ids"].shape == (2, 6)


def test_a_callable_may_yield_batches_of_any_size():
    def batches():
        yield {"image": images()[:3], "labels": [7, 8, 9]}
        yield {"image": images()[3:], "labels": [1, 2]}

    reader = GeneratorReader(batches, [IMAGE], "batches")
    dataset = Dataset(reader, tuple(range(len(reader))))
    assert_holds(dataset, images())
    assert dataset.labels.tolist() == [7, 8, 9, 1, 2]


def test_a_named_callable_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "calibration_data_of_test.py").write_text(
        "import numpy as np\ndef rows():\n    yield {'image': np.ones((3, 4, 5), np.float32)}\n"
        "def broken():\n    raise KeyError('no such file')\n    yield\n"
    )
    monkeypatch.chdir(tmp_path)
    assert len(open_dataset("calibration_data_of_test:rows", [IMAGE])) == 1
    with pytest.raises(InputError, match="KeyError: 'no such file'"):
        open_dataset("calibration_data_of_test:broken", [IMAGE])
    with pytest.raises(InputError, match="cannot be imported"):
        open_dataset("calibration_data_of_test:missing", [IMAGE])


def test_images_are_resized_cropped_and_normalized(tmp_path):
    Image.new("RGB", (20, 10), (255, 0, 128)).save(tmp_path / "b.png")
    Image.new("RGB", (10, 20), (0, 255, 0)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,class\na.png,3\nb.png,1\n")
    preparation = Preprocessing(resize=5, crop=(4, 5), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25))
    dataset = open_dataset(tmp_path, [IMAGE], preparation)
    first, second = list(dataset)
    np.testing.assert_allclose(first["image"][0, :, 0, 0], [-1, 1, -2], atol=1e-6)
    np.testing.assert_allclose(second["image"][0, :, 0, 0], [1, -1, (128 / 255 - 0.5) / 0.25], atol=1e-6)
    assert dataset.labels.tolist() == [3, 1]
    assert preparation.model_copy(update={"layout": "NHWC"}).apply(Image.new("RGB", (9, 9))).shape == (4, 5, 3)
    assert Preprocessing(color="gray", resize=(4, 5)).apply(Image.new("RGB", (9, 9))).shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"mean": (0.5, 0.5)}, "mean needs 1 or 3 values"),
        ({"std": (0.0,)}, "std must not be 0"),
        ({"sclae": 1}, "sclae"),
    ],
)
def test_wrong_preprocessing_is_named(choices, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Preprocessing(**choices)


def test_a_sidecar_is_found_beside_the_model(tmp_path):
    assert sidecar(tmp_path / "model.pt", "calib") is None
    np.savez(tmp_path / "model.calib.npz", image=images())
    assert sidecar(tmp_path / "model.pt", "calib") == tmp_path / "model.calib.npz"


class TestBadInput:
    def refused(self, tmp_path, inputs, sentence, **arrays):
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(InputError) as caught:
            open_dataset(tmp_path / "d.npz", inputs)
        assert sentence in str(caught.value)

    def test_names(self, tmp_path):
        self.refused(tmp_path, [IMAGE], "missing ['image']; unknown ['pixels']", pixels=images())

    def test_shapes(self, tmp_path):
        self.refused(tmp_path, [IMAGE], "(5, 4, 5, 3)", image=images().transpose(0, 2, 3, 1).copy())

    def test_ids_as_float(self, tmp_path):
        self.refused(tmp_path, [IDS], "astype('int64')", ids=np.zeros((2, 6), np.float32))

    def test_raw_pixels(self, tmp_path):
        self.refused(tmp_path, [IMAGE], "preprocessing", image=images().astype(np.uint8))

    def test_zero_samples(self, tmp_path):
        self.refused(tmp_path, [IMAGE], "holds no samples", image=images()[:0])

    def test_ragged(self, tmp_path):
        self.refused(tmp_path, [IDS, MASK], "ids: 3, mask: 2", ids=np.zeros((3, 6), int), mask=np.zeros((2, 6), int))

    def test_labels_for_some(self, tmp_path):
        self.refused(tmp_path, [IMAGE], "image: 5, labels: 4", image=images(), labels=np.arange(4))

    def test_rows_that_do_not_fill_a_batch(self, tmp_path):
        batched = TensorSpec("image", (2, 3, 4, 5), "float32")
        self.refused(tmp_path, [batched], "not a multiple of 2", image=images(5))

    def test_nan(self, tmp_path):
        array = images()
        array[3, 1, 2, 2] = np.nan
        np.savez(tmp_path / "d.npz", image=array)
        with pytest.raises(InputError, match=r"(?s)input 'image'.*row 3"):
            open_dataset(tmp_path / "d.npz", [IMAGE]).digest  # noqa: B018

    def test_a_malicious_npz_runs_nothing(self, tmp_path):
        class Harm:
            def __reduce__(self):
                return (open, (str(tmp_path / "harm"), "w"))

        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (5,)})
        with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
            archive.writestr("image.npy", header.getvalue() + pickle.dumps(Harm()))
        with pytest.raises(InputError, match="pickled Python objects"):
            open_dataset(tmp_path / "d.npz", [IMAGE])
        assert not (tmp_path / "harm").exists()

    @pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_a_truncated_npz(self, tmp_path, keep, save):
        save(tmp_path / "d.npz", image=images(50))
        content = (tmp_path / "d.npz").read_bytes()
        (tmp_path / "d.npz").write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
        with pytest.raises(InputError, match="not an npz file"):
            open_dataset(tmp_path / "d.npz", [IMAGE])

    def test_a_member_shorter_than_its_header_says(self, tmp_path):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (5, 3, 4, 5)})
        with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
            archive.writestr("image.npy", header.getvalue() + bytes(100))
        with pytest.raises(InputError, match="cut short"):
            open_dataset(tmp_path / "d.npz", [IMAGE])

    def test_a_truncated_npy(self, tmp_path):
        np.save(tmp_path / "image.npy", images())
        (tmp_path / "image.npy").write_bytes((tmp_path / "image.npy").read_bytes()[:-1])
        with pytest.raises(InputError, match="cut short"):
            open_dataset(tmp_path, [IMAGE])

    def test_one_file_of_another_shape(self, tmp_path):
        np.save(tmp_path / "0.npy", images()[0])
        np.save(tmp_path / "1.npy", images()[0, :, :3])
        with pytest.raises(InputError, match=r"(?s)1\.npy.*\(3, 3, 5\)"):
            open_dataset(tmp_path, [IMAGE])

    def test_a_broken_image(self, tmp_path):
        Image.new("RGB", (50, 40), (9, 9, 9)).save(tmp_path / "good.jpg")
        content = (tmp_path / "good.jpg").read_bytes()
        (tmp_path / "bad.jpg").write_bytes(content[: len(content) - 200])
        with pytest.raises(InputError, match=r"bad\.jpg is broken"):
            open_dataset(tmp_path, [IMAGE], Preprocessing(resize=(4, 5))).digest  # noqa: B018

    def test_an_image_of_another_size(self, tmp_path):
        Image.new("RGB", (50, 40)).save(tmp_path / "wide.png")
        with pytest.raises(InputError, match=r"(?s)wide\.png.*\(3, 40, 50\)"):
            list(open_dataset(tmp_path, [IMAGE], Preprocessing()))

    def test_images_without_preprocessing(self, tmp_path):
        Image.new("RGB", (5, 4)).save(tmp_path / "x.png")
        with pytest.raises(InputError, match=r"\[preprocessing.image\]"):
            open_dataset(tmp_path, [IMAGE])

    def test_images_with_a_missing_label(self, tmp_path):
        Image.new("RGB", (5, 4)).save(tmp_path / "x.png")
        (tmp_path / "labels.csv").write_text("y.png,1\n")
        with pytest.raises(InputError, match=r"(?s)no label for 1 image.*x\.png"):
            open_dataset(tmp_path, [IMAGE], Preprocessing())

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(InputError, match="no samples"):
            open_dataset(tmp_path, [IMAGE])

    def test_nothing_there(self, tmp_path):
        with pytest.raises(InputError, match="no data at"):
            open_dataset(tmp_path / "none.npz", [IMAGE])

    @pytest.mark.parametrize(
        ("item", "sentence"),
        [
            (3, "must yield dicts"),
            ({"pixels": 1}, "not the model's inputs"),
            ({"image": np.ones((3, 4, 6), np.float32)}, "does not fit"),
            ({"image": images(), "labels": [1]}, "same number"),
        ],
    )
    def test_a_callable_that_yields_something_else(self, item, sentence):
        with pytest.raises(InputError, match=sentence):
            GeneratorReader(lambda: [item], [IMAGE], "mine")

    def test_a_callable_that_yields_nothing_or_forever(self, monkeypatch):
        with pytest.raises(InputError, match="no samples"):
            GeneratorReader(list, [IMAGE], "mine")
        monkeypatch.setattr("edgedeploy.calibration.readers.generator.MOST_SAMPLES", 10)
        with pytest.raises(InputError, match="more than 10"):
            GeneratorReader(lambda: iter(lambda: {"image": images(1)}, None), [IMAGE], "mine")


class TestSplit:
    def test_content_decides_not_order(self):
        array = images(20)
        rest, held = split(ArrayDataset({"image": array}), 0.25)
        shuffled = split(ArrayDataset({"image": array[np.random.default_rng(1).permutation(20)]}), 0.25)
        assert (len(rest), len(held)) == (15, 5)
        assert set(held.hashes) == set(shuffled[1].hashes)
        assert not set(rest.hashes) & set(held.hashes)

    def test_equal_samples_stay_together(self):
        array = np.concatenate([images(4)] * 5)
        rest, held = split(ArrayDataset({"image": array}))
        assert not set(rest.hashes) & set(held.hashes)
        assert (len(rest), len(held)) == (15, 5)

    def test_one_sample_cannot_be_split(self):
        with pytest.raises(InputError, match="at least two different"):
            split(ArrayDataset({"image": np.concatenate([images(1)] * 3)}))


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    """Reading row by row: 60 MiB of samples pass through a process that may not hold 20 MiB of them."""
    import tracemalloc

    spec = TensorSpec("image", (1, 3, 128, 128), "float32")
    for name, save in (("stored", np.savez), ("compressed", np.savez_compressed)):
        save(tmp_path / f"{name}.npz", image=np.zeros((320, 3, 128, 128), np.float32))
        tracemalloc.start()
        assert len(set(open_dataset(tmp_path / f"{name}.npz", [spec]).hashes)) == 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 * 2**20

"""AD: learn what good parts look like, then say of any image whether it deviates, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from . import training
from .choosing import Comparison, Optimisation, Tuning, optimize, tune
from .choosing.optimising import MARGIN
from .choosing.tuning import TRIALS
from .errors import OptionError
from .evaluation import Drift, Evaluation, ProbabilityOfDetection, calibrate, detection_curve
from .evaluation.detection import CONTRAST
from .evaluation.drift import drift
from .evaluation.rates import at_rates, table
from .exports import Export, export
from .images import Image, PathLike, TrainingImages, find_training_images
from .images.exclusion import Exclude, without
from .images.groups import Groups, grouped
from .images.labelled import Labels, find_labelled
from .images.sources import PredictInput
from .inspection import Prediction, check_place, look, place, predict, stream
from .model import SAVE_PATH, Choice, StoredModel
from .report.comparison import compared
from .report.page import evaluated, report, told
from .report.review import Review, after_training, review
from .runtime import Device
from .runtime.devices import CPU
from .support import printable, say
from .workers import using, workers_of

if TYPE_CHECKING:
    from .scale import DatasetRun


class AD:
    """Anomaly detection that learns from images of good parts only.

    Parameters
    ----------
    model_name : str
        The name of a method ("padim", "patchcore", "dfm", "dfkde": Gaussians, nearest neighbours,
        principal components and density of pretrained features; "rd", "cfa", "simplenet",
        "fastflow", "cflow", "stfpm", "draem", "efficientad": trained on them by gradient;
        "ensemble": several as one; "AD0", "AD1", "vae", "lake", "ganomaly": autoencoders;
        `anomaly-ad detectors` says what each is), or the path of a model directory that `train`
        has saved. A method's name wins over a path.
    train_path : path or list of paths
        Images of good parts, for `train`. Nothing is read before that. Rules for folders:
        `load_data`.
    gray_scale : bool, optional
        Whether images are taken as gray; None for the method's own.
    save_path : path
        Where `train` saves: the model directory is ``<save_path>/<name>``. A model that was loaded
        from a path is saved back there unless another `save_path` or a `name` is given.
    img_size : (int, int), optional
        (height, width) of the model's input in pixels; None for the method's own. For those on
        pretrained features that is 256x256 until `train` has seen the images, whose aspect ratio
        it then takes, and for "patchcore" their number of pixels up to 384x384.
    patch_size : int, optional
        Side of a patch in pixels of the model's input, larger than the largest defect; None for
        the method's own.
    seed : int
        The same images, seed and machine give the same model; for methods that learn by gradient up
        to the last digits, since TensorFlow's threads may add in another order.
    fit : {"stretch", "pad"}
        How photographs of another aspect ratio are brought to `img_size`.
    value_range : (float, float), optional
        Values of pixels that become black and white, for images of more than 8 bits: (0, 4095)
        for a camera of 12 bits in files of 16. None: `train` learns them from its images.
    roi : rectangle, polygons, mask, path or "part", optional
        What is inspected of each photograph, in its pixels: a rectangle (x1, y1, x2, y2), corners
        [(x, y), ...] or a list of such lists, a mask of its size (an array, or a file in which
        white is inspected), a JSON file of `anomaly-ad roi`; or "part", the part that stands out
        from its background and a margin, found in each photograph. Outside it nothing is learnt,
        scored, boxed or drawn. All but "part" need photographs of one size.
    ignore : rectangle, polygons, mask or path, optional
        What is not inspected, in the same forms.
    align : {"none", "translation", "rigid", "auto"}, optional
        How photographs are brought into one pose: moved, or moved and turned, by the outline of
        the part where that stands out from its background, and by registration to the most typical
        training image where it does not. "auto" decides from the training images, and says why:
        it turns elongated parts that lie in different directions, and leaves all else as it lies,
        also where a region is given. An image that cannot be brought into pose is anomalous, with
        that as its reason. None for "auto".
    normalize : {"none", "gain", "flatfield"}, optional
        Light: "gain" brings level and contrast of an image to those of the training images, by a
        factor from 1/1.5 to 1.5 and 64 gray levels at most; "flatfield" divides by their smooth
        mean. None for "none".
    tiles : (int, int) or "auto", optional
        For small defects in large photographs: (rows, columns) of overlapping tiles, each a view
        of its own for the same model. "auto" lays them so that the `smallest_defect` covers a
        cell of the method's grid. Needs photographs of one size; not for
        "padim", "cfa" and "ensemble".
    tile_size : (int, int), optional
        (height, width) of the tiles in pixels of the photograph, instead of `tiles`.
    overlap : float, optional
        Share of a tile that the next one covers as well, at least; None for 0.1.
    smallest_defect : float, optional
        Side of the smallest defect that must be found, in pixels of the photograph, for
        ``tiles="auto"``; None for as small as the photograph shows: its full resolution.
    false_alarm_rate : float, optional
        Share of good parts that may be rejected at the default threshold; None for 0.01.
    precision : {"f32", "bf16", "f16"}
        Arithmetic of the OpenVINO model. Limits hold in it.
    device : str, optional
        For a model that is loaded: where it runs, "CPU", "GPU", "NPU", one of several such as
        "GPU.1", or "AUTO"; `anomaly-ad devices` lists what is there. None for the CPU.
    threads : int, optional
        For a model that is loaded: threads of the CPU; None for as many as the process may use, in
        a container those of its share.
    check : path, optional
        A folder of good images. On a device other than the one that the limits were taken on, the
        scores of up to 32 of them are compared with that one's, and the model is refused if they
        deviate, see `inspection.place`.
    name : str, optional
        Of the model directory in `save_path`; None for "model". Another name saves a model next to
        those that are there.
    **parameters
        Options of the method itself; an unknown one is an error that lists the valid ones. A
        model that was trained on a backbone of your own needs ``backbone=`` again only to train
        or to add images.

    Raises
    ------
    OptionError
        An argument cannot be used, or is fixed by the model that is loaded.
    ModelError
        The path holds no model, or a damaged one.
    DeviceError
        The limits do not hold on the device.

    Notes
    -----
    Higher scores are more anomalous, everywhere. Training needs the extra "train" (TensorFlow);
    everything else runs without it.
    """

    def __init__(
        self,
        model_name: PathLike = "AD1",
        train_path: PathLike | Iterable[PathLike] = "Dataset/",
        gray_scale: bool | None = None,
        save_path: PathLike = SAVE_PATH,
        img_size: tuple[int, int] | None = None,
        patch_size: int | None = None,
        *,
        seed: int | None = None,
        fit: Literal["stretch", "pad"] | None = None,
        value_range: tuple[float, float] | None = None,
        roi: Any = None,
        ignore: Any = None,
        align: Literal["none", "translation", "rigid", "auto"] | None = None,
        normalize: Literal["none", "gain", "flatfield"] | None = None,
        tiles: tuple[int, int] | Literal["auto"] | None = None,
        tile_size: tuple[int, int] | None = None,
        overlap: float | None = None,
        smallest_defect: float | None = None,
        false_alarm_rate: float | None = None,
        precision: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        check: PathLike | None = None,
        name: str | None = None,
        **parameters: Any,
    ) -> None:
        self.train_path = train_path
        self._good: TrainingImages | None = None
        given = {
            "gray_scale": gray_scale,
            "img_size": img_size,
            "patch_size": patch_size,
            "seed": seed,
            "fit": fit,
            "value_range": value_range,
            "roi": roi,
            "ignore": ignore,
            "align": align,
            "normalize": normalize,
            "tiles": tiles,
            "tile_size": tile_size,
            "overlap": overlap,
            "smallest_defect": smallest_defect,
            "false_alarm_rate": false_alarm_rate,
            "precision": precision,
            **parameters,
        }
        self._choice = Choice.of(model_name, save_path, name, given)
        self._device = Device(device or CPU, threads)
        if self._choice.stored is not None:
            stored = place(self._choice.stored, self._device, check)
            self._choice = self._choice.with_model(stored)
            if stored.shown:
                say(printable(stored.shown))
        elif device is not None or threads is not None or check is not None:
            raise OptionError(
                "device, threads and check are for a model that is loaded: training runs on the "
                'CPU. Train it, then load it: AD("Models/model", device=...).'
            )

    def __repr__(self) -> str:
        return (
            f"AD({self._choice.plan.method!r}, img_size={self.img_size}, "
            f"gray_scale={self.gray_scale}, patch_size={self.patch_size}; {self._choice.state})"
        )

    def _check_trains(self) -> None:
        if self._device.kind != CPU:
            raise OptionError(
                "Training and its limits are those of the CPU. Load the model without `device`."
            )

    @property
    def gray_scale(self) -> bool:
        """Whether images are taken as gray."""
        return self._choice.plan.framing.channels == 1

    @property
    def img_size(self) -> tuple[int, int]:
        """(height, width) of the model's input in pixels."""
        return self._choice.plan.framing.size

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels of the model's input."""
        return self._choice.plan.patch_size

    @property
    def model(self) -> StoredModel:
        """The trained or loaded model; NotTrainedError if there is none.

        DeviceError where its limits are not known to hold on the device.
        """
        return check_place(self._choice.model)

    def load_data(self, path: PathLike | Iterable[PathLike]) -> AD:
        """Choose the images of good parts that `train` learns from, and print which they are.

        Parameters
        ----------
        path : path or list of paths
            A list is taken as it is. In a folder: if it has a folder ``train`` (any case), only
            that is used, and in it only the one whose name means good (good, ok, i.O., gut, bon,
            ...) if there is exactly one. Otherwise the images in it, unless folders next to them
            are named after defects, tests or masks: defects must never be learned. What is not
            clear is refused with a list of what was found; the page Folders and files has all
            cases.
            Files count by suffix: .jpg .jpeg .jpe .jfif .png .bmp .dib .tif .tiff .webp .jp2 .pgm
            .ppm .pnm, in any case. What else looks like an image is counted and named.

        Returns
        -------
        AD
            This object.
        """
        self._good = find_training_images(path)
        _tell(f"Training images: {self._good}", *training.doubts(self._good))
        return self

    def train(
        self,
        epochs: int | None = None,
        *,
        groups: Groups | None = None,
        exclude: Exclude | None = None,
        review: bool = True,
        engine: Literal["local", "ray"] = "local",
        address: str | None = None,
        workers: int | None = None,
        threads: int | None = None,
    ) -> AD:
        """Learn from the good images, prove and calibrate the model, and save it.

        On a loaded model, a method that learns by gradient goes on as if training had not ended if
        the images are those that it was trained on, and begins again if they are others: the limit
        must come from images that no fit has seen. A statistical one begins again; see
        `add_images`. Ctrl-C ends a training by gradient with its best weights so far, which are
        calibrated and saved; before the first epoch is over, nothing is.

        Parameters
        ----------
        epochs : int, optional
            Passes over the images, on a loaded model further ones; None for the method's own.
            Training ends earlier when the validation no longer improves. A method that learns in
            one pass ignores them and says so.
        groups : str, sequence or mapping, optional
            Which images show one part, where some parts were photographed several times: images of
            one group are learnt from or scored as unseen together, and the stated rate counts
            groups. A regular expression that is searched in the path of each file within the
            training folder (folders are separated by ``/``): the group is what its first
            parentheses capture or, without any, what it matches: ``"part([0-9]+)_"``. Or a label
            for each file, in their order or by path. None: each image is a group of its own.
        exclude : path or list of paths, optional
            Images to leave out: a text file with one name in a line, as the page of `review` makes
            it, or a list of names. They are paths within the training folder, paths as given, or
            the name of a file alone where there is one of it. Copies of them are left out as well.
            The manifest records them, and the limit's promise then speaks of the images kept.
        review : bool
            Whether to write the page of the good images that look odd,
            ``<save_path>/<name>-review.html``; it holds photographs. See `review`.
        engine : {"local", "ray"}
            "ray" spreads reading the images and computing their features over processes of Ray
            and, for methods that learn in one pass, their statistics; scores and limits are the
            same.
        address, workers, threads
            Of Ray, as in `predict_dataset`.

        Returns
        -------
        AD
            This object, with the new model.

        Raises
        ------
        OptionError
            `groups` and files do not match.
        DataError
            Too few images or groups, broken images (all are listed), such that may show defects,
            or names in `exclude` that do not match exactly one image.
        TrainingError
            A training by gradient has diverged, or images with rendered defects score no higher
            than the same without; nothing is saved.
        MissingExtraError
            TensorFlow or Ray is not installed; the message names the command.
        EngineError
            Ray does not start, or gives no results; nothing is saved.
        """
        self._check_trains()
        training.check(self._choice, epochs)
        spread = workers_of(engine, address=address, workers=workers, threads=threads)
        if self._good is None:
            self.load_data(self.train_path)
        assert self._good is not None
        good = self._good if groups is None else grouped(self._good, groups)
        good = good if exclude is None else without(good, exclude)
        work = training.prepare(self._choice, good, epochs)
        _tell(work)
        with using(spread):
            trained = training.train(self._choice, good, work)
        self._choice = self._choice.with_model(trained.stored.on(self._device))
        _tell(trained, *table(at_rates(trained.stored)))
        _tell(*after_training(trained.stored, page=review))
        return self

    def add_images(
        self,
        path: PathLike | Iterable[PathLike],
        *,
        groups: Groups | None = None,
        review: bool = True,
    ) -> AD:
        """Add images of good parts to the model as if they had been there when it was trained.

        The images that it was trained on are not needed. The limits are taken again, from the
        scores that old and new images got from models that had not seen them, and the model is
        saved.

        Parameters
        ----------
        path : path or list of paths
            As for `load_data`; 2 images at least. Those that the model knows already are left out,
            and those that `train` has excluded: to learn them after all, train again.
        groups : str, sequence or mapping, optional
            As for `train`; needed where the model was trained with groups, and only there.
        review : bool
            As for `train`.

        Returns
        -------
        AD
            This object, with the new model.

        Raises
        ------
        OptionError
            The method cannot do it exactly; or the model has groups and these images have none, or
            the other way round.
        DataError
            The model knows all of these images already, or images of a group that it has learnt
            from (train again with all of them); or as for `train`.
        MissingExtraError, BackboneError
            The backbone's weights are not there, or not the same.
        """
        self._check_trains()
        training.check_adding(self._choice, in_groups=groups is not None)
        good = find_training_images(path)
        good = good if groups is None else grouped(good, groups)
        _tell(f"Adding: {good}", *training.doubts(good))
        trained = training.add_images(self._choice, good)
        self._choice = self._choice.with_model(trained.stored.on(self._device))
        _tell(trained, *table(at_rates(trained.stored)))
        _tell(*after_training(trained.stored, page=review))
        return self

    def calibrate(
        self,
        *,
        false_alarm_rate: float | None = None,
        good: PathLike | Iterable[PathLike] | None = None,
        groups: Groups | None = None,
        defective: PathLike | Iterable[PathLike] | None = None,
        labels: Labels | None = None,
        cost_ratio: float | None = None,
        limit: float | None = None,
        another_day: PathLike | Iterable[PathLike] | None = None,
        review: bool = False,
    ) -> AD:
        """Move the decision limit, print what it means, and save the model with it.

        The score of an image at the limit is 0.8, before and after, so `thresh` can stay. One of
        `false_alarm_rate` and `good`, `defective`, or `limit` says where the limit goes;
        `another_day` may come with it or alone. What was given, with sources and counts, is in
        ``model.manifest.calibration.record``.

        Parameters
        ----------
        false_alarm_rate : float, optional
            Share of good parts that may be rejected, from good images: those of the training (each
            scored by a model fitted without it), or `good`.
        good : path or list of paths, optional
            Good images that training has not seen, by the rules of `load_data`. They take the place
            of those of the training.
        groups : str, sequence or mapping, optional
            Of the images in `good`, as for `train`. Those of the training keep theirs.
        defective : path or list of paths, optional
            Labelled images: a folder with ``good`` and folders of defects, the MVTec layout, a
            folder in which all are defective, or a list with `labels`. The limit is the one with
            the best F1, or the least cost, of those above the score of a typical good image. Where
            there are no good images among them, those of the calibration are taken.
        labels : sequence or mapping, optional
            For a list: of each file in its order, or by path, False, 0 or "good" for good; True, 1
            or the name of a defect otherwise.
        cost_ratio : float, optional
            What a false alarm costs compared with a miss, such as 0.1: the limit with the least
            cost_ratio * false alarms + misses among these images.
        limit : float, optional
            A raw score.
        another_day : path or list of paths, optional
            Good images that were taken at another time. How many the limit rejects is printed and
            recorded next to those of the calibration; the limit stays.
        review : bool
            Whether to write the page of `review` again, which shows the limit.

        Returns
        -------
        AD
            This object, with the new model.

        Raises
        ------
        OptionError
            Arguments that do not go together, or labels or groups that do not match the files.
        DataError
            Images that cannot be used or are of groups that the model has learnt from, or a
            `limit` below the score of a typical good image.
        """
        stored, lines = calibrate(
            self._choice.model,  # which may be on a device where its limits do not hold yet
            self._choice.directory,
            false_alarm_rate=false_alarm_rate,
            good=good,
            groups=groups,
            defective=defective,
            labels=labels,
            cost_ratio=cost_ratio,
            limit=limit,
            another_day=another_day,
        )
        self._choice = self._choice.with_model(stored)
        _tell(lines, f"Saved the model in {stored.directory}")
        if review:
            _tell(*after_training(stored, page=True))
        return self

    def evaluate(
        self,
        path: PathLike | Iterable[PathLike],
        *,
        labels: Labels | None = None,
        thresh: float = 0.8,
        seed: int = 0,
        report: PathLike | None = None,
    ) -> Evaluation:
        """Inspect labelled images and print how good the model is on them.

        Parameters
        ----------
        path : path or list of paths
            A folder with ``good`` and folders of defects, or with ``test`` and ``ground_truth``
            (MVTec layout), with or without masks; or a list of files with `labels`.
        labels : sequence or mapping, optional
            As for `calibrate`.
        thresh : float
            As for `predict`.
        seed : int
            Of the resampling behind some intervals.
        report : path, optional
            An HTML file for a report of it: one page with counts, curves and pictures that opens
            from disk.

        Returns
        -------
        Evaluation
            Counts, metrics with their intervals of 95 %, what is left out and why; `to_json` and
            `to_dict` give it as plain values.

        Raises
        ------
        DataError
            No image can be inspected, or masks and images do not belong together.
        OptionError
            Labels that do not match the files.
        """
        labelled = find_labelled(path, labels)
        found = evaluated(self.model, labelled, report, threshold=thresh, seed=seed)
        _tell(told(found, report))
        return found

    def report(
        self,
        path: PathLike,
        output: PathLike = "report.html",
        *,
        thresh: float | None = None,
        seed: int = 0,
        detection: ProbabilityOfDetection | None = None,
    ) -> Evaluation | Counter[str]:
        """Inspect a folder and write a report: one HTML page that opens from disk.

        Counts first, then a histogram with a limit that can be moved, curves, figures and
        pictures.

        Parameters
        ----------
        path : path
            Labelled images as for `evaluate`; a folder of images without labels (without a
            folder ``good`` and without masks); or an output folder of `predict`: the images of its
            last run are inspected.
        output : path
            The HTML file, outside `path`; replaced if it is there.
        thresh : float, optional
            As for `evaluate`; None for 0.8 or, for an output folder, that of its last run.
        seed : int
            As for `evaluate`.
        detection : ProbabilityOfDetection, optional
            What `detection_curve` gave for this model: its curves are drawn as well.

        Returns
        -------
        Evaluation or Counter of str to int
            The figures; for images without labels, how many are "good", "anomalous" and
            "errors".

        Raises
        ------
        DataError, PathError
            There is nothing to inspect.
        OptionError
            The output lies in `path` or is not an HTML file.
        """
        found = report(self.model, path, output, threshold=thresh, seed=seed, detection=detection)
        _tell(told(found, output))
        return found

    def review(self, output: PathLike | None = None) -> Review:
        """Write the page of the good images that look odd, as `train` does, and print where it is.

        It shows the training images with the highest scores, each by a model that had not learnt
        from it, with their heatmaps, and what the decision limit would be without them. The ones
        that are unticked there become a list for ``train(exclude=...)``. The images themselves are
        read again; what cannot be shown or has changed is named.

        Parameters
        ----------
        output : path, optional
            The HTML file, outside the folder of the images; None for
            ``<save_path>/<name>-review.html``. Replaced if it is there.

        Returns
        -------
        Review
            The page, what it shows (`found.images`, the highest score first), and what it lacks.

        Raises
        ------
        ModelError
            The model was saved by a version that did not keep the names of its images.
        OptionError, OutputError
            `output` lies in the folder of the images, is not an HTML file, or cannot be written.
        """
        written = review(self.model, output)
        _tell(written.found, written)
        return written

    def detection_curve(
        self,
        path: PathLike | Iterable[PathLike],
        *,
        kinds: Sequence[str] | None = None,
        sizes: tuple[float, float] | None = None,
        contrast: float = CONTRAST,
        thresh: float = 0.8,
        mm_per_pixel: float | None = None,
        seed: int = 0,
        save_path: PathLike | None = None,
    ) -> ProbabilityOfDetection:
        """Render defects on good images and print how large they must be to be found.

        Probability of detection over size as in MIL-HDBK-1823A (hit/miss). The defects are
        rendered: real ones may be easier or harder to find. Needs the extra "eval" (SciPy).

        Parameters
        ----------
        path : path or list of paths
            Labelled images as for `evaluate`, of which the good ones are taken, or good images as
            for `load_data`. Those that the model has learnt from and those that it rejects are left
            out. Where at least 20 defective ones have masks, the same is said of these.
        kinds : sequence of str, optional
            Some of "scratch", "spot", "blotch", "dent", "patch" and "missing"; None for all.
        sizes : (float, float), optional
            Smallest and largest length of a defect in pixels of the photograph; None for 1 % and
            25 % of the shorter side, the median over all images.
        contrast : float
            Of the defects, in gray levels, see `data.render_defect`.
        thresh : float
            As for `predict`.
        mm_per_pixel : float, optional
            Of the photographs, to have lengths in millimetres, too.
        seed : int
            The same images, model and seed give the same figures.
        save_path : path, optional
            A folder for pictures of some of the defects, each next to what the model marks.

        Returns
        -------
        ProbabilityOfDetection
            Curve by curve a90, the size that is found nine times out of ten, its 95 % interval and
            a90/95; `to_json` and `to_dict` give it as plain values.

        Raises
        ------
        DataError, PathError
            There are no good images, or the model has learnt from all of them.
        OptionError
            An argument cannot be used, or `save_path` lies in the input.
        """
        found = detection_curve(
            self.model,
            path,
            kinds=kinds,
            sizes=sizes,
            contrast=contrast,
            threshold=thresh,
            mm_per_pixel=mm_per_pixel,
            seed=seed,
            save_path=save_path,
        )
        _tell(found)
        return found

    def export(
        self,
        output: PathLike,
        to: Literal["openvino", "onnx", "model-api"] = "openvino",
        *,
        images: PathLike | Iterable[PathLike] | None = None,
        weights: Literal["f32", "f16"] = "f32",
    ) -> Export:
        """Write the model for another program, compare the file with it, and print how close it is.

        The file is run on real images; it is kept only if every output agrees with the model's and
        every verdict is the same. It carries its limits and what lies outside its graph as
        metadata, see the page Exports.

        Parameters
        ----------
        output : path
            The file: .xml for "openvino" and "model-api" (its weights lie next to it, in .bin),
            .onnx for "onnx". Replaced if it is there.
        to : {"openvino", "onnx", "model-api"}
            "onnx" needs the extras "train" and "export". "model-api" is for AnomalyDetection of
            Intel's Model API: scores, label and mask of one prepared image.
        images : path or list of paths, optional
            Images to compare with, good or not, of which up to 32 are taken; None for those that
            the model was trained on, where they still are.
        weights : {"f32", "f16"}
            How weights of dense convolutions are stored, for "openvino": "f16" nearly halves most
            files; outputs then deviate by up to 2e-3 of their range, otherwise by 1e-4.

        Returns
        -------
        Export
            The files, and how far their outputs are from the model's.

        Raises
        ------
        OptionError
            An argument cannot be used, or the format cannot express the model.
        DataError
            There are no images to compare with.
        ParityError
            The file is not the model; nothing is written.
        MissingExtraError
            A package is not installed; the message names the command.
        """
        found = export(self.model, output, to, images=images, weights=weights)
        _tell(found)
        return found

    def optimize(
        self,
        images: PathLike | Iterable[PathLike],
        output: PathLike | None = None,
        *,
        labelled: PathLike | None = None,
        margin: float = MARGIN,
        seed: int = 0,
    ) -> Optimisation:
        """Make the model in INT8, print what that is worth, and save it only where it does no harm.

        The network that the features come from is quantised; what scores stays in f32, learns from
        the quantised features, and takes its limits again. It is kept if it is at least 1.1 times
        as fast from a file to its verdict and finds no less. Needs the extras "train" and
        "optimize".

        Parameters
        ----------
        images : path or list of paths
            Good images, such as those that the model was trained on. Labelled images are looked for
            in the same folder.
        output : path, optional
            The model directory that is saved; None for the model's with "-int8" behind it.
        labelled : path, optional
            Labelled images elsewhere. Where there are none, defects are rendered on good images
            that are held out.
        margin : float
            It is kept if the 95 % interval of by how much its merit is worse (the mean of the share
            found at the limit and of the partial AUROC up to 5 % false alarms) ends at this or
            below.
        seed : int
            Of what is held out and rendered.

        Returns
        -------
        Optimisation
            Figures of both, and why it was not kept; `saved` is the directory.

        Raises
        ------
        OptionError
            The method is not one of pretrained features that learns in one pass, or the model is
            not in f32.
        DataError
            There are too few images.
        MissingExtraError
            A package is not installed; the message names the command.
        """
        found = optimize(self.model, images, output, labelled=labelled, margin=margin, seed=seed)
        _tell(found)
        return found

    def drift(self, path: PathLike, *, window: int | None = None) -> Drift:
        """Compare predictions with the calibration and print whether they have moved away.

        Needs the extra "eval" (SciPy).

        Parameters
        ----------
        path : path
            The predictions.csv or predictions.jsonl of `predict`; the latter knows times and model.
        window : int, optional
            Images that are looked at together, 10 at least; None for a tenth of them all, but 30 at
            least.

        Returns
        -------
        Drift
            All predictions and window by window: the Kolmogorov-Smirnov distance of their raw
            scores from those of good images, its p-value, and the share above the limit.

        Raises
        ------
        PathError, DataError
            There is no such file, or it holds too few predictions of this model.
        """
        found = drift(self.model, path, window)
        _tell(found)
        return found

    def test_img(self, path_to_img: PathLike) -> Image:
        """Look at one image: original on the left, reconstruction on the right.

        It is shown where there is a display or a notebook.

        Parameters
        ----------
        path_to_img : path
            An image file.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)
            The picture, RGB. For methods without a reconstruction the right side is the heatmap;
            for one without maps it is the image, with a frame if it is anomalous.
        """
        return look(self.model, path_to_img)

    def predict(
        self,
        path: PredictInput,
        save_path: PathLike = "Output/",
        show: bool = False,
        save: bool = True,
        patch_size: int = 0,
        thresh: float = 0.8,
        hardcore: bool = False,
        *,
        maps: bool = False,
        resume: bool = False,
        regions: bool = False,
        merge_boxes: bool = False,
        annotate: bool = False,
        side_by_side: bool = False,
    ) -> Prediction | list[Prediction]:
        """Inspect an image or many.

        Parameters
        ----------
        path : path, list, ndarray or PIL.Image.Image
            An image file, a folder (with the folders in it), a list or any other iterable of files
            or images, or an image: an RGB array of uint8, shape (H, W, 3), or one of Pillow. A pair
            (name, image) gives an image a name, for its picture and its prediction. A model of
            images of more than 8 bits takes uint16 and floats in the units of those.
            ``stack.tif[1]`` is the second page of a TIFF.
        save_path : path
            Where pictures and records go, never into the input: each picture keeps the relative
            path, the name and the format of its input (arrays: array_00000.png).
            ``predictions.jsonl`` is the record of all runs, ``predictions.csv`` the table of the
            last one.
        show : bool
            Show the pictures, at most 20, where there is a display or a notebook.
        save : bool
            Whether anything is written.
        patch_size : int
            Side of the boxes in pixels of the model's input; 0 for the model's own.
        thresh : float
            Score in [0, 1] above which an image is anomalous. 0.8 is the decision limit; a
            lower value inspects more strictly.
        hardcore : bool
            False: colour what deviates (heatmap). True: draw boxes around the patches that
            deviate. A method without maps frames the whole picture of an anomalous image. Whatever
            is drawn follows `thresh`: an anomalous image has a mark, a good one none.
        maps : bool
            Whether the predictions of a list keep their anomaly maps. A single one always does.
        resume : bool
            Go on with the last run in `save_path` that was made with the same model and options:
            files that it has in its record, unchanged since, are not inspected again; their
            predictions come from there (without maps).
        regions : bool
            Draw the outline of each connected region that deviates instead of the heatmap.
        merge_boxes : bool
            With `hardcore`: draw one outline around boxes that touch.
        annotate : bool
            Put a band with verdict, score and threshold above each picture.
        side_by_side : bool
            Put the original to the left of each picture.

        Returns
        -------
        Prediction or list of Prediction
            One for one image; a list, in order, for a folder or a list. A file in a folder or a
            list that cannot be read has a prediction with an `error`, and the run goes on.
        """
        run = predict(
            self.model,
            path,
            save_path,
            save=save,
            show=show,
            maps=maps,
            threshold=thresh,
            patch_size=patch_size,
            hardcore=hardcore,
            resume=resume,
            regions=regions,
            merge_boxes=merge_boxes,
            annotate=annotate,
            side_by_side=side_by_side,
        )
        _tell(run)
        return run.result

    def stream(
        self,
        paths: PredictInput,
        save_path: PathLike | None = None,
        *,
        patch_size: int = 0,
        thresh: float = 0.8,
        hardcore: bool = False,
        resume: bool = False,
        progress: bool = False,
        regions: bool = False,
        merge_boxes: bool = False,
        annotate: bool = False,
        side_by_side: bool = False,
    ) -> Generator[Prediction, None, None]:
        """Inspect many images and yield each prediction, with its map, as soon as it is made.

        Nothing is printed, and nothing is kept: for more images than a list should hold, and for
        code that acts on each part.

        Parameters
        ----------
        paths : path, list, ndarray or iterable
            As `path` of `predict`. From an iterator (a camera, a generator, endless or not) the
            next image, or pair (name, image), is drawn when the verdict on the one before was
            taken; of a folder or a list several are under way at a time, which is faster.
        save_path : path, optional
            Where pictures and records go; None writes nothing.
        progress : bool
            Show a progress bar on stderr, if that is a terminal.
        patch_size, thresh, hardcore, resume, regions, merge_boxes, annotate, side_by_side
            As in `predict`.
        """
        return stream(
            self.model,
            paths,
            save_path,
            threshold=thresh,
            patch_size=patch_size,
            hardcore=hardcore,
            resume=resume,
            progress=progress,
            regions=regions,
            merge_boxes=merge_boxes,
            annotate=annotate,
            side_by_side=side_by_side,
        )

    def predict_dataset(
        self,
        source: PathLike | Iterable[PathLike],
        output: PathLike,
        *,
        engine: Literal["local", "ray"] = "local",
        address: str | None = None,
        workers: int | None = None,
        threads: int | None = None,
        thresh: float = 0.8,
        patch_size: int = 0,
        pictures: bool = False,
        hardcore: bool = False,
        regions: bool = False,
        merge_boxes: bool = False,
        annotate: bool = False,
        side_by_side: bool = False,
    ) -> DatasetRun:
        """Inspect more images than one machine or one record should hold, into Parquet files.

        Each image gets exactly one row: path, bytes, time of change, size, score, raw score,
        threshold, verdict, reason, boxes, regions, error, picture, and the digest of the model;
        scores are those of `predict`. ``pandas.read_parquet(output)`` reads them all. A further
        call with the same output goes on where the last one stopped: what has the same path, size
        and time is not inspected again, and what failed is tried again. Needs the extra "ray".

        Parameters
        ----------
        source : path, address, or list of these
            A folder, images, or a Parquet file with a column ``path``. On this machine's disks, or
            in a store: s3://, gs://, or another address that fsspec knows. Other machines of a
            cluster must see the same paths.
        output : path or address
            Folder of the results; on a cluster one that all machines see.
        engine : {"local", "ray"}
            The threads of this process, or processes of Ray, on this machine or on many. A process
            that is lost is replaced, and its images are inspected once more.
        address : str, optional
            Of the Ray cluster: "auto" for the one that this machine belongs to. None: that in
            RAY_ADDRESS; where it is not set, processes on this machine.
        workers, threads : int, optional
            Of Ray: how many processes (None for as many as there are processors for), and threads
            of each (None for 2).
        thresh, patch_size
            As in `predict`.
        pictures : bool
            Whether pictures are written as well, to ``_pictures`` in the output.
        hardcore, regions, merge_boxes, annotate, side_by_side : bool
            What these show, as in `predict`.

        Returns
        -------
        DatasetRun
            Counts of the verdicts, and how many images were known before.

        Raises
        ------
        PathError, DataError
            There is nothing to inspect, or a list has no column ``path``.
        OutputError
            The output holds results of another model or of other options, another process is
            writing there, or it cannot be written.
        EngineError
            Ray does not start, or gives no results. What was written is kept.
        OptionError
            An argument cannot be used, or the output lies in the source.
        MissingExtraError
            PyArrow or Ray is not installed; the message names the command.
        """
        if self._device.kind != CPU:
            raise OptionError(
                "predict_dataset inspects on the CPU. Load the model without `device`, or use "
                "`predict`, which has it."
            )
        from .scale import predict_dataset

        found = predict_dataset(
            self.model,
            source,
            output,
            workers_of(engine, address=address, workers=workers, threads=threads),
            threshold=thresh,
            patch_size=patch_size,
            draw=pictures,
            hardcore=hardcore,
            regions=regions,
            merge_boxes=merge_boxes,
            annotate=annotate,
            side_by_side=side_by_side,
        )
        _tell(found)
        return found

    @classmethod
    def compare(
        cls,
        path: PathLike | Iterable[PathLike],
        detectors: Sequence[str] | str | None = None,
        *,
        budget: float | None = None,
        labelled: PathLike | None = None,
        groups: Groups | None = None,
        save: bool = False,
        save_path: PathLike = SAVE_PATH,
        name: str | None = None,
        report: PathLike | None = None,
        **options: Any,
    ) -> Comparison:
        """Train several methods on the same images, and print which is best and what it costs.

        Each method is tested on images that it has not learnt: on labelled images, where there are
        some; else on a fifth of the good images and on defects that are rendered on these. The best
        is the one with the largest merit (share of the defects found at the limit, and partial
        AUROC up to 5 % false alarms, in the mean). What is recommended is the fastest of those that
        cannot be told from it: whose difference has an interval that reaches 0 (paired bootstrap).

        Parameters
        ----------
        path : path or list of paths
            Images to learn from, as for `load_data`. Labelled images are looked for in the same
            folder.
        detectors : list of str, optional
            Methods, or their names with commas between. None: all that the budget allows, the
            cheapest first, but for "efficientad", which must be named.
        budget : float, optional
            Seconds. No method is begun that is thought to take longer than is left; the first
            always is. None: 600, or no limit where methods are named.
        labelled : path, optional
            Labelled images elsewhere: a folder or a CSV, as for `evaluate`.
        groups : str, sequence or mapping, optional
            As for `train`.
        save : bool
            Train the recommended method on all good images and save it in
            ``<save_path>/<name>``; the manifest says why it was chosen. Otherwise nothing is saved.
        save_path, name
            As in `AD`.
        report : path, optional
            An HTML file to write, with the defects that not every method finds.
        **options
            Those of `AD` for all methods: ``roi=``, ``seed=`` and so on.

        Returns
        -------
        Comparison
            Table and recommendation; its `str` is what is printed.

        Raises
        ------
        DataError, PathError
            There is too little to learn from or to test on, or no method can learn from it.
        OptionError
            There is no such method or option.
        MissingExtraError
            TensorFlow is not installed.
        """
        found = compared(
            path,
            report,
            detectors=detectors,
            budget=budget,
            labelled=labelled,
            groups=groups,
            save=save,
            save_path=save_path,
            name=name,
            options=options,
        )
        _tell(found)
        return found

    @classmethod
    def tune(
        cls,
        path: PathLike | Iterable[PathLike],
        method: str,
        *,
        trials: int = TRIALS,
        budget: float | None = None,
        objective: Literal["quality", "latency", "both"] = "quality",
        labelled: PathLike | None = None,
        groups: Groups | None = None,
        storage: PathLike | None = None,
        save: bool = False,
        save_path: PathLike = SAVE_PATH,
        name: str | None = None,
        **options: Any,
    ) -> Tuning:
        """Search the options of a method on the images, and print whether that is worth it.

        The options that the method declares are searched, and the size of its input (`anomaly-ad
        detectors NAME` lists them); what is given in `options` stays. Half of the images to test
        on (as in `compare`), of the good ones and of each kind of defect, is never seen by the
        search. The figures are of that half alone, next to the default's; where the gain is within
        noise, the default is kept. Ctrl-C ends the search; what is done is kept, and a further call
        goes on with it.

        Parameters
        ----------
        path : path or list of paths
            Images to learn from, as for `compare`.
        method : str
            Its name.
        trials : int
            How many, those of earlier calls included.
        budget : float, optional
            Seconds after which no trial is begun.
        objective : {"quality", "latency", "both"}
            "quality": the merit, see `compare`. "latency": milliseconds per image, without losing
            more than 0.01 of the default's merit. "both": those that none beats in both are listed,
            and the best of them by merit is reported.
        labelled, groups
            As in `compare`.
        storage : path, optional
            The SQLite file of the study; None for ``<save_path>/<name>-tuning.db``.
        save : bool
            Train with what is recommended on all good images and save the model; its manifest
            holds the study and the reason.
        save_path, name
            As in `AD`.
        **options
            Options of `AD` or of the method that all trials have.

        Returns
        -------
        Tuning
            Figures and recommendation; its `str` is what is printed, `options` what to take.

        Raises
        ------
        DataError, PathError
            There is too little to learn from or to test on, or an image cannot be read.
        OptionError
            An argument cannot be used, or the study is of another search.
        OutputError
            The study cannot be written, or another process works on it.
        MissingExtraError
            Optuna (extra "tune") or TensorFlow is not installed.
        """
        found = tune(
            path,
            method,
            trials=trials,
            budget=budget,
            objective=objective,
            labelled=labelled,
            groups=groups,
            storage=storage,
            save=save,
            save_path=save_path,
            name=name,
            options=options,
        )
        _tell(found)
        return found


def _tell(*parts: object) -> None:
    """Print what a step gave, for three-line scripts."""
    for text in filter(None, map(str, parts)):
        print(printable(text))

"""A classifier of handwritten digits: scaling, principal components and a support vector machine.

.venv/bin/python clients/examples/tasks/scikit_learn_pipeline/task.py --listen 127.0.0.1:7500

It needs the extra ``examples`` (scikit-learn); the data set comes with it.
"""

from __future__ import annotations

from typing import Any

import numpy
import sklearn
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC

from clients.task_sdk import Boolean, Choice, Context, Integer, Real, Result, Split, task

FOLDS = 5
HELD_OUT = 0.25
"""Share of the images that no search ever measures on; which ones is fixed."""
SCALERS = {"none": None, "standard": StandardScaler, "minmax": MinMaxScaler, "robust": RobustScaler}


@task(
    name="scikit-learn-pipeline",
    metric="error_percent",
    unit="%",
    goal="minimize",
    space={
        "scaler": Choice(list(SCALERS), doc="What brings the pixels to one scale."),
        "features": Integer(4, 64, default=64, doc="Pixels kept, those that vary most."),
        "components": Integer(2, 64, default=16, doc="Principal components of them."),
        "whiten": Boolean(doc="Whether the components get the same variance."),
        "kernel": Choice(["linear", "rbf", "poly", "sigmoid"], doc="Kernel of the support vector machine."),
        "C": Real(1e-3, 1e3, log=True, default=0.1, doc="Price of a training error."),
        "gamma": Real(1e-5, 10.0, log=True, default=1e-3, doc="Inverse width of the kernels but the linear one."),
        "degree": Integer(2, 5, default=3, doc="Degree of the polynomial kernel."),
        "balanced": Boolean(doc="Whether rare digits count more."),
    },
    budget=4.0,
    hard_limit=120.0,
    held_out=True,
    deterministic=True,
    fresh_process=False,
    identity={"scikit-learn": sklearn.__version__, "numpy": numpy.__version__},
)
def pipeline(
    scaler: str,
    features: int,
    components: int,
    whiten: bool,
    kernel: str,
    C: float,  # noqa: N803 (scikit-learn's own name)
    gamma: float,
    degree: int,
    balanced: bool,
    *,
    context: Context,
) -> Result:
    """Error of a classifier of handwritten digits, in percent.

    1,797 images of 8 by 8 pixels. A search sees the error of five-fold cross-validation on three quarters of them, in
    folds that follow the seed; the last quarter is held out and measures a model of the whole rest. A smaller budget
    means fewer folds.
    """
    images, digits = load_digits(return_X_y=True)
    rest, held_out, rest_digits, held_out_digits = train_test_split(
        images, digits, test_size=HELD_OUT, random_state=0, stratify=digits
    )
    if context.split is Split.HELD_OUT:
        parts = [(rest, rest_digits, held_out, held_out_digits)]
    else:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=context.seed % 2**32).split(rest, rest_digits)
        parts = [(rest[a], rest_digits[a], rest[b], rest_digits[b]) for a, b in folds]
        parts = parts[: max(1, round(FOLDS * context.budget_fraction))]
    weight = "balanced" if balanced else None
    steps = [
        ("select", SelectKBest(variance, k=features)),
        ("scale", SCALERS[scaler]() if SCALERS[scaler] is not None else "passthrough"),
        ("project", PCA(components, whiten=whiten, svd_solver="full")),
        (
            "classify",
            SVC(C=C, kernel=kernel, gamma=gamma, degree=degree, class_weight=weight),
        ),
    ]
    errors = []
    for number, (train, train_digits, test, test_digits) in enumerate(parts, 1):
        model = Pipeline(steps).fit(train, train_digits)
        errors.append(100.0 * float((model.predict(test) != test_digits).mean()))
        context.report(number / len(parts), step=number, phase="fold", error_percent=errors[-1])
    support = float(model.named_steps["classify"].n_support_.sum())
    return Result(sum(errors) / len(errors), {"folds": len(errors), "worst_fold": max(errors), "support": support})


@pipeline.check
def enough_features(features: int, components: int) -> bool:
    """components must be at most features"""
    return components <= features


def variance(images: Any, _digits: Any) -> Any:
    """Score of each pixel: the corners of an image are always white and say nothing."""
    return images.var(axis=0)


if __name__ == "__main__":
    pipeline.serve()

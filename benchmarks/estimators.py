"""Score and time of `hjcontrol.estimators` beside scikit-learn's own, by 5-fold cross-validation.

    python benchmarks/estimators.py [--folds 5] [--json FILE]

Every estimator stands behind a `StandardScaler`, with its defaults (scikit-learn's `max_iter` raised so
that it converges); nothing is tuned, and no row is left out. Score: accuracy, or R^2 for diabetes.
"""

import argparse
import json
import time
import warnings

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import hjcontrol as hj

E = hj.estimators
CLASSES = {"digits": load_digits, "wine": load_wine, "breast_cancer": load_breast_cancer}
CLASSIFIERS = {
    "LSEClassifier()": E.LSEClassifier(random_state=0),
    "LSEClassifier(atoms=4)": E.LSEClassifier(4, random_state=0),
    "ControlledNetClassifier()": E.ControlledNetClassifier(random_state=0),
    "ControlledNetClassifier(tanh)": E.ControlledNetClassifier(activation="tanh", random_state=0),
    "LogisticRegression": LogisticRegression(max_iter=2000),
    "MLPClassifier(16, 16)": MLPClassifier((16, 16), max_iter=1000, random_state=0),
    "SVC": SVC(),
    "DecisionTreeClassifier": DecisionTreeClassifier(random_state=0),
}
REGRESSORS = {
    "LSERegressor()": E.LSERegressor(random_state=0),
    "MaxAffineRegressor()": E.MaxAffineRegressor(random_state=0),
    "ControlledNetRegressor()": E.ControlledNetRegressor(random_state=0),
    "LinearRegression": LinearRegression(),
    "Ridge": Ridge(),
    "MLPRegressor(16, 16)": MLPRegressor(
        hidden_layer_sizes=(16, 16), max_iter=5000, random_state=0
    ),
    "SVR": SVR(),
    "DecisionTreeRegressor": DecisionTreeRegressor(random_state=0),
}


def row(data, name, estimator, X, y, folds):
    """Mean and spread of the score, seconds of one fit."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        start = time.perf_counter()
        found = cross_validate(make_pipeline(StandardScaler(), estimator), X, y, cv=folds)
    scores = found["test_score"]
    unfinished = sum("Convergence" in str(w.category) for w in said)
    return {
        "data": data,
        "estimator": name,
        "score": float(scores.mean()),
        "spread": float(scores.std()),
        "fit_seconds": float(np.median(found["fit_time"])),
        "unfinished_folds": unfinished,
        "seconds": time.perf_counter() - start,
    }


def rows(folds):
    """One row a data set and estimator."""
    for data, load in CLASSES.items():
        X, y = load(return_X_y=True)
        split = StratifiedKFold(folds, shuffle=True, random_state=0)
        for name, estimator in CLASSIFIERS.items():
            yield row(data, name, estimator, X, y, split)
    X, y = load_diabetes(return_X_y=True)
    split = KFold(folds, shuffle=True, random_state=0)
    for name, estimator in REGRESSORS.items():
        yield row("diabetes", name, estimator, X, y, split)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--json")
    asked = parser.parse_args()
    found = []
    print("| data | estimator | score | spread | seconds a fit | folds at the step limit |")
    print("|---|---|---|---|---|---|")
    for r in rows(asked.folds):
        found.append(r)
        cells = f"{r['score']:.3f} | {r['spread']:.3f} | {r['fit_seconds']:.3f}"
        print(f"| {r['data']} | {r['estimator']} | {cells} | {r['unfinished_folds']} |", flush=True)
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()

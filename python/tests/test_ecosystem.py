"""What others built on executors and backends, with the real packages."""

from __future__ import annotations

import math

import joblib
import numpy
import pytest
from dask.delayed import delayed
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

import millgrid
import millgrid.joblib
from calls import add


@pytest.fixture(autouse=True)
def backend(client: millgrid.Client) -> None:
    millgrid.joblib.register(client)


def test_joblib_runs_on_the_grid(client: millgrid.Client) -> None:
    before = client.submit("true").id
    with joblib.parallel_config(backend="millgrid", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(math.sqrt)(n) for n in range(20)) == [n**0.5 for n in range(20)]
    assert client.submit("true").id > before + 1, "jobs were made"
    with joblib.parallel_config(backend="millgrid", n_jobs=2), pytest.raises(ValueError, match="math domain"):
        joblib.Parallel()(joblib.delayed(math.sqrt)(n) for n in (1, -1, 2))
    with joblib.parallel_config(backend="millgrid", n_jobs=-1, cpus=0.5, name="halves"):
        assert joblib.effective_n_jobs() == 4
        assert joblib.Parallel()([joblib.delayed(add)(1, 2)]) == [3]


def test_a_grid_search_gives_the_same_as_serial() -> None:
    x, y = load_iris(return_X_y=True)
    space = {"max_depth": [1, 2], "min_samples_leaf": [1, 5]}
    serial = GridSearchCV(DecisionTreeClassifier(random_state=0), space, cv=2).fit(x, y)
    with joblib.parallel_config(backend="millgrid", n_jobs=2):
        parallel = GridSearchCV(DecisionTreeClassifier(random_state=0), space, cv=2).fit(x, y)
    assert parallel.best_params_ == serial.best_params_ and parallel.best_score_ == serial.best_score_
    assert numpy.array_equal(parallel.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"])


def test_dask_takes_the_executor(client: millgrid.Client) -> None:
    parts = [delayed(add)(n, 1) for n in range(6)]
    with client.executor() as executor:
        assert delayed(sum)(parts).compute(scheduler=executor) == 21

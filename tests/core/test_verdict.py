from __future__ import annotations

import pytest

from resilience import Advice, Classifier, RateLimitedError, RejectedError, TimedOutError, Verdict
from resilience.verdict import DEFAULT_CLASSIFIER, classifier


def test_by_default_every_error_but_a_rejection_is_a_failure_and_every_value_a_success() -> None:
    assert DEFAULT_CLASSIFIER.error(KeyError()) is Verdict.FAILURE
    assert DEFAULT_CLASSIFIER.error(TimedOutError("late")) is Verdict.FAILURE
    assert DEFAULT_CLASSIFIER.error(RejectedError("no")) is Verdict.IGNORED
    assert DEFAULT_CLASSIFIER.result is None


def test_advice_is_read_from_the_error() -> None:
    assert DEFAULT_CLASSIFIER.advice(None, RateLimitedError("no", retry_after=2)) == Advice(2.0)
    assert DEFAULT_CLASSIFIER.advice(None, RateLimitedError("no")) is None
    assert DEFAULT_CLASSIFIER.advice(None, KeyError()) is None


def test_a_classifier_from_options() -> None:
    assert classifier(None, None) is None
    given = Classifier()
    assert classifier(given, None) is given
    types = classifier((KeyError, OSError), None)
    assert types is not None
    assert types.error(KeyError()) is Verdict.FAILURE
    assert types.error(ValueError()) is Verdict.IGNORED
    assert types.result is None
    results = classifier(None, bool)
    assert results is not None
    assert results.result is not None
    assert results.result(1) is Verdict.FAILURE
    assert results.result(0) is Verdict.SUCCESS
    assert results.error(RejectedError("no")) is Verdict.IGNORED
    with pytest.raises(TypeError, match="on_result must be left out when on is a Classifier"):
        classifier(given, bool)

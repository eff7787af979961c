"""Many detectors, one declared run length.

The evidence of e-detectors is averaged, which is valid under any dependence between them (Vovk, Wang, "E-values:
calibration, combination and applications", Annals of Statistics 49, 2021): logarithms are not, so never average ratios.
Independent alarms share a run length by each having that many times as long a one.
"""

from __future__ import annotations

from collections.abc import Iterable

from palegreen.evaluators.detectors.edetector import EDetector, ratio


def combined(detectors: Iterable[EDetector], count: int, run_length: float) -> float:
    """The ratio of the evidence averaged over checks and segments.

    `count`: how many detectors there can ever be, which is fixed beforehand; those not yet there have no evidence.
    """
    return ratio(sum(detector.evidence for detector in detectors) / count, run_length)


def allotted(run_length: float, alarms: int) -> float:
    """What each of so many alarms has to declare for all of them together to have this run length."""
    return run_length * alarms

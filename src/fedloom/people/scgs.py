"""Separation of a surface by semantics and confidence, in the spirit of USR's SCGS: which class each of its points is.

Views vote by their parser's probabilities, each weighed by what speaks for it (`factors`); what contradicts the fused
field loses weight; settings are calibrated without labels (`calibration`); neighbours agree (`potts`); and a class that
is hardly there is none. Only images, cameras, masks and 2-D parsing labels are used. The formulas are a design.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import AtLeast, Count, Fraction, NonNegative, Positive, Range, check_ranges
from fedloom.people.calibration import Fit, chosen, left_out, surprise
from fedloom.people.captures import Photo
from fedloom.people.factors import Sights, boundary, confidence, incidence, sights, tempered, visibility
from fedloom.people.meshes import Floats, Ints
from fedloom.people.potts import SurfacePoints, affinity, mean_field, softmax, without

__all__ = ["FAIR_BASELINE", "VISIBLE_VOTE", "Separated", "Separation", "separate"]

_NONE = -60.0
"""Log-odds of a class that is excluded."""
_TEMPERATURES, _ERRORS = (0.5, 0.7, 1.0, 1.5, 2.0), (0.01, 0.03, 0.1, 0.2, 0.3)
_FITTED_ON = 2_000
"""Points that settings are fitted on."""


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Settings of a separation; every factor has a switch."""

    soft: bool = True
    """Whether a view tells probabilities, or its likeliest class alone."""
    visibility: bool = True
    behind_m: NonNegative = 0.02
    """How far behind the seen surface a point may lie and still be seen (tau)."""
    fade_m: Positive = 0.02
    """By what depth further behind its visibility falls to 1/e (sigma_z)."""
    least_visible: Fraction = 0.25
    """Visibility of all points where the picture shows the person (V_min)."""
    incidence: bool = False
    """Whether grazing views count less: off, as both are worse with it on people that defaults were chosen by."""
    least_cosine: Fraction = 0.05
    confidence: bool = True
    measure: Literal["entropy", "maximum"] = "entropy"
    boundary: bool = False
    """Whether pixels near edges of labels count less: off for the same reason."""
    boundary_px: Positive = 1.5
    consistency: bool = True
    rounds: AtLeast = 3
    """How often field and consistency take turns."""
    pool_steps: Count = 4
    """Over how many steps between neighbours consistency is averaged."""
    normalise: bool = True
    """Whether weights are scaled to the sum that visibility alone would have."""
    calibrate: bool = True
    guard: bool = True
    """Whether confidence is left out where it foretells a view left out no better."""
    temperature: Positive = 1.0
    """Where it is not calibrated (T)."""
    error: Annotated[float, Range(0, 0.99, low_excluded=True)] = 0.03
    """Where it is not calibrated (epsilon)."""
    strength: Positive = 2.0
    """Of the evidence (alpha)."""
    priors: tuple[Positive, ...] = ()
    """Of the classes of a person, the first of them class 1; without, even."""
    smooth: bool = True
    tempering: Annotated[float, Range(0, 1, low_excluded=True)] = 0.01
    """What evidence counts beside neighbours: parsers err over patches, so that evidence nearby is not independent."""
    smoothness: NonNegative = 1.2
    """What it costs that neighbours differ (lambda)."""
    reach_m: Positive = 0.03
    colour: bool = True
    """Whether labels rather change where colours do."""
    colour_reach: Positive = 0.1
    smooth_rounds: AtLeast = 30
    detect: bool = True
    """Whether a class that is hardly there is dropped and its points re-labelled."""
    least_area_m2: NonNegative = 0.03
    least_margin: Fraction = 0.3

    def __post_init__(self) -> None:
        check_ranges(self)


VISIBLE_VOTE = Separation(
    soft=False,
    fade_m=1e-4,
    least_visible=0.0,
    confidence=False,
    consistency=False,
    calibrate=False,
    guard=False,
    smooth=False,
    detect=False,
)
"""Every view that sees a point has one vote."""

FAIR_BASELINE = replace(VISIBLE_VOTE, fade_m=Separation().fade_m, smooth=True)
"""Votes by soft visibility, smoothed with the same neighbours: what a separation must beat."""


@dataclass(frozen=True, eq=False)
class Separated:
    """A surface's points by class; K counts the background, which no point is."""

    log_odds_NK: Floats
    """By evidence and neighbours: a layer's edge lies where two are equal."""
    shares_NK: Floats
    """Probabilities by evidence and neighbours, over K sums of 1."""
    labels_N: Ints
    margin_N: Floats
    """By how much the likeliest class's probability by evidence alone leads, 0 to 1; below 0 neighbours outvote it."""
    classes: tuple[int, ...]
    """The classes that are there."""
    fit: Fit
    guarded: bool
    """Whether confidence was left out as uninformative."""
    reliability_V: Floats
    """How far each view agrees with the others, 0.1 to 1."""


@dataclass(frozen=True, eq=False)
class _Fused:
    evidence_VNK: Floats
    reliability_V: Floats


class _Fusion:
    """What a separation knows of its points before it is decided how to read the parsers."""

    def __init__(self, seen: Sights, settings: Separation, affinity_NN: Any) -> None:
        self.settings, self.seen, self.affinity_NN = settings, seen, affinity_NN
        ones_VN = np.ones_like(seen.person_VN)
        self.visible_VN = (
            visibility(seen, settings.behind_m, settings.fade_m, settings.least_visible)
            if settings.visibility
            else seen.person_VN
        )
        self.fixed_VN = self.visible_VN * (incidence(seen, settings.least_cosine) if settings.incidence else ones_VN)
        self.fixed_VN = self.fixed_VN * (boundary(seen, settings.boundary_px) if settings.boundary else ones_VN)
        n_classes = seen.parsed_VNK.shape[-1]
        if settings.priors and len(settings.priors) != n_classes:
            raise ConfigError(f"priors: found {len(settings.priors)}, allowed are {n_classes}, or none.")
        self.prior_K = np.log(np.array(settings.priors or [1.0] * n_classes))

    def read(self, fit: Fit) -> tuple[Floats, Floats]:
        """Return probabilities [V, N, K] and the weights [V, N] of one reading, before consistency."""
        parsed_VNK = tempered(self.seen.parsed_VNK, fit.temperature)
        sure = confidence(parsed_VNK, self.settings.measure == "entropy") if fit.confident else 1.0
        if not self.settings.soft:
            parsed_VNK = np.eye(parsed_VNK.shape[-1])[self.seen.labels_VN]
        return parsed_VNK, self.fixed_VN * sure

    def evidence(self, fit: Fit, parsed_VNK: Floats, weights_VN: Floats) -> Floats:
        """Return the log-likelihoods [V, N, K] of the views, weighed."""
        if self.settings.normalise:
            weights_VN = weights_VN * (self.visible_VN.sum() / max(weights_VN.sum(), 1e-9))
        mixed_VNK = (1 - fit.error) * parsed_VNK + fit.error / parsed_VNK.shape[-1]
        return self.settings.strength * weights_VN[..., None] * np.log(mixed_VNK)

    def surprise(self, fit: Fit) -> float:
        """Return how badly the views foretell each other under one reading."""
        return surprise(self.evidence(fit, *self.read(fit)), self.prior_K, self.seen.labels_VN, self.visible_VN)

    def fused(self, fit: Fit) -> _Fused:
        """Return the evidence of the views after field and consistency have taken turns."""
        parsed_VNK, weights_VN = self.read(fit)
        reliability_V = np.ones(len(weights_VN))
        evidence_VNK = self.evidence(fit, parsed_VNK, weights_VN)
        for _ in range(self.settings.rounds if self.settings.consistency else 0):
            agrees_VN, reliability_V = self._consistency(parsed_VNK, evidence_VNK)
            evidence_VNK = self.evidence(fit, parsed_VNK, weights_VN * agrees_VN * reliability_V[:, None])
        return _Fused(evidence_VNK, reliability_V)

    def _consistency(self, parsed_VNK: Floats, evidence_VNK: Floats) -> tuple[Floats, Floats]:
        """Return how far each view agrees about each point with the field [V, N], and on the whole [V].

        With 4 views or more a view is compared with the others' field: with its own it would agree by itself.
        """
        field_XNK = softmax(evidence_VNK.sum(0)[None] + self.prior_K)
        if len(parsed_VNK) >= 4:
            field_XNK = left_out(evidence_VNK, self.prior_K)
        agrees_VN = (parsed_VNK * field_XNK).sum(-1)
        said_NV, seen_NV = (agrees_VN * self.visible_VN).T, self.visible_VN.T
        overall_V = said_NV.sum(0) / np.maximum(seen_NV.sum(0), 1e-9)
        for _ in range(self.settings.pool_steps):
            said_NV, seen_NV = said_NV + self.affinity_NN @ said_NV, seen_NV + self.affinity_NN @ seen_NV
        pooled_VN = (said_NV / np.maximum(seen_NV, 1e-9)).T
        return pooled_VN, ((overall_V - 0.3) / 0.5).clip(0.1, 1)


def separate(
    where: SurfacePoints, photos: Sequence[Photo], depth_VHW: Floats, settings: Separation | None = None
) -> Separated:
    """Return the class of each point of a surface by photographs with parses.

    `depth_VHW` are the surface's depths as the cameras see them, not finite where there is none. Raises DataError as
    `sights` does, ConfigError for priors of another number of classes.
    """
    settings = settings or Separation()
    affinity_NN = affinity(where, settings.reach_m, settings.colour_reach if settings.colour else None)
    fusion = _Fusion(sights(where, photos, depth_VHW), settings, affinity_NN)
    fit = _fit(fusion)
    fused = fusion.fused(fit)
    evidence_NK = fused.evidence_VNK.sum(0) + fusion.prior_K
    odds_NK = _smoothed(settings.tempering * evidence_NK, affinity_NN, settings)
    if settings.detect:
        ghosts = _ghosts(odds_NK, evidence_NK, where.areas_N, settings)
        evidence_NK = without(evidence_NK, ghosts, _NONE)
        tempered_NK = without(settings.tempering * evidence_NK, ghosts, _NONE)
        odds_NK = without(_smoothed(tempered_NK, affinity_NN, settings), ghosts, _NONE)
    odds_NK = odds_NK - odds_NK.max(1, keepdims=True)  # else a point of which all views are wrong would be background
    odds_NK = np.concatenate([np.full((len(odds_NK), 1), _NONE), odds_NK], axis=1)
    labels_N = odds_NK.argmax(1)
    return Separated(
        log_odds_NK=odds_NK,
        shares_NK=softmax(odds_NK),
        labels_N=labels_N,
        margin_N=_margins(evidence_NK, labels_N - 1),
        classes=tuple(np.unique(labels_N).tolist()),
        fit=fit,
        guarded=settings.confidence and not fit.confident,
        reliability_V=fused.reliability_V,
    )


def _fit(fusion: _Fusion) -> Fit:
    """Return how to read the parsers: as set, or by the surprise of a view left out, with confidence if it pays."""
    settings = fusion.settings
    given = Fit(settings.temperature, settings.error, settings.confidence)
    sample = _sampled(fusion)
    temperatures = _TEMPERATURES if settings.calibrate and settings.soft else (settings.temperature,)
    errors = _ERRORS if settings.calibrate else (settings.error,)
    best = given
    if settings.calibrate:
        best = chosen((replace(given, temperature=t, error=e) for t in temperatures for e in errors), sample.surprise)
    if not (settings.guard and settings.confidence):
        return best
    best = replace(best, surprise=sample.surprise(best))
    even = (replace(best, confident=False, temperature=t, error=e) for t in temperatures for e in errors)
    other = chosen(even, sample.surprise)
    return other if other.surprise <= best.surprise else best


def _sampled(fusion: _Fusion) -> _Fusion:
    """Return the fusion of every so many points, of which none has neighbours: enough to choose settings by."""
    seen = fusion.seen
    every = max(1, seen.person_VN.shape[1] // _FITTED_ON)
    return _Fusion(Sights(*(values[:, ::every] for values in vars(seen).values())), fusion.settings, None)


def _smoothed(evidence_NK: Floats, affinity_NN: Any, settings: Separation) -> Floats:
    if not settings.smooth:
        return evidence_NK
    return mean_field(evidence_NK, affinity_NN, settings.smoothness, settings.smooth_rounds)


def _margins(evidence_NK: Floats, labels_N: Ints) -> Floats:
    shares_NK = softmax(evidence_NK)
    own_N = np.take_along_axis(shares_NK, labels_N[:, None], axis=1)[:, 0]
    others_NK = shares_NK.copy()
    np.put_along_axis(others_NK, labels_N[:, None], -1.0, axis=1)
    return own_N - others_NK.max(1)


def _ghosts(odds_NK: Floats, evidence_NK: Floats, areas_N: Floats, settings: Separation) -> list[int]:
    """Return the classes that have too little area or are nowhere sure; one is always kept."""
    labels_N, shares_NK = odds_NK.argmax(1), softmax(odds_NK)
    margin_N = _margins(evidence_NK, labels_N)
    ghosts, area_K = list[int](), np.zeros(odds_NK.shape[1])
    for kind in range(odds_NK.shape[1]):
        own_N = labels_N == kind
        area_K[kind] = (shares_NK[own_N, kind] * areas_N[own_N]).sum()
        sure = (
            own_N.any() and float(np.average(margin_N[own_N], weights=areas_N[own_N] + 1e-12)) > settings.least_margin
        )
        if not sure or area_K[kind] <= settings.least_area_m2:
            ghosts.append(kind)
    return ghosts if len(ghosts) < len(area_K) else [kind for kind in ghosts if kind != int(area_K.argmax())]

"""Base calls of a merge in rounds, between sites and a coordinator."""

from __future__ import annotations

from sklmc.merging import MomentsRequest, SiteCoordinator, SiteMoments, site_moments
from tests.hostile.calls import add, add_methods, nothing

FEW = 20  # samples that a site of this world has at least
SITES = ["a", "b", "c"]


def coordinator(w):
    return SiteCoordinator(w.nets, sites=SITES, min_samples=FEW)


def answer(of, site, w):
    """Return the answer of a site to the open round."""
    net = of.models_[SITES.index(site)]
    return site_moments(of.next_request(), net, w.X, site=site, min_samples=FEW)


def request(w):
    return coordinator(w).next_request()


def moments(w):
    return answer(coordinator(w), "a", w)


def waiting(w):
    """Return a coordinator that has one answer of three."""
    found = coordinator(w)
    found.add(answer(found, "a", w))
    return found


def finished(w):
    found = coordinator(w)
    while found.next_request() is not None:
        for site in found.waiting_for_:
            found.add(answer(found, site, w))
    return found


def resume(path, world):
    """Resume from a path; the world stands for a file that is there."""
    found = coordinator(world)
    if path is world:
        path = world.folder / "progress.safetensors"
        waiting(world).save(path)
    return found.resume(path)


add(
    "sklmc.merging.SiteCoordinator",
    SiteCoordinator,
    lambda w: {"models": w.nets, "X": w.X, "y": w.y},
    sites="layers",
    target="option",
    min_samples="count",
    may_pass={"models": {"a list of one", "too many", "the same twice"}},
)
add(
    "sklmc.merging.site_moments",
    site_moments,
    lambda w: {"request": request(w), "net": w.a, "X": w.X, "site": "a", "min_samples": FEW},
    request="result",
    net="model",
    site="text",
    min_samples="count",
    may_pass={"X": {"fewer rows"}},
)
add_methods(SiteCoordinator, coordinator, {"next_request": nothing})
add_methods(SiteCoordinator, waiting, {"close_round": nothing})
add_methods(SiteCoordinator, finished, {"merge": nothing})
add_methods(
    SiteCoordinator, coordinator, {"add": lambda w: {"moments": moments(w)}}, moments="result"
)
add_methods(
    SiteCoordinator,
    coordinator,
    {"leave_out": lambda w: {"site": "b", "reason": "gone"}},
    site="text",
    reason="text",
    may_pass={"reason": {"no such name"}},
)
add_methods(SiteCoordinator, waiting, {"save": lambda w: {"path": w.folder / "progress"}})
add(
    "sklmc.merging.SiteCoordinator.resume",
    resume,
    lambda w: {"path": w, "world": w},
    signature=SiteCoordinator.resume,
)
for cls, made in ((MomentsRequest, request), (SiteMoments, moments)):
    add_methods(cls, made, {"to_bytes": nothing})
    add(
        f"sklmc.merging.{cls.__name__}.from_bytes",
        cls.from_bytes,
        lambda w, made=made: {"data": made(w).to_bytes()},
        data="bytes",
    )

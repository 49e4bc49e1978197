"""Fourier transforms, and complex numbers seen as pairs of real ones."""

from __future__ import annotations

from sklmc.symmetry._rules._position import renewed
from sklmc.symmetry._rules._registry import Labelled, Operation, register_rule

_PAIR = "real and imaginary part"


@register_rule(
    "aten::fft_fft",
    "aten::fft_ifft",
    "aten::fft_rfft",
    "aten::fft_irfft",
    "aten::fft_hfft",
    "aten::fft_ihfft",
    "aten::fft_fft2",
    "aten::fft_ifft2",
    "aten::fft_rfft2",
    "aten::fft_irfft2",
    "aten::fft_fftn",
    "aten::fft_ifftn",
    "aten::fft_rfftn",
    "aten::fft_irfftn",
    "aten::fft_fftshift",
    "aten::fft_ifftshift",
)
def fourier(op: Operation):
    """Places become frequencies along some dimensions, by default along as many as have sizes."""
    x, dims, sizes = op["self"], op.get("dim"), op.get("s")
    if dims is None:
        dims = range(x.ndim - (x.ndim if sizes is None else len(sizes)), x.ndim)
    return renewed(op, x, [dims] if isinstance(dims, int) else dims, "places become frequencies")


@register_rule("aten::view_as_real")
def view_as_real(op: Operation):
    """A last dimension of two: real and imaginary part."""
    return Labelled((*op["self"].axes, op.fresh(2, _PAIR)), op.shape())


@register_rule("aten::view_as_complex")
def view_as_complex(op: Operation):
    """The last dimension is gone."""
    x = op["self"]
    op.order(x, [-1], _PAIR)
    return Labelled(x.axes[:-1], op.shape())

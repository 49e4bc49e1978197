"""How wide must they be: searches over populations."""

from sklmc.model_selection._width_search import WidthSearchCV

__all__ = ["WidthSearchCV"]

"""Options of the charts, for ECharts drawing as SVG: colours are the style sheet's variables and follow the theme.

Every chart keeps its number of series, so that an update changes data and rebuilds nothing, and is sent a bounded
number of points however long the run is. Tooltips are drawn, not HTML: no text of a task or a model is ever parsed.
"""

from clients.dashboard.charts.axes import SERIES
from clients.dashboard.charts.best_so_far import best_so_far
from clients.dashboard.charts.comparison import comparison
from clients.dashboard.charts.training import training

__all__ = ["SERIES", "best_so_far", "comparison", "training"]

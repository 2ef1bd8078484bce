"""Pictures and the page: plots return axes, `report` writes one self-contained HTML file."""

from hjcontrol.reporting.page import report

__all__ = ["report"]

"""The site: `make docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import mapsto

project = "mapsto"
author = "The mapsto authors"
copyright = "The mapsto authors"
release = version = mapsto.__version__

extensions = ["myst_parser", "site_pages"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_ext"]
nitpicky = True
show_warning_types = True
pygments_style = "tango"

myst_heading_anchors = 3
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "mapsto"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5aa6", "color-brand-content": "#1f5aa6"},
    "dark_css_variables": {"color-brand-primary": "#8ab8f0", "color-brand-content": "#8ab8f0"},
}

"""The documentation site: `sphinx-build -W -b html docs build/site`; no network is needed."""

from anomaly_ad import __version__

project = "anomaly_ad"
author = "The anomaly_ad contributors"
release = version = __version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"anomaly_ad {version}"
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_static_path: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections have the types
# Keras is loaded by what trains; the pages need nothing of it.
autodoc_mock_imports = ["tensorflow", "keras"]
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

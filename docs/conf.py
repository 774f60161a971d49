"""Sphinx: the pages are Markdown, the reference comes from the docstrings."""

from importlib.metadata import version as installed

project = "dask_starburst"
author = "The dask_starburst developers"
copyright = author
release = version = installed("dask-starburst")

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
# The tables of a benchmark are included by a page.
exclude_patterns = ["_build", "explanation/beside-dask-cloudprovider/tables.md"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's parameter lists have them, with units
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
nitpicky = False  # Dask's docstrings, which we inherit, refer to pages of their own

html_theme = "furo"
html_title = "dask_starburst"

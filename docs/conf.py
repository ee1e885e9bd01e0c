"""Sphinx's settings for the site, which `make docs` builds."""

import sys
import warnings
from pathlib import Path

import textladder

warnings.simplefilter("ignore")  # those of libraries that autodoc imports; Sphinx reports its own differently
sys.path.insert(0, str(Path(__file__).parent))  # for `level_settings`, beside this file

project = "textladder"
author = "The textladder authors"
copyright = author
version = release = textladder.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "level_settings"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `refresh.py` runs the notebook; the site shows its stored outputs
nb_merge_streams = True

highlight_language = "text"  # blocks of Python are marked as such

html_theme = "furo"
html_title = "textladder"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

default_role = "code"  # docstrings write names as `this`
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

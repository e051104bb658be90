"""Measurements of the project. They are not part of the package that it installs."""

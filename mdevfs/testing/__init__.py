"""The pytest plug-in: hosts and machines for the tests of other people's tools.

`mdevfs.testing.plugin` has the fixtures, and imports the rest when a test asks for one; `host` and `machine` are what
they give, for annotations.
"""

"""Trials on a scratch installation, with the user's own code on the user's own machine: how fast, and what it survives.

`scratch` makes and copies installations, `story` is the life of one case, `torture` breaks it at every point.
"""

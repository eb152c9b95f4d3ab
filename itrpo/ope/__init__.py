"""Judging policies from logged data alone: what each estimate means and when not to believe it is in docs/judging.md.

Every estimator is a function of arrays, so any policy can be judged: it is what it does at the rows of a `Log`.
"""

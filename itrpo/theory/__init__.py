"""The paper's statements, run on exact finite MDPs in float64 NumPy. The mathematics is in docs/theory.md."""

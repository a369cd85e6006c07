"""Graph rewrites that Hexagon needs: ops that QNN refuses, or compiles and then computes wrongly, by ones it takes."""

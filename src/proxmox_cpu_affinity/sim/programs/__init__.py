"""The programs of a simulated node; each has main(tree, words) -> exit status."""
